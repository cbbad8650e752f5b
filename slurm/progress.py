"""How far a task is, in one line, and how it failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, List

from slurm.records import job_folder

TAIL_BYTES = 64 * 1024
HANG = "Timeout ("
"""How faulthandler begins when a training has taken no step for hang_minutes."""


def read_progress(root: Path, stage: str, index: int) -> Dict[str, Any]:
    """What the task last said: step, total_steps, loss, rate, seconds_left, time; {} for nothing."""
    try:
        values = json.loads((job_folder(root, stage, index) / "progress.json").read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def progress_columns(progress: Dict[str, Any]) -> List[str]:
    """Step, rate, time left and loss as text, "" for what is not known."""
    if not progress:
        return ["", "", "", ""]
    rate, loss = progress.get("rate"), progress.get("loss")
    return [
        f"{progress.get('step', '?')}/{progress.get('total_steps', '?')}",
        f"{rate:.1f}/s" if isinstance(rate, (int, float)) else "",
        duration(progress.get("seconds_left")),
        f"{loss:.4g}" if isinstance(loss, (int, float)) else "",
    ]


def progress_line(progress: Dict[str, Any]) -> str:
    """For example "1200/5500  22.4/s  3:12 left  loss 0.0041"."""
    step, rate, left, loss = progress_columns(progress)
    return "  ".join(part for part in (step, rate, left and f"{left} left", loss and f"loss {loss}") if part)


def duration(seconds: Any) -> str:
    """Seconds as minutes:seconds or hours:minutes:seconds; "" for what is no number."""
    if not isinstance(seconds, (int, float)):
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def tail(path: Path, lines: int) -> List[str]:
    """The last lines of a text file, read from its end; [] where there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


def failure_lines(log: Path, lines: int = 6) -> List[str]:
    """What a log says of a failure: its last `error:` line, the end of its last traceback, or its end.

    Of a process that hung: the top of its main thread's stack, which faulthandler writes last.
    """
    text = tail(log, 200)
    for number in range(len(text) - 1, -1, -1):
        if text[number].startswith("error: "):
            return [text[number]]
        if text[number].startswith(HANG):
            return [text[number], *_main_stack(text[number + 1 :])[:lines]]
        if text[number].startswith("Traceback (most recent call last)"):
            trace = [line for line in text[number:] if not line.startswith("srun: ")]  # what it says after it
            return trace[-lines:]
    return text[-lines:]


def _main_stack(text: List[str]) -> List[str]:
    frames = []
    for line in text:
        if line.startswith(("Thread ", "Current thread ")):
            frames = []
        elif line.startswith("  File "):
            frames.append(line)
    return frames

"""`logs`: the log of one task; the lines of a log that explain a failure."""

import argparse
import sys
import time
from pathlib import Path
from typing import List

from launch.stages import stage_named
from launch.state import ledger
from launch.state.task import TaskId
from launch.views.plan import tasks_text
from launch.views.status import Overview
from textocvp.files import UserError

TAIL_BYTES = 64 * 1024
HANG = "Timeout ("
"""First words of faulthandler's dump after hang_minutes without a step."""
FOLLOW_SECONDS = 1.0


def tail(path: Path, lines: int) -> List[str]:
    """The last lines of a text file, read from its end; [] if there is none."""
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-lines:]


def failure_lines(log: Path, lines: int = 6) -> List[str]:
    """Lines that explain a failure: the last `error:` line, the last traceback's end, or the log's end.

    For a hang: the top of the main thread's stack, which faulthandler writes last.
    """
    text = tail(log, 200)
    for number in range(len(text) - 1, -1, -1):
        if text[number].startswith("error: "):
            return [text[number]]
        if text[number].startswith(HANG):
            return [text[number], *_main_stack(text[number + 1 :])[:lines]]
        if text[number].startswith("Traceback (most recent call last)"):
            trace = [line for line in text[number:] if not line.startswith("srun: ")]  # lines after it
            return trace[-lines:]
    return text[-lines:]


def _main_stack(text: List[str]) -> List[str]:
    frames: List[str] = []
    for line in text:
        if line.startswith(("Thread ", "Current thread ")):
            frames = []
        elif line.startswith("  File "):
            frames.append(line)
    return frames


def log_path(root: Path, task: TaskId, rank: int = 0) -> Path:
    """The newest log of one process of a task."""
    last = ledger.last_events(root)
    if task not in last:
        known = ", ".join(tasks_text(sorted(last))) or "nothing"
        raise UserError(f"{root}: {task} was never submitted; submitted: {known}")
    first = Path(root, last[task]["log"])
    path = first.with_name(first.name.replace("_0_log.out", f"_{rank}_log.out"))
    if not path.exists():
        process = f", or has no process {rank}" if rank else ""
        raise UserError(f"{path} does not exist yet: {task} has not started{process}")
    return path


def run_logs(options: argparse.Namespace) -> int:
    """Print a log; with --follow until its task has ended, or Ctrl-C."""
    task = TaskId(stage_named(options.stage), options.task)
    path = log_path(options.exp, task, options.rank)
    print(f"{path}:", file=sys.stderr)
    lines = tail(path, options.lines) if options.lines else path.read_text().splitlines()
    print("\n".join(lines), flush=True)
    if options.follow:
        _follow(path, options.exp, task)
    return 0


def _follow(path: Path, root: Path, task: TaskId) -> None:
    """Print new lines of a log until its task has ended."""
    overview = Overview(root)
    with open(path) as file:
        file.seek(0, 2)
        while True:
            active = any(row.active for row in overview.rows() if row.id == task)
            text = file.read()
            print(text, end="", flush=True)
            if not text and not active:
                return
            time.sleep(0 if text else FOLLOW_SECONDS)

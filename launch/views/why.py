"""How far a task is, in one line, and how it failed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from launch.pipeline import from_folder
from launch.stages import DISTRIBUTED
from launch.state.manifest import Manifest
from launch.views.plan import stages_text
from launch.views.status import is_active, log_path, status_lines, task_rows, watch_status
from textocvp.config.errors import UserError, nearest

TAIL_BYTES = 64 * 1024
HANG = "Timeout ("
"""How faulthandler begins when a training has taken no step for hang_minutes."""


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


BROKEN = (
    "failed",
    "timeout",
    "out_of_memory",
    "node_fail",
    "boot_fail",
    "deadline",
    "preempted",
    "interrupted",
    "lost",
)
"""States of a task that ended without its outputs, by itself."""
CANCELLED = "cancelled"
AGAIN = "run the same command again: what is done is skipped, training continues from its last state"
SPACE = (
    "free space (`make prune EXP=...` removes what is never needed again, DRY=1 only lists it) or ask "
    "for quota, then " + AGAIN
)
ADVICE: Tuple[Tuple[str, str], ...] = (
    ("no space left", SPACE),
    ("disk quota", SPACE),
    (
        "out_of_memory",
        "raise resources.{stage}.mem_gb in the cluster's config or lower training.batch_size, then " + AGAIN,
    ),
    (
        "job memory limit",
        "raise resources.{stage}.mem_gb in the cluster's config or lower training.batch_size, then " + AGAIN,
    ),
    ("outofmemory", "lower training.batch_size, or ask for a larger GPU (constraint), then " + AGAIN),
    (
        "timeout (0:",
        "a process waited for a step that never came: see the stacks in its log and in the "
        "others' (make logs RANK=1 ...); " + AGAIN,
    ),
    ("state: timeout", "raise resources.{stage}.time in the cluster's config, then " + AGAIN),
    ("state: node_fail", "the node died; " + AGAIN),
    ("modulenotfounderror", "the jobs' python lacks a package: see `python` in the cluster's config"),
    ("state: preempted", "the site ends preempted jobs for good; " + AGAIN),
    ("state: stopped", AGAIN),
    ("state: cancelled", AGAIN),
    ("state: interrupted", AGAIN),
    ("state: lost", "the scheduler no longer knows the job; " + AGAIN),
    ("\nerror: ", "mend what the line says, then " + AGAIN),
)
"""What the state, the error or the log's last lines hold (lower case; \\n: at a line's start) -> advice."""
OTHERWISE = "read the log; once the cause is mended, " + AGAIN


def first_broken(rows: Sequence[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    """The first failing task in the order of the graph; None where nothing failed."""
    for broken in (_ended_by_itself, _asked_to_end):
        for row in rows:
            if broken(row):
                return row
    return None


def _ended_by_itself(row: Mapping[str, Any]) -> bool:
    """Whether a task is the cause of what failed after it; one that scancel ended while it ran is, too."""
    state = row["state"].split(" ")[0]
    return state in BROKEN or bool(state == CANCELLED and row["node"] and row["exit_code"])


def _asked_to_end(row: Mapping[str, Any]) -> bool:
    """Stopped, or cancelled before it started, mostly because its upstream failed: looked at where nothing
    else is broken."""
    return row["state"].split(" ")[0] in ("stopped", CANCELLED)


def why_lines(rows: Sequence[Mapping[str, Any]]) -> List[str]:
    """What `make why` prints of the rows that `task_rows` returns."""
    row = first_broken(rows)
    if row is None:
        counts: Dict[str, int] = {}
        for each in rows:
            counts[each["state"]] = counts.get(each["state"], 0) + 1
        states = ", ".join(f"{number} {state}" for state, number in counts.items())
        return [f"nothing failed: {states}"]
    log = failure_lines(Path(row["log"])) if row["log"] else []
    words = {"job": row["job_id"], "on": row["node"], "exit code": row["exit_code"]}
    facts = "".join(f", {name} {value}" for name, value in words.items() if value)
    error = f": {row['error']}" if row["error"] else ""
    label = f" ({row['label']})" if row["label"] else ""
    lines = [f"{row['stage']}[{row['task']}]{label} {row['state']}{facts}{error}"]
    lines += [f"  {line}" for line in log if not _told(line, row["error"])]
    lines += [f"log: {row['log']}"] if row["log"] else []
    others = [each for each in rows if each is not row and _ended_by_itself(each)]
    more = stages_text((each["stage"], each["task"]) for each in others)
    lines += [f"failed too: {', '.join(more)}"] if more else []
    return [*lines, f"what to do: {advice(row, log)}"]


def _told(line: str, error: str) -> bool:
    """Whether a log's `error: TASK: why` says what the ledger's line has said already."""
    return line.startswith("error: ") and line.split(": ", 2)[-1] in error


def advice(row: Mapping[str, Any], log: Sequence[str]) -> str:
    """What to do about a broken task."""
    text = "\n".join([f"state: {row['state']}", row["error"] or "", *(line.strip() for line in log)]).lower()
    known = next((words for pattern, words in ADVICE if pattern in text), OTHERWISE)
    return known.replace("{stage}", row["stage"])


def verify(root: Path) -> Tuple[int, List[str]]:
    """Number of files looked at, and a line for each that is missing or damaged.

    UserError: nothing has finished there.
    """
    paths = sorted(Path(root).glob("jobs/*/*/manifest.json"))
    if not paths:
        raise UserError(f"{root}: no task has finished there, nothing can be verified")
    files, lines = 0, []
    for path in paths:
        manifest = Manifest.read(path)
        files += len(manifest.outputs)
        task = f"{manifest.stage}[{manifest.task}]"
        lines += [f"{task}: {line}" for line in manifest.damaged_outputs(root, rehash=True)]
    return files, lines


WATCH_SECONDS = 5.0


def run_status(options: argparse.Namespace) -> int:
    """Print the table, or JSON; with --watch until nothing waits or runs."""
    if options.watch:
        watch_status(options.exp, WATCH_SECONDS)
        return 0
    rows = task_rows(from_folder(options.exp))
    print(json.dumps(rows) if options.json else "\n".join(status_lines(rows)))
    return 0


def run_why(options: argparse.Namespace) -> int:
    """Print what broke."""
    print("\n".join(why_lines(task_rows(from_folder(options.exp)))))
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Print damaged outputs; 1 where there are some."""
    files, lines = verify(from_folder(options.exp).root)
    do = f"; remove what is damaged, then make pipeline EXP={options.exp} makes it again" if lines else ""
    print("\n".join([*lines, f"{options.exp}: {files} files, {len(lines)} missing or damaged{do}"]))
    return 1 if lines else 0


def run_logs(options: argparse.Namespace) -> int:
    """Print a log; with --follow until Ctrl-C."""
    stage = options.stage.replace("-", "_")
    if stage not in DISTRIBUTED:
        raise UserError(
            f"--stage {options.stage}: no such stage"
            f"{nearest(options.stage, [name.replace('_', '-') for name in DISTRIBUTED])}"
        )
    path = log_path(options.exp, stage, options.task, options.rank)
    print(f"{path}:", file=sys.stderr)
    print(
        "\n".join(tail(path, options.lines) if options.lines else path.read_text().splitlines()), flush=True
    )
    if options.follow:
        _follow(path, lambda: is_active(options.exp, stage, options.task))
    return 0


def _follow(path: Path, active: Callable[[], bool]) -> None:
    """Print what a log grows by, until its task has ended."""
    with open(path) as file:
        file.seek(0, 2)
        while True:
            goes_on = active()
            text = file.read()
            print(text, end="", flush=True)
            if not text and not goes_on:
                return
            time.sleep(0 if text else 1)

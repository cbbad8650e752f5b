"""`why`: what failed first, where, and how to fix it. `verify`: outputs that have changed."""

import argparse
from collections import Counter
from enum import Enum
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from launch.pipeline import from_folder
from launch.state import ledger
from launch.state.ledger import Cause
from launch.state.manifest import Manifest
from launch.state.task import TaskId
from launch.views.logs import HANG, failure_lines
from launch.views.plan import shown, tasks_text
from launch.views.status import INTERRUPTED, LOST, Overview, TaskRow
from textocvp.files import UserError

AGAIN = "run the same command again; finished tasks are skipped, and training continues from its last state"


class Advice(Enum):
    """How to fix a task that ended without its outputs."""

    DISK_FULL = (
        "free space (`make prune EXP=...` removes files that are no longer needed, DRY=1 lists them) or "
        f"request quota, then {AGAIN}"
    )
    MEMORY = (
        "raise resources.{stage}.mem_gb in the cluster's config or lower training.batch_size, then " + AGAIN
    )
    GPU_MEMORY = f"lower training.batch_size, or request a larger GPU (constraint), then {AGAIN}"
    HANG = (
        "a process made no progress; see the stacks in its log and in the other ranks' logs "
        f"(make logs RANK=1 ...); {AGAIN}"
    )
    TIME = "raise resources.{stage}.time in the cluster's config, then " + AGAIN
    NODE = f"the node failed; {AGAIN}"
    PACKAGE = "the jobs' python lacks a package: see `python` in the cluster's config"
    PREEMPTED = f"the site does not requeue preempted jobs; {AGAIN}"
    STOPPED = AGAIN
    LOST = f"the scheduler no longer knows the job; {AGAIN}"
    USER_ERROR = f"fix the reported problem, then {AGAIN}"
    UNKNOWN = f"read the log, fix the cause, then {AGAIN}"


BY_STATE = {
    "out_of_memory": Advice.MEMORY,
    "timeout": Advice.TIME,
    "node_fail": Advice.NODE,
    "preempted": Advice.PREEMPTED,
    LOST: Advice.LOST,
    INTERRUPTED: Advice.STOPPED,
    ledger.STOPPED: Advice.STOPPED,
    ledger.CANCELLED: Advice.STOPPED,
}
IN_LOG: Tuple[Tuple[str, Advice], ...] = (
    ("no space left", Advice.DISK_FULL),
    ("disk quota", Advice.DISK_FULL),
    ("job memory limit", Advice.MEMORY),
    ("outofmemory", Advice.GPU_MEMORY),
    ("cuda out of memory", Advice.GPU_MEMORY),
    (HANG.lower(), Advice.HANG),
    ("modulenotfounderror", Advice.PACKAGE),
)
"""Messages of the operating system, Slurm, torch and Python (in lower case)."""
SLURM_BROKEN = ("timeout", "out_of_memory", "node_fail", "boot_fail", "deadline", "preempted")
BROKEN = frozenset((ledger.FAILED, INTERRUPTED, LOST, *SLURM_BROKEN))
"""States of a task that ended by itself without its outputs."""


def first_broken(rows: Sequence[TaskRow]) -> Optional[TaskRow]:
    """The first failed task in dependency order; None if nothing failed.

    One that was stopped, or cancelled before it started, mostly because its upstream failed, is of interest
    where nothing else is broken.
    """
    asked = [row for row in rows if row.state in (ledger.STOPPED, ledger.CANCELLED)]
    return next((row for row in [*filter(_ended_by_itself, rows), *asked]), None)


def _ended_by_itself(row: TaskRow) -> bool:
    """Whether a task can be the cause of later failures; also if scancel ended it while it was running."""
    return row.state in BROKEN or bool(row.state == ledger.CANCELLED and row.node and row.exit_code)


def why_lines(rows: Sequence[TaskRow]) -> List[str]:
    """The output of `make why`."""
    row = first_broken(rows)
    if row is None:
        states = ", ".join(f"{number} {state}" for state, number in Counter(r.state for r in rows).items())
        return [f"nothing failed: {states}"]
    log = failure_lines(Path(row.log)) if row.log else []
    words = {"job": row.job_id, "on": row.node, "exit code": row.exit_code}
    facts = "".join(f", {name} {value}" for name, value in words.items() if value)
    label, error = f" ({row.label})" if row.label else "", f": {row.error}" if row.error else ""
    others = tasks_text(each.id for each in rows if each is not row and _ended_by_itself(each))
    # the log repeats the ledger's error
    said = log if row.cause not in (Cause.REFUSED, Cause.DISK_FULL) else []
    return [
        f"{row.id}{label} {row.state}{facts}{error}",
        *(f"  {line}" for line in said),
        *([f"log: {row.log}"] if row.log else []),
        *([f"failed too: {', '.join(others)}"] if others else []),
        f"what to do: {advice(row, log).value.format(stage=shown(row.stage))}",
    ]


def advice(row: TaskRow, log: Sequence[str]) -> Advice:
    """Advice from the recorded cause, else from known messages in the log."""
    if row.cause == Cause.DISK_FULL:
        return Advice.DISK_FULL
    text = "\n".join([row.error, *log]).lower()
    found = next((each for words, each in IN_LOG if words in text), None) or BY_STATE.get(row.state)
    if found is not None:
        return found
    refused = row.cause == Cause.REFUSED or any(line.startswith("error: ") for line in log)
    return Advice.USER_ERROR if refused else Advice.UNKNOWN


def run_why(options: argparse.Namespace) -> int:
    """Print what failed."""
    print("\n".join(why_lines(Overview(options.exp).rows())))
    return 0


def verify(root: Path) -> Tuple[int, List[str]]:
    """Number of files read, and a line for each that is missing or damaged.

    UserError if no task has finished.
    """
    paths = sorted(Path(root).glob("jobs/*/*/manifest.json"))
    if not paths:
        raise UserError(f"{root}: no task has finished yet, so there is nothing to verify")
    files, lines = 0, []
    for path in paths:
        manifest = Manifest.read(path)
        files += len(manifest.outputs)
        task = TaskId(manifest.stage, manifest.task)
        lines += [f"{task}: {line}" for line in manifest.damaged_outputs(root, rehash=True)]
    return files, lines


def run_verify(options: argparse.Namespace) -> int:
    """Print damaged outputs; returns 1 if there are any."""
    files, lines = verify(from_folder(options.exp).root)
    do = f"; delete the damaged files and run make pipeline EXP={options.exp}" if lines else ""
    print("\n".join([*lines, f"{options.exp}: {files} files, {len(lines)} missing or damaged{do}"]))
    return 1 if lines else 0

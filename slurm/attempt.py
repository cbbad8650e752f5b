"""One attempt at a task: its name, rank 0's word to the others, and whether attempts get anywhere."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from slurm import ledger
from slurm.records import output_files
from slurm.task import Task
from textocvp.artifacts import ATTEMPT_FILE, ATTEMPT_VARIABLE, read_json, write_json
from textocvp.config.errors import UserError

PATIENCE = 600.0
"""Seconds that a rank waits for rank 0's checks."""
RUN, SKIP = "run", "skip"
MAX_STARTS = 3
"""Starts without progress after which a job ends."""


def job_name() -> str:
    """The scheduler's name of this job: "12", "12_3" in an array, "" without a scheduler."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return ""
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")


def attempt_name() -> str:
    """Differs between any two attempts at a task, and is the same on all ranks of one."""
    if "SUBMITIT_EXECUTOR" in os.environ:
        return f"{os.environ.get('SLURM_JOB_ID', '')}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    return os.environ.get(ATTEMPT_VARIABLE, str(os.getpid()))


def give_word(folder: Path, word: str) -> None:
    """Tell the other ranks to run, or that there is nothing to do; this is the newest attempt now."""
    write_json(folder / ATTEMPT_FILE, {"attempt": attempt_name(), "word": word})


def wait_for_word(folder: Path) -> str:
    """Rank 0's word on this attempt."""
    path, deadline = folder / ATTEMPT_FILE, time.time() + PATIENCE
    while time.time() < deadline:
        # while it is replaced a network file system may have neither the old one nor the new
        with contextlib.suppress(UserError, OSError):
            said = read_json(path)
            if said["attempt"] == attempt_name():
                return said["word"]
        time.sleep(0.1)
    raise TimeoutError(f"rank 0 gave no word in {PATIENCE:.0f} s")


def check_progress(root: Path, task: Task, saved: str) -> None:
    """UserError where MAX_STARTS starts of this job in a row have found nothing newer than this one.

    With progress any number of restarts is normal: a week of preemptions.

    Args:
        saved: from `last_saved`.
    """
    job = job_name()
    starts = [
        event.get("saved")
        for event in ledger.read_ledger(root)
        if event["event"] == ledger.STARTED
        and (event["stage"], event["task"]) == task.id
        and event["job_id"] == job
    ]
    if job and starts[-MAX_STARTS:] == [saved] * MAX_STARTS:
        raise UserError(
            f"{task.name} was started {MAX_STARTS} times without saving anything new: its time limit, or the "
            f"time between two preemptions, is too short for it; submit it again with more time "
            f'(RES="time=...")'
        )


def last_saved(root: Path, task: Task) -> str:
    """What a task has put by so far: its newest state (their names count steps), its number of outputs.

    Times of files would not do: the clocks of two nodes differ.
    """
    states = [
        path.name
        for name in task.leftovers
        if Path(name).name == "resume"
        for path in (root / name).glob("step_*")
    ]
    return f"{max(states, default='no state')}, {len(output_files(root, task))} outputs"

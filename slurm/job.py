"""A job: check the task's inputs, run its line in this process, write its manifest.

    python -m slurm.job EXP/jobs/STAGE/TASK/task.json

is what every executor runs, once per rank. Rank 0 alone checks and records; the others wait for its word.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Dict

from slurm import ledger
from slurm.progress import read_progress
from slurm.ranks import set_rank_variables
from slurm.records import Records, job_folder, output_files, read_task, set_aside, write_manifest
from slurm.standing import CHANGED, DONE, InputError, check_upstream, input_hashes, refusal, stand
from slurm.task import Task
from textocvp.artifacts import (
    ATTEMPT_FILE,
    ATTEMPT_VARIABLE,
    JOB_DIR_VARIABLE,
    provenance,
    read_json,
    refuse_if_superseded,
    write_json,
)
from textocvp.config.errors import UserError

PATIENCE = 600.0
"""Seconds that a rank waits for rank 0's checks."""
STOPPED_CODES = (128 + signal.SIGINT, 128 + signal.SIGUSR2, 128 + signal.SIGTERM)
"""Exit codes of a command that saved its state and stopped on a signal."""
RUN, SKIP = "run", "skip"
HEADER_END = "rank 0 of "
"""The last line before what the task itself prints begins like this."""
MAX_STARTS = 3
"""Starts without progress after which a job ends."""


def run_task_file(path: str) -> Dict[str, Any]:
    """Run the task that a file describes; what it returns is plain JSON.

    Raises:
        SystemExit: the command's own status, where it is not 0.
    """
    folder = Path(path).resolve().parent
    root, stage, index = folder.parent.parent.parent, folder.parent.name, int(folder.name)
    task = read_task(root, stage, index)
    if task is None:
        raise UserError(f"{path}: no such task")
    rank = set_rank_variables()
    print(task.command, flush=True)
    node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    print(f"rank {rank} of {os.environ['WORLD_SIZE']} on {node}", flush=True)
    os.environ[JOB_DIR_VARIABLE] = str(folder)
    os.environ[ATTEMPT_VARIABLE] = attempt_name()
    os.environ["TEXTOCVP_ALWAYS_RESUME"] = "1"
    own_signals()
    if rank == 0:
        return run_first_rank(root, task)
    if wait_for_word(folder) == RUN:
        run_command(task)
    return {"stage": stage, "task": index, "rank": rank}


def run_first_rank(root: Path, task: Task) -> Dict[str, Any]:
    """Rank 0: the checks before the command and the records after it."""
    where = {"host": socket.gethostname(), "pid": os.getpid(), "job_id": job_name()}
    started, saved = time.time(), last_saved(root, task)
    try:
        ledger.record(root, ledger.STARTED, *task.id, saved=saved, **where)
        if not needs_run(root, task):
            print(f"{task.name} is done: same config, same inputs, outputs whole", flush=True)
            give_word(job_folder(root, *task.id), SKIP)
        else:
            check_progress(root, task, saved)
            (job_folder(root, *task.id) / "progress.json").unlink(missing_ok=True)  # an earlier attempt's
            give_word(job_folder(root, *task.id), RUN)
            run_command(task)
            refuse_if_superseded()
            write_manifest(root, task, input_hashes(Records(root), task), time.time() - started, provenance())
    except BaseException as error:
        event = ledger.STOPPED if was_stopped(error) else ledger.FAILED
        step = read_progress(root, *task.id).get("step")
        ledger.record(root, event, *task.id, error=describe(error), step=step, **where)
        raise
    ledger.record(root, ledger.FINISHED, *task.id, seconds=round(time.time() - started, 1), **where)
    return {"stage": task.stage, "task": task.index, "rank": 0}


def needs_run(root: Path, task: Task) -> bool:
    """Whether the task has work to do; raises where it may not do it."""
    records = Records(root)
    check_upstream(records, task)
    input_hashes(records, task)
    standing = stand(records, task)
    if standing.state == CHANGED and task.rerun:
        print(f"moved the old outputs to {set_aside(root, task)}", flush=True)
    elif standing.state == CHANGED and not task.replaceable:
        raise InputError(refusal(task, standing))
    return standing.state != DONE


def check_progress(root: Path, task: Task, saved: float) -> None:
    """RuntimeError where MAX_STARTS starts of this job in a row have found nothing newer than this one.

    With progress any number of restarts is normal: a week of preemptions.

    Args:
        saved: from `last_saved`.
    """
    job = job_name()
    starts = [event.get("saved") for event in ledger.read_ledger(root)
              if event["event"] == ledger.STARTED and (event["stage"], event["task"]) == task.id
              and event["job_id"] == job]
    if job and starts[-MAX_STARTS:] == [saved] * MAX_STARTS:
        raise RuntimeError(
            f"{task.name} was started {MAX_STARTS} times without saving anything new: its time limit, or the "
            f"time between two preemptions, is too short for it; submit it again with more time "
            f"(RES=\"time=...\")"
        )


def last_saved(root: Path, task: Task) -> float:
    """Time of the newest saved state or output of a task, seconds since the epoch; 0.0 for none."""
    states = [path for name in task.leftovers if Path(name).name == "resume"
              for path in (root / name).glob("[!.]*")]
    return max((path.stat().st_mtime for path in [*states, *output_files(root, task)]), default=0.0)


def run_command(task: Task) -> None:
    """Call the entry point that `python -m textocvp` calls, in this process."""
    status = importlib.import_module("textocvp.cli").main(list(task.argv))
    if status:
        raise SystemExit(status)


def own_signals() -> None:
    """Take back what submitit has its handlers on: they requeue from inside the job, and on rank 0 alone.

    Training installs its own; a stage without any dies of TERM and lives on after USR2.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have left it ignored
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


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
        said = read_json(path) if path.exists() else {}
        if said.get("attempt") == attempt_name():
            return said["word"]
        time.sleep(0.1)
    raise TimeoutError(f"rank 0 gave no word in {PATIENCE:.0f} s")


def was_stopped(error: BaseException) -> bool:
    """Whether a signal ended the command in an orderly way."""
    return isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and error.code in STOPPED_CODES
    )


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def main() -> int:
    """The command line of the local runner."""
    try:
        run_task_file(sys.argv[1])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

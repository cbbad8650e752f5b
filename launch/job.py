"""A job: check the task's inputs, run its line in this process, write its manifest.

    python -m launch.job EXP/jobs/STAGE/TASK/task.json

Every executor runs this, once per rank. Only rank 0 checks and records; the others wait for its decision.
"""

import contextlib
import importlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Dict, NoReturn, Optional

from launch.state import attempt, ledger, manifest
from launch.state.attempt import RUN, SKIP, job_name
from launch.state.ledger import Cause
from launch.state.manifest import InputError, Records
from launch.state.task import Task, job_folder, read_task
from textocvp.config.job import (
    ATTEMPT_VARIABLE,
    JOB_DIR_VARIABLE,
    REQUEUE_FILE,
    SupersededError,
    read_progress,
    refuse_if_superseded,
)
from textocvp.files import DiskFullError, UserError, format_bytes, provenance

EXIT_USER_ERROR = 2
CACHE_SECONDS, POLL_SECONDS = 90.0, 5.0
"""Seconds for which NFS may show cached attributes of a file or folder (acregmax, acdirmax)."""


class CancelledError(UserError):
    """The job was cancelled while it was being requeued."""


def run_task_file(path: str) -> Dict[str, Any]:
    """Run the task that a file describes; returns plain JSON.

    Raises:
        SystemExit: the command's exit status, if it is not 0.
    """
    folder = Path(path).resolve().parent
    root, stage, index = folder.parent.parent.parent, folder.parent.name, int(folder.name)
    task = read_task(root, stage, index)
    if task is None:
        raise UserError(f"{path}: no such task")
    rank = attempt.set_rank_variables()
    print(task.command, flush=True)
    print(f"rank {rank} of {os.environ['WORLD_SIZE']} on {node_name()}", flush=True)
    os.environ[JOB_DIR_VARIABLE] = str(folder)
    os.environ[ATTEMPT_VARIABLE] = attempt.attempt_name()
    os.environ["TEXTOCVP_ALWAYS_RESUME"] = "1"
    attempt.own_signals()
    try:
        if rank == 0:
            run_first_rank(root, task, folder)
        elif attempt.await_decision(folder) == RUN:
            run_command(task)
    except DiskFullError as error:
        end_on_full_disk(root, task, error)
    except UserError as error:
        end_with_line(task, disk_full_elsewhere(root, task) or describe(error))
    except Exception:
        elsewhere = disk_full_elsewhere(root, task)
        if elsewhere:  # rank 0 failed while this rank waited
            end_with_line(task, elsewhere)
        raise
    return {"stage": stage, "task": index, "rank": rank}


def run_first_rank(root: Path, task: Task, folder: Path) -> None:
    """Rank 0: the checks before the command and the records after it."""
    started, saved = time.time(), attempt.last_saved(root, task)
    # left by an attempt that was killed before its batch script read it
    (folder / REQUEUE_FILE).unlink(missing_ok=True)
    try:
        refuse_cancelled(root, task)
        ledger.record(root, ledger.STARTED, *task.id, saved=saved, **whereabouts())
        if not needs_run(root, task):
            print(f"{task.name} is done: same config, same inputs, complete outputs", flush=True)
            attempt.announce(folder, SKIP)
        else:
            attempt.check_progress(root, task, saved)
            (folder / "progress.json").unlink(missing_ok=True)  # an earlier attempt's
            attempt.announce(folder, RUN)
            run_command(task)
            refuse_if_superseded()
            manifest.write_manifest(
                root, task, manifest.input_hashes(Records(root), task), time.time() - started, provenance()
            )
    except DiskFullError:
        raise
    except BaseException as error:
        if not disk_full_elsewhere(root, task):
            with contextlib.suppress(DiskFullError):
                record_end(
                    root, task, describe(error), None if attempt.was_stopped(error) else cause_of(error)
                )
        raise
    seconds = round(time.time() - started, 1)
    ledger.record(root, ledger.FINISHED, *task.id, seconds=seconds, **whereabouts())


def run_command(task: Task) -> None:
    """Call the entry point that `python -m textocvp` calls, in this process."""
    status = importlib.import_module("textocvp.cli").main(list(task.argv))
    if status:
        raise SystemExit(status)


def end_on_full_disk(root: Path, task: Task, error: DiskFullError) -> NoReturn:
    """One line in log and ledger; no requeue, because the job would fail again."""
    from launch.state.prune import alive_by_ledger, leftovers  # all settings: no other job needs them here

    (job_folder(root, *task.id) / REQUEUE_FILE).unlink(missing_ok=True)
    freed = format_bytes(sum(leftover.bytes for leftover in leftovers(root, alive_by_ledger(root))))
    text = f"{error}; `make prune EXP={root}` would free {freed}"
    with contextlib.suppress(DiskFullError):  # writing to the ledger may fail too
        record_end(root, task, text, Cause.DISK_FULL)
    end_with_line(task, text)


def end_with_line(task: Task, text: str) -> NoReturn:
    """The line in the log that says why the job ends."""
    with contextlib.suppress(OSError):  # writing to the log may fail too
        about = "" if text.startswith(task.name) else f"{task.name}: "
        print(f"error: {about}{text}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_USER_ERROR)


def disk_full_elsewhere(root: Path, task: Task) -> str:
    """The full-disk error that another rank of this attempt recorded; "" if there is none."""
    last = ledger.last_events(root).get(task.id, {})
    found = last.get("event") == ledger.FAILED and last.get("cause") == Cause.DISK_FULL
    return str(last["error"]) if found else ""


def record_end(root: Path, task: Task, error: str, cause: Optional[Cause]) -> None:
    """Record in the ledger that an attempt failed, or was stopped by a signal (no cause)."""
    step, event = read_progress(root, *task.id).get("step"), ledger.FAILED if cause else ledger.STOPPED
    ledger.record(root, event, *task.id, error=error, cause=cause, step=step, **whereabouts())


def cause_of(error: BaseException) -> Cause:
    """The kind of an error, for the ledger."""
    if isinstance(error, (SupersededError, CancelledError)):
        return Cause.SUPERSEDED if isinstance(error, SupersededError) else Cause.CANCELLED
    if isinstance(error, UserError):
        return Cause.REFUSED
    return Cause.EXIT_STATUS if isinstance(error, SystemExit) else Cause.EXCEPTION


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = " ".join(str(error).split())
    if isinstance(error, UserError):
        return text[:500]
    if isinstance(error, SystemExit):
        return f"exit code {text}"
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def whereabouts() -> Dict[str, Any]:
    """The node and the process id, for the ledger."""
    return {"host": node_name(), "pid": os.getpid(), "job_id": job_name()}


def node_name() -> str:
    """The node's name; the scheduler's name for it inside its jobs."""
    host = socket.gethostname()
    return os.environ.get("SLURMD_NODENAME", host) if job_name() else host


def refuse_cancelled(root: Path, task: Task) -> None:
    """Raise CancelledError if the job was cancelled while it was being requeued."""
    last = ledger.last_events(root).get(task.id, {})
    if job_name() and last.get("job_id") == job_name() and last.get("event") == ledger.CANCELLED:
        raise CancelledError(f"{task.name} was cancelled; the same command submits it again")


def needs_run(root: Path, task: Task) -> bool:
    """Whether the task has work to do; raises if it must not run."""
    records = checked_records(root, task)
    reasons = manifest.reasons_to_run(records, task)
    if any(reason.changed for reason in reasons):
        if task.rerun:
            print(f"moved the old outputs to {manifest.set_aside(root, task)}", flush=True)
        elif not task.replaceable:
            raise InputError(manifest.refusal(task, reasons))
    return bool(reasons)


def checked_records(root: Path, task: Task) -> Records:
    """Records in which all inputs of the task exist; InputError if one does not.

    A job retries for a while: a network file system shows new files of another node only when
    its caches have expired.
    """
    deadline = time.monotonic() + (CACHE_SECONDS if job_name() else 0)
    while True:
        records = Records(root)
        try:
            manifest.check_upstream(records, task)
            manifest.input_hashes(records, task)
            return records
        except InputError:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_SECONDS)


def main() -> int:
    """The command line of the local runner."""
    try:
        run_task_file(sys.argv[1])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())

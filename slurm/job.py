"""A job: check the task's inputs, run its line in this process, write its manifest.

    python -m slurm.job EXP/jobs/STAGE/TASK/task.json

is what every executor runs, once per rank. Rank 0 alone checks and records; the others wait for its word.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, Callable, Dict, NoReturn, Optional

from slurm import ledger
from slurm.attempt import (
    RUN,
    SKIP,
    attempt_name,
    check_progress,
    give_word,
    job_name,
    last_saved,
    wait_for_word,
)
from slurm.progress import read_progress
from slurm.prune import alive_by_ledger, leftovers
from slurm.ranks import set_rank_variables
from slurm.records import Records, job_folder, read_task, set_aside, write_manifest
from slurm.standing import CHANGED, DONE, InputError, check_upstream, input_hashes, refusal, stand
from slurm.task import Task
from textocvp.artifacts import (
    ATTEMPT_VARIABLE,
    JOB_DIR_VARIABLE,
    REQUEUE_FILE,
    TERM_WAIT_VARIABLE,
    provenance,
    refuse_if_superseded,
)
from textocvp.config.errors import DiskFullError, UserError
from textocvp.disk_space import format_bytes

STOPPED_CODES = (128 + signal.SIGINT, 128 + signal.SIGUSR2, 128 + signal.SIGTERM)
"""Exit codes of a command that saved its state and stopped on a signal."""
DISK_FULL = "disk full"
"""What the ledger's line on a full disk begins with."""
EXIT_USER_ERROR = 2
HEADER_END = "rank 0 of "
"""The last line before what the task itself prints begins like this."""


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
    try:
        if rank == 0:
            return run_first_rank(root, task)
        if wait_for_word(folder) == RUN:
            run_command(task)
    except DiskFullError as error:
        end_on_full_disk(root, task, error)
    except Exception:
        elsewhere = disk_full_elsewhere(root, task)
        if elsewhere:  # it left this rank waiting
            end_with_line(task, elsewhere)
        raise
    return {"stage": stage, "task": index, "rank": rank}


def run_first_rank(root: Path, task: Task) -> Dict[str, Any]:
    """Rank 0: the checks before the command and the records after it."""
    started, saved = time.time(), last_saved(root, task)
    # of an attempt that was killed before its batch script saw it: this one would be queued again for it
    (job_folder(root, *task.id) / REQUEUE_FILE).unlink(missing_ok=True)
    try:
        ledger.record(root, ledger.STARTED, *task.id, saved=saved, **whereabouts())
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
    except DiskFullError:
        raise
    except BaseException as error:
        if disk_full_elsewhere(root, task):
            raise
        event = ledger.STOPPED if was_stopped(error) else ledger.FAILED
        with contextlib.suppress(DiskFullError):
            record_end(root, task, event, describe(error))
        raise
    seconds = round(time.time() - started, 1)
    ledger.record(root, ledger.FINISHED, *task.id, seconds=seconds, **whereabouts())
    return {"stage": task.stage, "task": task.index, "rank": 0}


def end_on_full_disk(root: Path, task: Task, error: DiskFullError) -> NoReturn:
    """One line in log and ledger, no request to be queued again, and out: the job would only fail again."""
    (job_folder(root, *task.id) / REQUEUE_FILE).unlink(missing_ok=True)
    freed = format_bytes(sum(leftover.bytes for leftover in leftovers(root, alive_by_ledger(root))))
    text = f"{error}; `make prune EXP={root}` would free {freed}"
    with contextlib.suppress(DiskFullError):  # the ledger may find no space either
        record_end(root, task, ledger.FAILED, f"{DISK_FULL}: {text}")
    end_with_line(task, text)


def end_with_line(task: Task, text: str) -> NoReturn:
    """The line in the log that says why the job ends."""
    with contextlib.suppress(OSError):  # the log may find no space either
        print(f"error: {task.name}: {text}", file=sys.stderr, flush=True)
    raise SystemExit(EXIT_USER_ERROR)


def disk_full_elsewhere(root: Path, task: Task) -> str:
    """What another rank of this attempt has said of a full disk; "" where none has."""
    last = ledger.last_events(root).get(task.id, {})
    found = last.get("event") == ledger.FAILED and last.get("error", "").startswith(DISK_FULL)
    return last["error"] if found else ""


def record_end(root: Path, task: Task, event: str, error: str) -> None:
    """The ledger's line on an attempt that did not succeed."""
    step = read_progress(root, *task.id).get("step")
    ledger.record(root, event, *task.id, error=error, step=step, **whereabouts())


def whereabouts() -> Dict[str, Any]:
    """Where this process runs, for the ledger."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "job_id": job_name()}


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


def run_command(task: Task) -> None:
    """Call the entry point that `python -m textocvp` calls, in this process."""
    status = importlib.import_module("textocvp.cli").main(list(task.argv))
    if status:
        raise SystemExit(status)


def own_signals() -> None:
    """Take back what submitit has its handlers on: they requeue from inside the job, and on rank 0 alone.

    Training installs its own; a stage without any lives on after USR2, and leaves TERM to the scheduler.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have left it ignored
    signal.signal(signal.SIGTERM, leave_to_scheduler(os.getpid()) if job_name() else signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def leave_to_scheduler(owner: int) -> Callable[[int, Optional[FrameType]], None]:
    """A handler of TERM that does nothing more and waits: for the end (scancel) or for being queued again.

    A preempted job that ended by itself in its grace time would count as failed, and never be queued again.
    """

    def wait(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != owner:  # a child that inherited this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises where its workers have ended
        deadline = time.monotonic() + float(os.environ.get(TERM_WAIT_VARIABLE, "0"))
        while time.monotonic() < deadline:
            time.sleep(0.2)
        raise SystemExit(128 + number)

    return wait


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
        return EXIT_USER_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())

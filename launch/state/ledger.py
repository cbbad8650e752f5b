"""EXP/jobs/ledger.jsonl: what was submitted, started and ended, one line each, never rewritten; its lock."""

import contextlib
import json
import time
from enum import Enum
from pathlib import Path
from typing import Any, Dict, Iterator, List

from launch.state.task import TaskId
from textocvp.files import UserError, append_jsonl, file_lock, full_disk_reason


class Event(str, Enum):
    """What happened to a task."""

    SUBMITTED = "submitted"
    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    """Stopped by a signal after saving its state: the same task continues."""
    CANCELLED = "cancelled"

    __str__ = str.__str__


SUBMITTED, STARTED, FINISHED, FAILED, STOPPED, CANCELLED = Event


class Cause(str, Enum):
    """Why a task failed: the field `cause` of its event, absent in ledgers of earlier revisions."""

    DISK_FULL = "disk_full"
    SUPERSEDED = "superseded"  # by another attempt
    CANCELLED = "cancelled"  # while it was being requeued
    REFUSED = "refused"  # a user error; the message says how to fix it
    EXIT_STATUS = "exit_status"  # other than 0
    EXCEPTION = "exception"

    __str__ = str.__str__


def ledger_path(root: Path) -> Path:
    """The ledger of the experiment in `root`."""
    return Path(root) / "jobs" / "ledger.jsonl"


def record(root: Path, event: Event, stage: str, task: int, **details: Any) -> None:
    """Append one event of one task."""
    line = {"event": event, "time": round(time.time(), 3), "stage": stage, "task": task, **details}
    append_jsonl(ledger_path(root), line)


def read_ledger(root: Path) -> List[Dict[str, Any]]:
    """All events in order; truncated lines and lines that are not events are skipped."""
    path = ledger_path(root)
    events = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and {"event", "time", "stage", "task"} <= set(event):
            events.append(event)
    return events


def submitted_jobs(root: Path) -> List[str]:
    """Ids of all jobs that were ever submitted."""
    return [event["job_id"] for event in read_ledger(root) if event["event"] == SUBMITTED and event["job_id"]]


def last_events(root: Path) -> Dict[TaskId, Dict[str, Any]]:
    """Each task's last submission, merged with the later records of its job.

    `event` and `event_time` are those of the last record; `starts` counts how often the job was started.
    """
    events = read_ledger(root)
    last: Dict[TaskId, Dict[str, Any]] = {}
    since: Dict[TaskId, int] = {}
    for number, event in enumerate(events):
        if event["event"] == SUBMITTED:
            task = TaskId(event["stage"], event["task"])
            last[task], since[task] = dict(event, event_time=event["time"], starts=0), number
    for number, event in enumerate(events):
        task = TaskId(event["stage"], event["task"])
        if event["event"] == SUBMITTED or task not in last:
            continue
        # a job may start before its submission is recorded
        same_job = event.get("job_id") and event["job_id"] == last[task]["job_id"]
        if same_job or (number > since[task] and not last[task]["job_id"]):
            starts = last[task]["starts"] + (event["event"] == STARTED)
            kept = {"time": last[task]["time"], "event_time": event["time"], "starts": starts}
            last[task].update({**event, **kept})
    return last


@contextlib.contextmanager
def locked(root: Path) -> Iterator[int]:
    """Hold the experiment's lock, which plans, submissions and local runs take; yields its descriptor.

    Processes that inherit the descriptor hold the lock too: after a runner is killed, the lock is released
    when the last orphan has exited.

    Raises:
        UserError: another process holds it, or the file system has no locks.
    """
    path = Path(root) / "jobs" / "lock"
    with contextlib.ExitStack() as stack:
        try:
            descriptor = stack.enter_context(file_lock(path, wait=False))
        except BlockingIOError:
            why = f"in use by another run, which holds {path}; wait for it or stop it"
            raise UserError(f"{root}: {why}") from None
        except PermissionError:
            raise UserError(f"{path}: permission denied; does {root} belong to another user?") from None
        except OSError as error:
            if full_disk_reason(error):
                raise
            why = f"{error.strerror}; use a file system with locks (Lustre: -o flock)"
            raise UserError(f"{path}: cannot be locked: {why}") from None
        yield descriptor

"""`status`: the state of each task, from manifests, ledger, progress files and one squeue call."""

import argparse
import json
import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from launch.jobs import ENDED, scheduler_states
from launch.pipeline import from_folder
from launch.plan import Action, Step, make_plan
from launch.stages import all_tasks
from launch.state import ledger
from launch.state.task import TaskId
from launch.views.plan import shown
from slurm import queue
from textocvp.config.job import read_progress
from textocvp.terminal import format_table, progress_columns

DONE, NOT_SUBMITTED, STARTING, RUNNING = "done", "not submitted", "starting", "running"
INTERRUPTED, LOST = "interrupted", "lost"
"""Its process has disappeared without a record; no scheduler knows its job."""
OUT_OF_DATE, MAY_CHANGE = "out of date", "done, may change"
"""Of finished tasks: their inputs changed; an upstream task has not succeeded yet."""
ACTIVE = frozenset({STARTING, *(state.lower() for state in queue.ACTIVE)} - {ledger.STOPPED})
"""States of a task whose log may still grow; "stopped" is the ledger's state, not Slurm's."""
HEADER = ("stage", "task", "what", "job", "state", "node", "step", "rate", "left", "loss", "restarts", "log")
WATCH_SECONDS = 5.0


@dataclass(frozen=True)
class TaskRow:
    """One task of an experiment."""

    stage: str
    task: int
    label: str = ""
    job_id: str = ""
    state: str = NOT_SUBMITTED
    """A state from above, from the ledger, or from Slurm in lower case."""
    node: str = ""
    """The node on which it runs or last ran."""
    step: Optional[int] = None
    total_steps: Optional[int] = None
    rate: Optional[float] = None
    """Steps per second."""
    seconds_left: Optional[float] = None
    loss: Optional[float] = None
    restarts: int = 0
    reason: str = ""
    """Slurm's reason why its job is pending."""
    exit_code: str = ""
    """code:signal of a job that has ended."""
    error: str = ""
    """The error of a failed task, from its job."""
    cause: str = ""
    """Of a task that failed: one of ledger.Cause, where its job recorded it."""
    log: str = ""

    @property
    def id(self) -> TaskId:
        """Stage and index."""
        return TaskId(self.stage, self.task)

    @property
    def active(self) -> bool:
        """Whether it is pending or running."""
        return self.state in ACTIVE


class Overview:
    """The states of an experiment's tasks; planned again only when the ledger has changed."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)
        self._ledger: Optional[Tuple[int, int]] = None
        self._planned = False
        self._steps: Tuple[Step, ...] = ()
        self._last: Mapping[TaskId, Mapping[str, Any]] = {}
        self._progress: Dict[TaskId, Dict[str, Any]] = {}

    def rows(self) -> List[TaskRow]:
        """One row for each task of the pipeline."""
        self._refresh()
        jobs = scheduler_states({task: e for task, e in self._last.items() if e["event"] not in ENDED})
        rows = []
        for step in self._steps:
            event, job = self._last.get(step.task.id, {}), jobs.get(step.task.id)
            state = DONE if step.action is Action.DONE else task_state(event, job)
            state = MAY_CHANGE if state == OUT_OF_DATE and step.may_change else state
            if state in ACTIVE:
                self._progress[step.task.id] = read_progress(self.root, *step.task.id)
            rows.append(self._row(step, state, event, job))
        return rows

    def _refresh(self) -> None:
        path = ledger.ledger_path(self.root)
        found = path.stat() if path.is_file() else None
        stamp = (found.st_mtime_ns, found.st_size) if found else None
        if self._planned and stamp == self._ledger:
            return
        pipeline = from_folder(self.root)
        self._last = ledger.last_events(self.root)
        self._steps = make_plan(pipeline.root, all_tasks(pipeline), rerun=True).steps
        self._progress = {step.task.id: read_progress(self.root, *step.task.id) for step in self._steps}
        self._ledger, self._planned = stamp, True

    def _row(
        self, step: Step, state: str, event: Mapping[str, Any], job: Optional[queue.JobState]
    ) -> TaskRow:
        progress, failed = self._progress[step.task.id], state == ledger.FAILED
        return TaskRow(
            *step.task.id,
            label=step.task.label,
            job_id=event.get("job_id", ""),
            state=state,
            node=(job.node if job else "") or event.get("host", ""),
            step=progress.get("step"),
            total_steps=progress.get("total_steps"),
            rate=progress.get("rate"),
            loss=progress.get("loss"),
            seconds_left=progress.get("seconds_left") if state == RUNNING else None,
            restarts=max(0, event.get("starts", 0) - 1),
            reason=job.reason if job else "",
            exit_code=job.exit_code if job else "",
            error=event.get("error", "") if failed else "",
            cause=event.get("cause", "") if failed else "",
            log=str(self.root / event["log"]) if event.get("log") else "",
        )


def task_state(event: Mapping[str, Any], job: Optional[queue.JobState]) -> str:
    """The state of a task that is not done: from its scheduler, or from its own last event."""
    if not event:
        return NOT_SUBMITTED
    said_why = event["event"] in (ledger.FAILED, ledger.STOPPED)
    if job is not None and job.state != "COMPLETED" and not (job.state == "FAILED" and said_why):
        return job.state.lower()
    if event["event"] == ledger.FINISHED:
        return OUT_OF_DATE
    if event["event"] == ledger.STARTED and not event.get("job_id"):
        return RUNNING if _process_lives(event) else INTERRUPTED
    if event["event"] == ledger.SUBMITTED:
        return LOST if event.get("job_id") else STARTING
    return str(event["event"])


def _process_lives(event: Mapping[str, Any]) -> bool:
    if event.get("host") != socket.gethostname():
        return True  # processes of another machine cannot be seen
    try:
        os.kill(event["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def status_lines(rows: Sequence[TaskRow]) -> List[str]:
    """The table."""
    cells = [
        (
            shown(row.stage),
            str(row.task),
            row.label,
            row.job_id,
            f"{row.state} ({row.reason})" if row.reason not in ("", "None") else row.state,
            row.node,
            *progress_columns(vars(row) if row.step is not None else {}),
            str(row.restarts or ""),
            row.log,
        )
        for row in rows
    ]
    return format_table(HEADER, cells) + [f"{row.id} failed: {row.error}" for row in rows if row.error]


def run_status(options: argparse.Namespace) -> int:
    """Print the table, or JSON; with --watch until nothing is pending or running."""
    overview = Overview(options.exp)
    while True:
        rows = overview.rows()
        if options.json:
            print(json.dumps([{**asdict(row), "stage": shown(row.stage)} for row in rows]))
        elif options.watch:
            clear = "\x1b[H\x1b[J" if sys.stdout.isatty() else ""
            print(clear + "\n".join([time.strftime("%H:%M:%S"), *status_lines(rows)]), flush=True)
        else:
            print("\n".join(status_lines(rows)))
        if not options.watch or not any(row.active for row in rows):
            return 0
        time.sleep(WATCH_SECONDS)

"""Stages x tasks: where each one is, from manifests, ledger, progress files and one call of squeue."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from launch.jobs import scheduler_states
from launch.pipeline import Pipeline, from_folder
from launch.plan import make_plan
from launch.stages import all_tasks
from launch.state import ledger
from launch.state.manifest import DONE
from launch.views.plan import format_table, stages_text
from slurm import queue
from textocvp.config.errors import UserError
from textocvp.config.job import read_progress
from textocvp.terminal import progress_columns

ACTIVE = ("starting", *(state.lower() for state in queue.ACTIVE if state != "STOPPED"))
"""States of a task whose log may still grow; "stopped" is the ledger's word here."""
OUT_OF_DATE, MAY_CHANGE = "out of date", "done, may change"
"""Of tasks that finished: what they read has changed; something that they wait for has yet to succeed."""
HEADER = ("stage", "task", "what", "job", "state", "node", "step", "rate", "left", "loss", "restarts", "log")


def task_rows(pipeline: Pipeline) -> List[Dict[str, Any]]:
    """One row for each task of the pipeline: stage, task, job_id, state, step, total_steps, ..."""
    root = pipeline.root
    last = ledger.last_events(root)
    states = scheduler_states(
        {
            task: event
            for task, event in last.items()
            if event["event"] not in (ledger.FINISHED, ledger.CANCELLED)
        }
    )
    rows = []
    for step in make_plan(root, all_tasks(pipeline), rerun=True).steps:
        task, event = step.task, last.get(step.task.id, {})
        progress = read_progress(root, *task.id)
        state = DONE if step.action == DONE else task_state(event, states.get(task.id))
        if state == OUT_OF_DATE and step.may_change:
            state = MAY_CHANGE
        rows.append(
            {
                "stage": task.stage,
                "task": task.index,
                "label": task.label,
                "job_id": event.get("job_id", ""),
                "state": state,
                "node": task_node(event, states.get(task.id)),
                "step": progress.get("step"),
                "total_steps": progress.get("total_steps"),
                "rate": progress.get("rate"),
                "seconds_left": progress.get("seconds_left") if state == "running" else None,
                "loss": progress.get("loss"),
                "restarts": max(0, event.get("starts", 0) - 1),
                "reason": pending_reason(states.get(task.id)),
                "exit_code": states[task.id].exit_code if task.id in states else "",
                "error": event.get("error", "") if state == "failed" else "",
                "log": str(root / event["log"]) if event.get("log") else "",
            }
        )
    return rows


def task_state(event: Mapping[str, Any], job: Optional[queue.JobState]) -> str:
    """One word for a task that is not done: as its scheduler sees it, or as its own last words say."""
    if not event:
        return "not submitted"
    if job is not None and job.state != "COMPLETED" and not (job.state == "FAILED" and _has_said_why(event)):
        return job.state.lower()
    if event["event"] == ledger.FINISHED:
        return OUT_OF_DATE
    if event["event"] == ledger.STARTED and not event.get("job_id"):
        return "running" if _process_lives(event) else "interrupted"
    if event["event"] == ledger.SUBMITTED:
        return "starting" if not event.get("job_id") else "lost"
    return str(event["event"])


def _has_said_why(event: Mapping[str, Any]) -> bool:
    return event["event"] in (ledger.FAILED, ledger.STOPPED)


def task_node(event: Mapping[str, Any], job: Optional[queue.JobState]) -> str:
    """Where a task runs or ran last, "" for nowhere yet."""
    return (job.node if job is not None else "") or str(event.get("host", ""))


def pending_reason(job: Optional[queue.JobState]) -> str:
    """Why a job waits."""
    return job.reason if job is not None else ""


def status_lines(rows: Sequence[Mapping[str, Any]]) -> List[str]:
    """The table."""
    cells = []
    for row in rows:
        state = f"{row['state']} ({row['reason']})" if row["reason"] not in ("", "None") else row["state"]
        columns = progress_columns(row if row["step"] is not None else {})
        restarts = str(row["restarts"] or "")
        cells.append(
            (
                row["stage"],
                str(row["task"]),
                row["label"],
                row["job_id"],
                state,
                row["node"],
                *columns,
                restarts,
                row["log"],
            )
        )
    lines = format_table(HEADER, cells)
    return lines + [f"{row['stage']}[{row['task']}] failed: {row['error']}" for row in rows if row["error"]]


def watch_status(root: Path, seconds: float) -> None:
    """Show the table anew every few seconds, until no task waits or runs."""
    while True:
        rows = task_rows(from_folder(root))
        clear = "\x1b[H\x1b[J" if sys.stdout.isatty() else ""
        print(clear + "\n".join([time.strftime("%H:%M:%S"), *status_lines(rows)]), flush=True)
        if not any(row["state"] in ACTIVE for row in rows):
            return
        time.sleep(seconds)


def log_path(root: Path, stage: str, task: int, rank: int = 0) -> Path:
    """The newest log of one process of a task."""
    event = ledger.last_events(root).get((stage, task))
    if event is None:
        known = stages_text(sorted(ledger.last_events(root)))
        raise UserError(
            f"{root}: {stage}[{task}] was never submitted; submitted: {', '.join(known) or 'nothing'}"
        )
    path = Path(root) / event["log"].replace("_0_log.out", f"_{rank}_log.out")
    if not path.exists():
        process = f", or has no process {rank}" if rank else ""
        raise UserError(f"{path} does not exist yet: {stage}[{task}] has not started{process}")
    return path


def is_active(root: Path, stage: str, task: int) -> bool:
    """Whether a task waits or runs, so that its log may still grow."""
    rows = [row for row in task_rows(from_folder(root)) if (row["stage"], row["task"]) == (stage, task)]
    return any(row["state"] in ACTIVE for row in rows)


def _process_lives(event: Mapping[str, Any]) -> bool:
    if event.get("host") != socket.gethostname():
        return True  # nothing is known of another machine's processes
    try:
        os.kill(event["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

"""EXP/jobs/ledger.jsonl: what was submitted, started and ended, one line each, never rewritten."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Dict, List, Tuple

from textocvp.files import append_jsonl

SUBMITTED = "submitted"
STARTED = "started"
FINISHED = "finished"
FAILED = "failed"
STOPPED = "stopped"
"""By a signal, with what was done saved: the same task continues."""
CANCELLED = "cancelled"


def ledger_path(root: Path) -> Path:
    """Where the ledger of the experiment in `root` lies."""
    return Path(root) / "jobs" / "ledger.jsonl"


def record(root: Path, event: str, stage: str, task: int, **details: Any) -> None:
    """Append one event of one task."""
    line = {"event": event, "time": round(time.time(), 3), "stage": stage, "task": task, **details}
    append_jsonl(ledger_path(root), line)


def read_ledger(root: Path) -> List[Dict[str, Any]]:
    """All events in order; what a crash cut short, or is no event, is left out."""
    path = ledger_path(root)
    if not path.is_file():
        return []
    events = []
    for line in path.read_text().splitlines():
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


def last_events(root: Path) -> Dict[Tuple[str, int], Dict[str, Any]]:
    """Each task's last submission, joined by what its job has said since.

    `event` and `event_time` are those of its last word; `starts` counts how often the job was started.
    """
    events = read_ledger(root)
    last: Dict[Tuple[str, int], Dict[str, Any]] = {}
    since: Dict[Tuple[str, int], int] = {}
    for number, event in enumerate(events):
        if event["event"] == SUBMITTED:
            task = (event["stage"], event["task"])
            last[task], since[task] = dict(event, event_time=event["time"], starts=0), number
    for number, event in enumerate(events):
        task = (event["stage"], event["task"])
        if event["event"] == SUBMITTED or task not in last:
            continue
        # a job may start before the line that says it was submitted is written
        same_job = event.get("job_id") and event["job_id"] == last[task]["job_id"]
        if same_job or (number > since[task] and not last[task]["job_id"]):
            starts = last[task]["starts"] + (event["event"] == STARTED)
            last[task].update(
                {**event, "time": last[task]["time"], "event_time": event["time"], "starts": starts}
            )
    return last

"""How a job and its command communicate: environment variables, and files in the job's own folder.

launch sets the variables; a command that is run by hand has none.
"""

import json
import os
import time
from pathlib import Path
from typing import Any, Dict, Optional

from textocvp.files import UserError, read_json, write_json

JOB_DIR_VARIABLE = "TEXTOCVP_JOB_DIR"
"""A job's own folder EXP/jobs/STAGE/TASK; unset if a command is run by hand."""
ATTEMPT_VARIABLE = "TEXTOCVP_ATTEMPT"
"""Names one attempt at a task, the same on all of its ranks."""
ATTEMPT_FILE = "attempt.json"
"""In a job's folder: the newest attempt at its task."""
REQUEUE_FILE = "requeue_request"
"""In a job's folder: the job requests a requeue."""
TERM_WAIT_VARIABLE = "TEXTOCVP_TERM_WAIT"
"""Seconds that a run waits after SIGTERM and saving, so that the scheduler, not the run's exit, decides
whether the job was cancelled or is requeued. Set by jobs; unset: exit immediately."""


class SupersededError(UserError):
    """Another attempt has taken over this job's task."""


def job_folder() -> Optional[Path]:
    """This job's folder EXP/jobs/STAGE/TASK, or None if the command is run by hand."""
    value = os.environ.get(JOB_DIR_VARIABLE)
    return Path(value) if value else None


def refuse_if_superseded() -> None:
    """SupersededError if another attempt has taken over this job's task (its node was declared down).

    Later writes would mix with those of the other attempt.
    """
    folder, mine = job_folder(), os.environ.get(ATTEMPT_VARIABLE)
    path = folder / ATTEMPT_FILE if folder is not None else None
    if mine is None or path is None or not path.exists():
        return
    newest = read_json(path)["attempt"]
    if newest != mine:
        raise SupersededError(f"attempt {mine} was superseded by attempt {newest}; writing nothing more")


def report_progress(step: int, total_steps: int, **figures: Any) -> None:
    """Write step, total and figures (loss, rate, seconds_left, ...) to this job's progress.json."""
    folder = job_folder()
    if folder is not None:
        values = {"step": step, "total_steps": total_steps, "time": time.time(), **figures}
        write_json(folder / "progress.json", values)


def read_progress(root: Path, stage: str, index: int) -> Dict[str, Any]:
    """A task's progress.json (step, total_steps, loss, rate, seconds_left, time); {} if there is none."""
    try:
        values = json.loads((Path(root) / "jobs" / stage / str(index) / "progress.json").read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

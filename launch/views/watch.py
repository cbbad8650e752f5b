"""Output while tasks run: one updated line per running task, or plain lines in a log."""

import shutil
import sys
import time
from pathlib import Path
from typing import Counter, List, Mapping, Optional, Sequence, Set, TextIO

from launch.state import ledger
from launch.state.manifest import Records
from launch.state.task import Task, TaskId
from launch.views.logs import failure_lines
from slurm.queue import JobState, SlurmError, job_states
from slurm.site import ClusterConfig
from textocvp.config.job import read_progress
from textocvp.files import UserError
from textocvp.terminal import duration, progress_line

TERMINAL_SECONDS = 0.5
PLAIN_SECONDS = 30.0
POLL_SECONDS = 2.0
PATIENCE = 60
"""Consecutive polls that may fail, or not list a job, before that counts."""
UNKNOWN = JobState("UNKNOWN")


class Watch:
    """Prints events immediately and progress periodically."""

    def __init__(self, root: Path, stream: Optional[TextIO] = None) -> None:
        self.root = Path(root)
        self.stream = stream or sys.stdout
        self.terminal = self.stream.isatty()
        self._shown = 0
        self._last = time.monotonic()

    def event(self, text: str) -> None:
        """Print a permanent line."""
        self.clear()
        print(f"{time.strftime('%H:%M:%S')}  {text}", file=self.stream, flush=True)

    def running(self, tasks: Sequence[Task]) -> None:
        """Print the progress of the running tasks, if it is due."""
        if time.monotonic() - self._last < (TERMINAL_SECONDS if self.terminal else PLAIN_SECONDS):
            return
        self._last = time.monotonic()
        done = [progress_line(read_progress(self.root, *task.id)) or "running" for task in tasks]
        lines = [f"{title(task)}: {text}" for task, text in zip(tasks, done)]
        if not self.terminal:
            for line in lines:
                self.event(line)
            return
        self.clear()
        width = shutil.get_terminal_size().columns - 1
        for line in lines:
            print(f"  {line}"[:width], file=self.stream)
        self._shown = len(lines)
        self.stream.flush()

    def clear(self) -> None:
        """Erase the updated lines."""
        if self._shown:
            self.stream.write(f"\x1b[{self._shown}F\x1b[J")
            self._shown = 0

    def failure(self, task: Task, log: Path, why: str) -> None:
        """Print which task failed, why, its log's path and the log's last lines."""
        self.event(f"{title(task)} failed: {why}")
        for line in (f"log: {log}", *failure_lines(log)):
            print(f"    {line}", file=self.stream, flush=True)


def title(task: Task) -> str:
    """For example "train-decomp[1] (seed 7)"."""
    return f"{task.name} ({task.label})" if task.label else task.name


def wait_for_jobs(
    root: Path, cluster: ClusterConfig, tasks: Sequence[Task], jobs: Mapping[TaskId, str]
) -> int:
    """Watch jobs until none is pending or running; returns 0, or 1 if a task has not succeeded."""
    waiting = Waiting(root, jobs)
    remaining = list(tasks)
    unanswered = 0
    while remaining:
        try:
            found = job_states([jobs[task.id] for task in remaining], cluster.slurm_environment())
            unanswered = 0
            remaining = waiting.update(remaining, found)
        except SlurmError as error:
            unanswered += 1
            if unanswered > PATIENCE:
                raise UserError(
                    f"cluster {cluster.name} does not answer: {error}; jobs continue: make status EXP={root}"
                ) from None
        if remaining:
            time.sleep(POLL_SECONDS)
    waiting.watch.clear()
    return 1 if waiting.failed else 0


class Waiting:
    """The last known states of the jobs."""

    def __init__(self, root: Path, jobs: Mapping[TaskId, str]) -> None:
        self.root, self.jobs = Path(root), jobs
        self.watch = Watch(root)
        self.failed: List[Task] = []
        self._running: Set[TaskId] = set()
        self._missed: Counter[TaskId] = Counter()

    def update(self, tasks: Sequence[Task], found: Mapping[str, JobState]) -> List[Task]:
        """Print changes; returns the tasks that are still pending or running."""
        remaining = []
        for task in tasks:
            state = found.get(self.jobs[task.id])
            if state is None:
                # the accounting lags and slurmctld forgets: a job is lost only if it stays unknown
                self._missed[task.id] += 1
                state = UNKNOWN if self._missed[task.id] > PATIENCE else None
            if state is None or state.active:
                self._say_started(task, state)
                remaining.append(task)
            elif not self._say_ended(task, state):
                self.failed.append(task)
        self.watch.running([task for task in remaining if task.id in self._running])
        return remaining

    def _say_started(self, task: Task, state: Optional[JobState]) -> None:
        if state is None or state.state != "RUNNING":
            self._running.discard(task.id)
        elif task.id not in self._running:
            self._running.add(task.id)
            self.watch.event(f"{title(task)} started on {state.node}")

    def _say_ended(self, task: Task, state: JobState) -> bool:
        """Print how a task ended; True where it succeeded."""
        last, job_id = ledger.last_events(self.root).get(task.id, {}), self.jobs[task.id]
        # a network file system may not show a new manifest yet; the ledger is reopened each time
        finished = last.get("event") == ledger.FINISHED or Records(self.root).manifest(task.id) is not None
        if state.state == "COMPLETED" and finished:
            self.watch.event(f"{title(task)} done in {duration(last.get('seconds'))}")
            return True
        if state.state == "CANCELLED" and last.get("event") in (ledger.SUBMITTED, None):
            self.watch.event(f"{title(task)} not started: job {job_id} was cancelled, upstream failed")
            return False
        error = f": {last['error']}" if last.get("error") else ""
        self.watch.failure(task, self.root / last.get("log", ""), f"job {job_id} is {state.state}{error}")
        return False

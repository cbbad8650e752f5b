"""Runs tasks on this machine without a scheduler: in order of their edges, a few at a time."""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, TextIO, Tuple

from launch import CODE
from launch.jobs import job_variables, record_submission
from launch.state import ledger
from launch.state.attempt import free_port, local_rank_variables
from launch.state.task import OK, Task, TaskId, job_folder
from launch.views.watch import Watch, title
from slurm.container import python_words
from slurm.options import Resources
from slurm.site import ClusterConfig
from textocvp.config.job import ATTEMPT_VARIABLE, available_cores
from textocvp.terminal import duration

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0
"""Seconds that the other ranks have to exit after one has died."""
INTERRUPTED = 130


@dataclass
class Running:
    """The processes of one task."""

    task: Task
    logs: List[Path]
    """Of each rank."""
    ranks: List["subprocess.Popen[bytes]"]
    started: float = field(default_factory=time.time)
    deadline: Optional[float] = None
    """Time at which the other ranks are killed after one has died."""
    failed_rank: Optional[Tuple[int, int]] = None
    """Rank and status of the first process that failed."""

    def status(self) -> Optional[int]:
        """None while a process is running; else 0, or the status of the first one that failed."""
        statuses = [rank.poll() for rank in self.ranks]
        for number, status in enumerate(statuses):
            if status and self.failed_rank is None:
                self.failed_rank = (number, status)
        if None in statuses:
            if self.failed_rank is not None:
                self._end_peers()
            return None
        return self.failed_rank[1] if self.failed_rank else 0

    def _end_peers(self) -> None:
        # a rank in a collective operation with a dead one would wait forever
        if self.deadline is None:
            self.deadline = time.monotonic() + GRACE_SECONDS
            self.signal(signal.SIGTERM)
        elif time.monotonic() > self.deadline:
            self.kill()

    def signal(self, number: int) -> None:
        """Send a signal to every rank that is still running."""
        for rank in self.ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    def kill(self) -> None:
        """Kill every rank and its child processes."""
        for rank in self.ranks:
            if rank.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(rank.pid, signal.SIGKILL)


class LocalRunner:
    """Runs tasks until all have ended."""

    def __init__(
        self,
        root: Path,
        cluster: ClusterConfig,
        lock: int,
        about: Mapping[str, Any],
        stream: Optional[TextIO] = None,
    ) -> None:
        """Create a runner.

        Args:
            lock: descriptor of the experiment's lock, which every task inherits.
            about: recorded in the ledger for every submission.
        """
        self.root, self.cluster, self.lock, self.about = Path(root).resolve(), cluster, lock, about
        self.watch = Watch(self.root, stream)
        self.running: List[Running] = []
        self.failed: Dict[TaskId, str] = {}
        self.interrupts = 0

    def run(self, tasks: Sequence[Task]) -> int:
        """Run `tasks`, which are in dependency order; returns the exit status: 0, 1 or 130 (Ctrl-C)."""
        waiting = list(tasks)
        with self._interruptible():
            while (waiting and not self.interrupts) or self.running:
                if not self.interrupts:
                    waiting = self._start_what_can(waiting)
                self._collect()
                self.watch.running([running.task for running in self.running])
                time.sleep(POLL_SECONDS)
        self.watch.clear()
        if self.interrupts:
            self.watch.event("interrupted; the same command continues")
            return INTERRUPTED
        return 1 if self.failed else 0

    def _start_what_can(self, waiting: List[Task]) -> List[Task]:
        """Start tasks whose edges are satisfied; returns those that are still waiting."""
        busy = {task.id for task in waiting} | {running.task.id for running in self.running}
        ready: List[Task] = []
        for task in list(waiting):
            broken = [edge for edge in task.after if edge.mode == OK and edge.id in self.failed]
            if broken:
                self.failed[task.id] = "not started"
                self.watch.event(f"{title(task)} not started: {broken[0].id} failed")
                waiting.remove(task)
            elif not any(edge.id in busy for edge in task.after):
                ready.append(task)
        beside = min(self.cluster.parallel, len(ready) + len(self.running))
        for task in ready[: max(self.cluster.parallel - len(self.running), 0)]:
            self._start(task, beside)
            waiting.remove(task)
        return waiting

    def _start(self, task: Task, beside: int) -> None:
        """Start a task, one of `beside` that run at the same time."""
        resources = self.cluster.job_resources(task.stage)
        threads = resources.cpus_per_task or max(1, available_cores() // beside // resources.ranks)
        attempt = f"{time.strftime('%Y%m%dT%H%M%S')}_{os.getpid()}"
        folder = job_folder(self.root, *task.id).parent / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        logs = [folder / f"local_{attempt}_{task.index}_{rank}_log.out" for rank in range(resources.ranks)]
        record_submission(self.root, task, resources, self.about, logs[0])
        variables = {**job_variables(self.cluster, CODE, threads), ATTEMPT_VARIABLE: attempt}
        self.running.append(Running(task, logs, self._processes(task, resources, logs, variables)))
        self.watch.event(f"{title(task)} started")

    def _processes(
        self, task: Task, resources: Resources, logs: Sequence[Path], variables: Mapping[str, str]
    ) -> "List[subprocess.Popen[bytes]]":
        port, processes = free_port(), []
        python = python_words(self.cluster, CODE, self.root, resources.gpus_per_node > 0)
        command = [*python, "-u", "-m", "launch.job", str(job_folder(self.root, *task.id) / "task.json")]
        path = os.pathsep.join(filter(None, (variables["PYTHONPATH"], os.environ.get("PYTHONPATH"))))
        for rank, log in enumerate(logs):
            own = local_rank_variables(rank, resources.ranks, port)
            with open(log, "w") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **variables, "PYTHONPATH": path, **own},
                    start_new_session=True,  # Ctrl-C reaches the tasks through this runner, once
                    pass_fds=(self.lock,),
                )
            processes.append(process)
        return processes

    def _collect(self) -> None:
        """Report and remove the tasks that have ended."""
        for running in list(self.running):
            status = running.status()
            if status is None:
                continue
            self.running.remove(running)
            if status == 0:
                self.watch.event(f"{title(running.task)} done in {duration(time.time() - running.started)}")
            elif running.failed_rank is not None:
                self._record_failure(running, *running.failed_rank)

    def _record_failure(self, running: Running, rank: int, status: int) -> None:
        why = f"signal {-status}" if status < 0 else f"exit status {status}"
        self.failed[running.task.id] = why
        recorded = ledger.last_events(self.root).get(running.task.id, {})
        # rank 0 records its own errors; every rank records a full disk
        if (status < 0 or rank > 0) and recorded.get("cause") != ledger.Cause.DISK_FULL:
            cause, error = ledger.Cause.EXIT_STATUS, f"rank {rank}: {why}"
            ledger.record(self.root, ledger.FAILED, *running.task.id, error=error, cause=cause)
        if self.interrupts:
            self.watch.event(f"{title(running.task)} stopped")
        else:
            self.watch.failure(running.task, running.logs[rank], why)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C lets the tasks save and exit; a second one kills them."""

        def interrupt(number: int, frame: object) -> None:
            self.interrupts += 1
            for running in self.running:
                running.signal(signal.SIGINT) if self.interrupts == 1 else running.kill()
            if self.interrupts == 1:
                self.watch.event("stopping: the tasks are saving their state; Ctrl-C again kills them")

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for running in self.running:  # only after an unexpected exception
                running.kill()
            for number, handler in before.items():
                signal.signal(number, handler)

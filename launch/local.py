"""The same jobs without a scheduler: in order of their edges, a few at a time, on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Set, TextIO, Tuple

from launch import CODE
from launch.batch import job_variables
from launch.state import ledger
from launch.state.attempt import free_port, local_rank_variables
from launch.state.manifest import job_folder
from launch.state.task import OK, Task
from launch.views.watch import Watch, title
from slurm.container import python_words
from slurm.options import Resources
from slurm.site import ClusterConfig
from textocvp.config.job import ATTEMPT_VARIABLE, available_cores
from textocvp.config.schema import to_dict
from textocvp.terminal import duration

POLL_SECONDS = 0.1
GRACE_SECONDS = 5.0
"""What the peers of a dead rank get to end by themselves."""
INTERRUPTED = 130


@dataclass
class Running:
    """The processes of one task."""

    task: Task
    log: Path
    ranks: List[subprocess.Popen]
    started: float = field(default_factory=time.time)
    killed_at: Optional[float] = None
    failed_rank: Optional[Tuple[int, int]] = None
    """Rank and status of the first process that failed."""

    def status(self) -> Optional[int]:
        """None while a process runs; else 0, or the status of the first one that failed."""
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
        # a rank that waits for a dead one in a collective operation would wait for ever
        if self.killed_at is None:
            self.killed_at = time.monotonic() + GRACE_SECONDS
            self.signal(signal.SIGTERM)
        elif time.monotonic() > self.killed_at:
            self.kill()

    def signal(self, number: int) -> None:
        """Send a signal to every rank that still runs."""
        for rank in self.ranks:
            if rank.poll() is None:
                rank.send_signal(number)

    def kill(self) -> None:
        """End every rank and what it started."""
        for rank in self.ranks:
            if rank.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(rank.pid, signal.SIGKILL)


class LocalRunner:
    """Runs tasks to their end."""

    def __init__(
        self,
        root: Path,
        cluster: ClusterConfig,
        lock: int,
        about: Mapping[str, Any],
        stream: Optional[TextIO] = None,
    ) -> None:
        """Make a runner.

        Args:
            lock: descriptor of the experiment's lock, which every task inherits.
            about: what the ledger says of every submission.
        """
        self.root = Path(root).resolve()
        self.cluster = cluster
        self.lock = lock
        self.about = about
        self.watch = Watch(self.root, stream)
        self.running: List[Running] = []
        self.failed: Dict[Tuple[str, int], str] = {}
        self.interrupts = 0

    def run(self, tasks: Sequence[Task]) -> int:
        """Run `tasks`, whose order respects their edges; returns the exit status: 0, 1 or 130 (Ctrl-C)."""
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
        """Start tasks whose edges are met; returns those that still wait."""
        busy = {task.id for task in waiting} | {running.task.id for running in self.running}
        ready, still = [], []
        for task in waiting:
            broken = [edge for edge in task.after if edge.mode == OK and edge.id in self.failed]
            if broken:
                self.failed[task.id] = "not started"
                self.watch.event(f"{title(task)} not started: {broken[0].id} failed")
            elif any(edge.id in busy for edge in task.after):
                still.append(task)
            else:
                ready.append(task)
        free = max(self.cluster.parallel - len(self.running), 0)
        beside = min(self.cluster.parallel, len(ready) + len(self.running))
        for task in ready[:free]:
            self._start(task, beside)
        later = {task.id for task in ready[free:] + still}
        return [task for task in waiting if task.id in later]

    def _start(self, task: Task, beside: int) -> None:
        resources = self.cluster.job_resources(task.stage)
        threads = resources.cpus_per_task or max(1, available_cores() // beside // resources.ranks)
        attempt = f"{time.strftime('%Y%m%dT%H%M%S')}_{os.getpid()}"
        logs = job_folder(self.root, *task.id).parent / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        paths = [logs / f"local_{attempt}_{task.index}_{rank}_log.out" for rank in range(resources.ranks)]
        ledger.record(
            self.root,
            ledger.SUBMITTED,
            *task.id,
            job_id="",
            depends_on="",
            log=paths[0].relative_to(self.root).as_posix(),
            **self.about,
            argv=list(task.argv),
            resources=to_dict(resources),
        )
        variables = {ATTEMPT_VARIABLE: attempt, **job_variables(self.cluster, CODE, threads)}
        self.running.append(Running(task, paths[0], self._processes(task, resources, paths, variables)))
        self.watch.event(f"{title(task)} started")

    def _processes(
        self, task: Task, resources: Resources, logs: Sequence[Path], variables: Dict[str, str]
    ) -> List[subprocess.Popen]:
        port, processes = free_port(), []
        python = python_words(self.cluster, CODE, self.root, resources.gpus_per_node > 0)
        command = [*python, "-u", "-m", "launch.job", str(job_folder(self.root, *task.id) / "task.json")]
        path = os.pathsep.join(filter(None, (variables["PYTHONPATH"], os.environ.get("PYTHONPATH"))))
        for rank, log in enumerate(logs):
            environment = {
                **os.environ,
                **variables,
                "PYTHONPATH": path,
                **local_rank_variables(rank, resources.ranks, port),
            }
            with open(log, "w") as output:
                processes.append(
                    subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        start_new_session=True,  # Ctrl-C reaches the tasks through this runner, once
                        pass_fds=(self.lock,),
                    )
                )
        return processes

    def _collect(self) -> None:
        """Take note of the tasks that have ended."""
        ended: Set[Tuple[str, int]] = set()
        for running in self.running:
            status = running.status()
            if status is None:
                continue
            ended.add(running.task.id)
            if status == 0:
                self.watch.event(f"{title(running.task)} done in {duration(time.time() - running.started)}")
            else:
                self._record_failure(running)
        self.running = [running for running in self.running if running.task.id not in ended]

    def _record_failure(self, running: Running) -> None:
        rank, status = running.failed_rank
        why = f"signal {-status}" if status < 0 else f"exit status {status}"
        self.failed[running.task.id] = why
        if status < 0 or rank > 0:  # rank 0 could not say so itself
            ledger.record(self.root, ledger.FAILED, *running.task.id, error=f"rank {rank}: {why}")
        if self.interrupts:
            self.watch.event(f"{title(running.task)} stopped")
            return
        log = Path(str(running.log).replace("_0_log.out", f"_{rank}_log.out"))
        self.watch.failure(running.task, log, why)

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C lets the tasks save and end; a second one ends them at once."""

        def interrupt(number: int, frame: object) -> None:
            self.interrupts += 1
            for running in self.running:
                running.signal(signal.SIGINT) if self.interrupts == 1 else running.kill()
            if self.interrupts == 1:
                self.watch.event("stopping: the tasks save what they have; Ctrl-C again ends them at once")

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for running in self.running:  # only where something unforeseen was raised
                running.kill()
            for number, handler in before.items():
                signal.signal(number, handler)

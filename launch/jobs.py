"""Which jobs an experiment has: what the ledger and the scheduler say of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping

from launch.batch import load_cluster
from launch.plan import Job
from launch.state import ledger
from launch.state.task import TaskId
from slurm.queue import JobState, SlurmError, cancel, job_states
from textocvp.files import UserError

ENDED = (ledger.FINISHED, ledger.CANCELLED)
"""Events after which the scheduler need not be asked. A job that failed or stopped may be queued again."""


def cluster_environment(name: str) -> Dict[str, str]:
    """What reaches the cluster that a job was submitted to."""
    return load_cluster(name).slurm_environment()


def scheduler_states(last: Mapping[TaskId, Mapping[str, Any]]) -> Dict[TaskId, JobState]:
    """What the schedulers say of the last job of each task, one question to each cluster.

    Args:
        last: each task's last submission, from `ledger.last_events`.
    """
    asked: Dict[str, Dict[str, TaskId]] = {}
    for task, event in last.items():
        if event.get("job_id"):
            asked.setdefault(event["cluster"], {})[event["job_id"]] = task
    states = {}
    for cluster, tasks in asked.items():
        try:
            found = job_states(tasks, cluster_environment(cluster))
        except SlurmError as error:
            raise UserError(f"cluster {cluster} does not answer: {error}") from None
        states.update({tasks[job_id]: state for job_id, state in found.items()})
    return states


def active_jobs(root: Path) -> Dict[TaskId, Job]:
    """The jobs of an experiment that wait or run."""
    last = ledger.last_events(root)
    open_ones = {task: event for task, event in last.items() if event["event"] not in ENDED}
    states = scheduler_states(open_ones)
    return {
        task: Job(open_ones[task]["job_id"], open_ones[task]["cluster"], state)
        for task, state in states.items()
        if state.active
    }


def cancel_jobs(jobs: Iterable[Job]) -> None:
    """Cancel jobs, with one call for each cluster; UserError where they go on."""
    by_cluster: Dict[str, List[str]] = {}
    for job in jobs:
        by_cluster.setdefault(job.cluster, []).append(job.job_id)
    for name, job_ids in by_cluster.items():
        try:
            cancel(job_ids, cluster_environment(name))
        except SlurmError as error:
            raise UserError(f"cluster {name} has not cancelled its jobs: {error}") from None


def cancel_experiment(root: Path) -> Dict[TaskId, Job]:
    """Cancel all jobs of an experiment that wait or run; returns them."""
    jobs = active_jobs(root)
    cancel_jobs(jobs.values())
    for task, job in jobs.items():
        ledger.record(root, ledger.CANCELLED, *task, job_id=job.job_id)
    return jobs

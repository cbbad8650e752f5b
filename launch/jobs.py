"""Tasks as jobs of a site: their environment, arrays and dependencies, and what has become of them.

The ledger says what was submitted, the scheduler what has become of it.
"""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

from launch import CODE
from launch.job import run_task_file
from launch.plan import Job
from launch.stages import DISTRIBUTED
from launch.state import ledger
from launch.state.prune import Alive
from launch.state.task import ANY, OK, Task, TaskId, job_folder
from slurm.container import image_digest, python_line, python_words
from slurm.dependency import AFTERANY, AFTEROK, group_by_dependency
from slurm.options import ArrayJob, Resources, export_lines, setup_lines
from slurm.queue import JobState, SlurmError, cancel, job_states
from slurm.site import ClusterConfig
from slurm.site import load_cluster as load_site
from textocvp.config.job import REQUEUE_FILE, TERM_WAIT_VARIABLE
from textocvp.config.schema import to_dict
from textocvp.files import UserError

TERM_WAIT = 3600
"""Seconds that a task waits after SIGTERM for the scheduler to end or requeue it; more than a
GraceTime."""
KINDS = {OK: AFTEROK, ANY: AFTERANY}
ENDED = (ledger.FINISHED, ledger.CANCELLED)
"""Last events after which a job needs no query. A job that failed or stopped may be requeued."""
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE")
"""States of a job that will not run again by itself."""


def load_cluster(name: Optional[str]) -> ClusterConfig:
    """A site's config: a name in cluster_configs/, a YAML file, or None (local, where there is no sbatch)."""
    return load_site(name, CODE, DISTRIBUTED)


def job_variables(cluster: ClusterConfig, code: Path, cores: Optional[int]) -> Dict[str, str]:
    """Environment variables of jobs, of tasks on this machine and of an interactive shell.

    Args:
        code: the folder that holds launch and textocvp.
        cores: per process; None: one.
    """
    weights = {"TEXTOCVP_WEIGHTS": str(CODE / cluster.paths.weights)} if cluster.paths.weights else {}
    return {"PYTHONPATH": str(code), "OMP_NUM_THREADS": str(cores or 1), **weights, **cluster.variables}


def python_script(cluster: ClusterConfig, code: Path, root: Path, stage: str) -> Tuple[List[str], str]:
    """The shell lines and the command that start python for a stage's tasks, in a job or on this machine."""
    if cluster.scheduler != "local":
        about = {"revision": "", "dirty": False, "image": image_digest(cluster)}
        job = Submission(cluster, root, code, about).array_job(stage, [0])
        return setup_lines(cluster.setup, job), job.python
    resources = cluster.job_resources(stage)
    lines = export_lines(job_variables(cluster, code, resources.cpus_per_task))
    return lines, shlex.join(python_words(cluster, code, root, resources.gpus_per_node > 0))


def record_submission(
    root: Path, task: Task, resources: Resources, about: Mapping[str, Any], log: Path, **more: str
) -> None:
    """The ledger's line on a task that is submitted, or started here.

    Args:
        about: what is recorded of all tasks of one submission: cluster, revision, dirty, image.
        more: what only jobs have: job_id, depends_on, snapshot.
    """
    details = {"job_id": "", "depends_on": "", "log": log.relative_to(root).as_posix(), **about, **more}
    argv, asked = list(task.argv), to_dict(resources)
    ledger.record(root, ledger.SUBMITTED, *task.id, **details, argv=argv, resources=asked)


@dataclass(frozen=True)
class Submission:
    """What all jobs of one submission have in common."""

    cluster: ClusterConfig
    root: Path
    """EXP."""
    code: Path
    """The snapshot that the jobs run."""
    about: Mapping[str, Any]
    """Recorded in the ledger for each job: cluster, revision, dirty, image."""

    def array_job(self, stage: str, indices: Sequence[int], dependency: str = "") -> ArrayJob:
        """Tasks of one stage as one array; array index = task index."""
        folder, resources = job_folder(self.root, stage, 0).parent, self.cluster.job_resources(stage)
        gpus = resources.gpus_per_node > 0
        return ArrayJob(
            name=f"{self.root.name}.{stage.replace('_', '-')}",
            function=run_task_file,
            arguments=[str(folder / str(index) / "task.json") for index in range(max(indices) + 1)],
            indices=indices,
            resources=resources,
            python=python_line(self.cluster, self.code, self.root, gpus),
            environment={
                "PYTHONSAFEPATH": "1",  # else the current folder, the checkout, would come first
                "TEXTOCVP_REVISION": self.about["revision"],
                "TEXTOCVP_DIRTY": str(int(self.about["dirty"])),
                "TEXTOCVP_IMAGE": self.about["image"],
                TERM_WAIT_VARIABLE: str(TERM_WAIT),
                "TEXTOCVP_HANG_MINUTES": str(self.cluster.hang_minutes),
                **job_variables(self.cluster, self.code, resources.cpus_per_task),
            },
            logs=folder / "logs",
            requeue_file=f"{folder.resolve()}/{{index}}/{REQUEUE_FILE}",
            dependency=dependency,
        )

    def array_jobs(
        self, tasks: Sequence[Task], jobs: Mapping[TaskId, str], earlier: Iterable[str]
    ) -> List[Tuple[ArrayJob, List[Task]]]:
        """Tasks of one stage as one array for each set of equal dependencies.

        Args:
            jobs: job id of every task that is queued or runs; an edge to any other task is already satisfied.
            earlier: ids of all jobs that were ever submitted, in any state.
        """
        by_index = {task.index: task for task in tasks}
        edges = {
            task.index: [(KINDS[edge.mode], jobs[edge.id]) for edge in task.after if edge.id in jobs]
            for task in tasks
        }
        return [
            (self.array_job(tasks[0].stage, indices, dependency), [by_index[index] for index in indices])
            for dependency, indices in group_by_dependency(edges, (*jobs.values(), *earlier))
        ]


def cluster_environment(name: str) -> Dict[str, str]:
    """Environment variables that select the cluster of a job."""
    return load_cluster(name).slurm_environment()


def scheduler_states(last: Mapping[TaskId, Mapping[str, Any]]) -> Dict[TaskId, JobState]:
    """The schedulers' state of the last job of each task, with one query per cluster.

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


def _asked(root: Path) -> Tuple[Dict[TaskId, Dict[str, Any]], Dict[TaskId, JobState]]:
    """The last submission of each task that has not ended, and what the schedulers say of it."""
    last = {task: event for task, event in ledger.last_events(root).items() if event["event"] not in ENDED}
    return last, scheduler_states(last)


def active_jobs(root: Path) -> Dict[TaskId, Job]:
    """The pending and running jobs of an experiment."""
    last, states = _asked(root)
    return {
        task: Job(last[task]["job_id"], last[task]["cluster"], state)
        for task, state in states.items()
        if state.active
    }


def alive(root: Path) -> Alive:
    """The tasks and jobs of an experiment that are queued or run, from the scheduler.

    The caller must hold the experiment's lock, so nothing runs without a scheduler.
    """
    last, states = _asked(root)
    tasks = [task for task, state in states.items() if state.state not in OVER]
    snapshots: List[str] = [name for task in tasks if (name := last[task].get("snapshot"))]
    return Alive(
        frozenset(tasks),
        frozenset(last[task]["job_id"] for task in tasks),
        frozenset(snapshots) if len(snapshots) == len(tasks) else None,
    )


def cancel_jobs(jobs: Iterable[Job]) -> None:
    """Cancel jobs, with one call per cluster; UserError if some are still pending or running."""
    by_cluster: Dict[str, List[str]] = {}
    for job in jobs:
        by_cluster.setdefault(job.cluster, []).append(job.job_id)
    for name, job_ids in by_cluster.items():
        try:
            cancel(job_ids, cluster_environment(name))
        except SlurmError as error:
            raise UserError(f"cluster {name} failed to cancel its jobs: {error}") from None


def cancel_experiment(root: Path) -> Dict[TaskId, Job]:
    """Cancel all pending and running jobs of an experiment; returns them."""
    jobs = active_jobs(root)
    cancel_jobs(jobs.values())
    for task, job in jobs.items():
        ledger.record(root, ledger.CANCELLED, *task, job_id=job.job_id)
    return jobs

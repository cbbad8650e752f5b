"""The one place that knows submitit: a stage's tasks become jobs of a Slurm cluster."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from slurm.cluster import CODE, ClusterConfig
from slurm.dependency import group_by_dependency
from slurm.job import run_task_file
from slurm.records import job_folder
from slurm.snapshot import take_snapshot
from slurm.task import Resources, Task
from textocvp.artifacts import code_revision
from textocvp.config.errors import UserError

TaskId = Tuple[str, int]
TERM_WAIT = 600
"""Seconds that a task which saved on SIGTERM waits for the scheduler to end it or queue it again."""


def submit_stage(
    cluster: ClusterConfig,
    root: Path,
    tasks: Sequence[Task],
    resources: Resources,
    jobs: Mapping[TaskId, str],
) -> Dict[TaskId, Dict[str, str]]:
    """Submit tasks of one stage, one array for each set of equal dependencies; array index = task index.

    Args:
        tasks: what is to run of the stage; their task.json is there.
        jobs: job id of every task that is queued or runs.
    Returns:
        for each task its job_id, depends_on and log.
    """
    submitted = {}
    for dependency, group in group_by_dependency(tasks, jobs):
        folder = job_folder(root, group[0].stage, 0).parent / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        executor = make_executor(cluster, root, folder, group, resources, dependency)
        for task, job_id in zip(group, submit_array(executor, root, group)):
            log = folder / f"{job_id}_0_log.out"
            submitted[task.id] = {
                "job_id": job_id,
                "depends_on": dependency,
                "log": log.relative_to(root).as_posix(),
            }
    return submitted


def submit_array(executor: submitit.SlurmExecutor, root: Path, group: Sequence[Task]) -> List[str]:
    """Submit one group; returns the job ids in its order.

    Callables are passed up to the last index: the elements that `array` names find theirs under their own.
    """
    last = max(task.index for task in group)
    paths = [str(job_folder(root, group[0].stage, index) / "task.json") for index in range(last + 1)]
    try:
        jobs = executor.map_array(run_task_file, paths)
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"sbatch refused {group[0].stage}: {' '.join(str(error).split())}") from None
    return [jobs[task.index].job_id for task in group]


def make_executor(
    cluster: ClusterConfig,
    root: Path,
    folder: Path,
    group: Sequence[Task],
    resources: Resources,
    dependency: str,
) -> submitit.SlurmExecutor:
    """An executor of its own for every array: submitit's parameters are sticky, a dependency would leak."""
    os.environ.update(cluster.slurm_environment())
    try:
        executor = submitit.SlurmExecutor(folder=folder, python=signal_proof(cluster.interpreter()))
    except RuntimeError as error:
        raise UserError(f"cluster {cluster.name}: {error}") from None
    executor.update_parameters(**sbatch_parameters(cluster, root, group, resources, dependency))
    return executor


def signal_proof(interpreter: str) -> str:
    """The interpreter, started so that signals during its imports are ignored: they would end it unsaved."""
    return f"sh -c 'trap \"\" USR1 USR2 TERM; exec \"$0\" \"$@\"' {shlex.quote(interpreter)}"


def sbatch_parameters(
    cluster: ClusterConfig, root: Path, group: Sequence[Task], resources: Resources, dependency: str
) -> Dict[str, Any]:
    """submitit's parameters for one array."""
    extra: Dict[str, Any] = {"kill-on-invalid-dep": "yes", "requeue": True, **cluster.extra_sbatch}
    if max(task.index for task in group) > 0:
        extra["array"] = array_indices([task.index for task in group], cluster.array_parallelism)
    parameters = {
        "job_name": re.sub(r"[^A-Za-z0-9_.-]", "_", f"{Path(root).name}.{group[0].stage}"),
        "nodes": resources.nodes,
        "ntasks_per_node": resources.tasks_per_node,
        "cpus_per_task": resources.cpus_per_task,
        "gpus_per_node": resources.gpus_per_node or None,
        "mem": f"{round(resources.mem_gb * 1024)}MB" if resources.mem_gb else None,
        "time": resources.minutes,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "dependency": dependency or None,
        "stderr_to_stdout": True,
        "setup": setup_lines(cluster, resources, root),
        "teardown": teardown_lines(job_folder(root, group[0].stage, 0).parent),
        "additional_parameters": extra,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def setup_lines(cluster: ClusterConfig, resources: Resources, root: Path) -> List[str]:
    """Shell lines of the batch script before srun."""
    threads = str(resources.cpus_per_task or 1)
    revision, dirty = code_revision(CODE)
    variables = {
        "PYTHONPATH": str(take_snapshot(CODE, Path(root).resolve() / "jobs" / "snapshots")),
        "PYTHONSAFEPATH": "1",  # else the current folder, the checkout, would come first
        "TEXTOCVP_REVISION": revision,
        "TEXTOCVP_DIRTY": str(int(dirty)),
        "TEXTOCVP_TERM_WAIT": str(TERM_WAIT),
        "TEXTOCVP_HANG_MINUTES": str(cluster.hang_minutes),
        "OMP_NUM_THREADS": threads,
        "SUBMITIT_LOG_LEVEL": "WARNING",  # the log opens with the task's own line
        **cluster.job_environment(),
    }
    exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    # the batch shell outlives the signals that its step gets: it has the teardown to do
    return [*cluster.setup, *exports, "trap : TERM USR2"]


def teardown_lines(stage_folder: Path) -> List[str]:
    """Shell lines after srun: queue the job again if its task asked for it; keep srun's exit code."""
    request = f"{shlex.quote(str(Path(stage_folder).resolve()))}/${{SLURM_ARRAY_TASK_ID:-0}}/requeue_request"
    return [
        "rc=$?",
        f'if [ -e {request} ]; then rm -f {request}; scontrol requeue "$SLURM_JOB_ID"; fi',
        "exit $rc",
    ]


def array_indices(indices: Sequence[int], parallelism: int) -> str:
    """Slurm's spelling of some elements of an array, for example "1,3%8"."""
    listed = ",".join(str(index) for index in sorted(indices))
    return f"{listed}%{min(len(indices), parallelism)}"

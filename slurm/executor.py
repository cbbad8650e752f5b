"""The one place that knows submitit: a stage's tasks become jobs of a Slurm cluster."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Sequence, Tuple

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import _make_sbatch_string

from launch.job import run_task_file
from launch.state import ledger
from launch.state.manifest import job_folder
from launch.state.task import Task
from slurm.dependency import group_by_dependency
from slurm.options import job_options, outside_of_a_job
from slurm.site import ClusterConfig, Resources
from textocvp.config.errors import UserError
from textocvp.config.job import REQUEUE_FILE, TERM_WAIT_VARIABLE

TaskId = Tuple[str, int]
TERM_WAIT = 3600
"""Seconds that a task waits after SIGTERM for the scheduler to end it or queue it again; more than a
GraceTime."""

SIGNAL_PROOF = 'sh -c \'trap "" USR1 USR2 TERM; exec "$0" "$@"\''
"""Starts a program that lives through the signals; in an image containers/exec.sh does the same."""


@dataclass(frozen=True)
class Submission:
    """What all jobs of one submission have in common."""

    cluster: ClusterConfig
    root: Path
    """EXP."""
    code: Path
    """The snapshot that the jobs run."""
    about: Mapping[str, Any]
    """What the ledger says of them: cluster, revision, dirty, image."""


def submit_stage(
    submission: Submission, tasks: Sequence[Task], jobs: Mapping[TaskId, str]
) -> Iterator[Tuple[Task, Dict[str, str]]]:
    """Submit tasks of one stage, one array for each set of equal dependencies; array index = task index.

    Args:
        tasks: what is to run of the stage; their task.json is there.
        jobs: job id of every task that is queued or runs.
    Yields:
        each task with its job_id, depends_on and log, before the next array is submitted: sbatch may refuse
        that one, and these jobs run all the same.
    """
    root = submission.root
    folder = log_folder(root, tasks[0].stage)
    folder.mkdir(parents=True, exist_ok=True)
    for dependency, group in group_by_dependency(tasks, jobs, ledger.submitted_jobs(root)):
        executor = make_executor(submission, group, dependency)
        for task, job_id in zip(group, submit_array(executor, root, group)):
            log = folder / f"{job_id}_0_log.out"
            yield task, {"job_id": job_id, "depends_on": dependency, "log": log.relative_to(root).as_posix()}


def submit_array(executor: submitit.SlurmExecutor, root: Path, group: Sequence[Task]) -> List[str]:
    """Submit one group; returns the job ids in its order.

    Callables are passed up to the last index: the elements that `array` names find theirs under their own.
    """
    last = max(task.index for task in group)
    paths = [str(job_folder(root, group[0].stage, index) / "task.json") for index in range(last + 1)]
    try:
        with outside_of_a_job():
            jobs = executor.map_array(run_task_file, paths)
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"sbatch refused {group[0].stage}: {' '.join(str(error).split())}") from None
    return [jobs[task.index].job_id for task in group]


def make_executor(submission: Submission, group: Sequence[Task], dependency: str) -> submitit.SlurmExecutor:
    """An executor of its own for every array: submitit's parameters are sticky, a dependency would leak."""
    cluster, stage = submission.cluster, group[0].stage
    os.environ.update(cluster.slurm_environment())
    try:
        executor = submitit.SlurmExecutor(
            folder=log_folder(submission.root, stage), python=python_words(submission, stage)
        )
    except RuntimeError as error:
        raise UserError(f"cluster {cluster.name}: {error}") from None
    executor.update_parameters(**sbatch_parameters(submission, group, dependency))
    return executor


def sbatch_text(submission: Submission, group: Sequence[Task], dependency: str) -> str:
    """The batch script that `make_executor` would submit; writes nothing and needs no Slurm."""
    stage = group[0].stage
    folder = log_folder(submission.root, stage).absolute()
    command = f"{python_words(submission, stage)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    count = len(group) if max(task.index for task in group) > 0 else None  # the logs of arrays differ in name
    parameters = sbatch_parameters(submission, group, dependency)
    return _make_sbatch_string(command, folder, map_count=count, **parameters)


def log_folder(root: Path, stage: str) -> Path:
    """Where the logs of a stage's jobs lie, beside what submitit keeps of them."""
    return job_folder(root, stage, 0).parent / "logs"


def python_words(submission: Submission, stage: str) -> str:
    """What follows `srun`: the jobs' python, which lives through signals that come during its imports."""
    cluster = submission.cluster
    gpus = cluster.stage_resources(stage).gpus_per_node > 0
    words = shlex.join(cluster.python_command(submission.code, submission.root, gpus))
    return words if cluster.container.used else f"{SIGNAL_PROOF} {words}"


def sbatch_parameters(submission: Submission, group: Sequence[Task], dependency: str) -> Dict[str, Any]:
    """submitit's parameters for one array."""
    cluster, stage = submission.cluster, group[0].stage
    resources = cluster.stage_resources(stage)
    extra: Dict[str, Any] = {"kill-on-invalid-dep": "yes", "requeue": True, **cluster.extra_sbatch}
    if max(task.index for task in group) > 0:
        extra["array"] = array_indices([task.index for task in group], cluster.array_parallelism)
    parameters = {
        "job_name": re.sub(r"[^A-Za-z0-9_.-]", "_", f"{submission.root.name}.{stage}"),
        **job_options(cluster, resources),
        "signal_delay_s": cluster.stop_seconds,
        "mail_user": cluster.mail_user,
        "mail_type": cluster.mail_type if cluster.mail_user else None,
        "dependency": dependency or None,
        "stderr_to_stdout": True,
        "setup": setup_lines(submission, resources),
        "teardown": teardown_lines(job_folder(submission.root, stage, 0).parent),
        "additional_parameters": extra,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def setup_lines(submission: Submission, resources: Resources) -> List[str]:
    """Shell lines of the batch script before srun."""
    exports = [
        f"export {name}={shlex.quote(value)}" for name, value in job_variables(submission, resources).items()
    ]
    # the batch shell outlives a failing srun and the signals that its step gets: it has the teardown to do
    return [*submission.cluster.setup, "set +e", *exports, "trap : TERM USR2"]


def job_variables(submission: Submission, resources: Resources) -> Dict[str, str]:
    """The environment of every job, besides what it inherits."""
    cluster, about = submission.cluster, submission.about
    # srun no longer takes it from sbatch since Slurm 22.05: processes would be bound to one core each
    cores = {"SRUN_CPUS_PER_TASK": str(resources.cpus_per_task)} if resources.cpus_per_task else {}
    return {
        **cores,
        "SLURM_KILL_BAD_EXIT": "1",  # a dead rank ends its peers, whatever the site's KillOnBadExit says
        "PYTHONPATH": str(submission.code),
        "PYTHONSAFEPATH": "1",  # else the current folder, the checkout, would come first
        "TEXTOCVP_REVISION": about["revision"],
        "TEXTOCVP_DIRTY": str(int(about["dirty"])),
        "TEXTOCVP_IMAGE": about["image"],
        TERM_WAIT_VARIABLE: str(TERM_WAIT),
        "TEXTOCVP_HANG_MINUTES": str(cluster.hang_minutes),
        "OMP_NUM_THREADS": str(resources.cpus_per_task or 1),
        "SUBMITIT_LOG_LEVEL": "WARNING",  # the log opens with the task's own line
        **cluster.job_environment(),
    }


def teardown_lines(stage_folder: Path) -> List[str]:
    """Shell lines after srun: queue the job again if its task asked for it; keep srun's exit code.

    Asked several times: a controller that is busy for a moment would end a night's chain.
    """
    request = f"{shlex.quote(str(Path(stage_folder).resolve()))}/${{SLURM_ARRAY_TASK_ID:-0}}/{REQUEUE_FILE}"
    # one element has the array's own id as SLURM_JOB_ID, and by that id all of them would be queued again
    job = "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
    again = f'for _ in 1 2 3 4 5; do scontrol requeue "{job}" && break; sleep 5; done'
    return [
        "rc=$?",
        f"if [ -e {request} ]; then rm -f {request}; {again}; fi",
        "exit $rc",
    ]


def array_indices(indices: Sequence[int], parallelism: int) -> str:
    """Slurm's spelling of some elements of an array, for example "1,3%8"."""
    listed = ",".join(str(index) for index in sorted(indices))
    return f"{listed}%{min(len(indices), parallelism)}"

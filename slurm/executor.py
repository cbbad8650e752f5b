"""The only importer of submitit: submits an array job, or returns its batch script."""

import os
import re
import shlex
from typing import Any, Dict, List

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import _make_sbatch_string

from slurm.options import ArrayJob, array_indices, outside_of_a_job, setup_lines, teardown_lines
from slurm.site import ClusterConfig
from textocvp.files import UserError


def submit_array(cluster: ClusterConfig, job: ArrayJob) -> List[str]:
    """Submit a job; returns the job ids of its indices, in their order. UserError if sbatch refuses it."""
    job.logs.mkdir(parents=True, exist_ok=True)
    executor = make_executor(cluster, job)
    try:
        with outside_of_a_job():
            # submitit needs callables up to the last index, although only the elements in `array` run
            jobs = executor.map_array(job.function, job.arguments)
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"sbatch refused {job.name}: {' '.join(str(error).split())}") from None
    return [jobs[index].job_id for index in job.indices]


def make_executor(cluster: ClusterConfig, job: ArrayJob) -> submitit.SlurmExecutor:
    """An executor of its own for every array: submitit's parameters are sticky, a dependency would leak."""
    os.environ.update(cluster.slurm_environment())
    try:
        executor = submitit.SlurmExecutor(folder=job.logs, python=job.python)
    except RuntimeError as error:
        raise UserError(f"cluster {cluster.name}: {error}") from None
    executor.update_parameters(**sbatch_parameters(cluster, job))
    return executor


def sbatch_text(cluster: ClusterConfig, job: ArrayJob) -> str:
    """The batch script that `submit_array` would submit; writes nothing and needs no Slurm."""
    folder = job.logs.absolute()
    command = f"{job.python} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    count = len(job.indices) if job.is_array else None  # the logs of arrays differ in name
    return _make_sbatch_string(command, folder, map_count=count, **sbatch_parameters(cluster, job))


def sbatch_parameters(cluster: ClusterConfig, job: ArrayJob) -> Dict[str, Any]:
    """submitit's parameters for one job."""
    extra: Dict[str, Any] = {"kill-on-invalid-dep": "yes", "requeue": True, **cluster.extra_sbatch}
    if job.is_array:
        extra["array"] = array_indices(job.indices, cluster.array_parallelism)
    parameters = {
        "job_name": re.sub(r"[^A-Za-z0-9_.-]", "_", job.name),
        **cluster.job_options(job.resources),
        "signal_delay_s": cluster.stop_seconds,
        "mail_user": cluster.mail_user,
        "mail_type": cluster.mail_type if cluster.mail_user else None,
        "dependency": job.dependency or None,
        "stderr_to_stdout": True,
        "setup": setup_lines(cluster.setup, job),
        "teardown": teardown_lines(job.requeue_file),
        "additional_parameters": extra,
    }
    return {name: value for name, value in parameters.items() if value is not None}

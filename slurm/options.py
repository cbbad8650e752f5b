"""A site's words and a stage's resources as options of sbatch and srun."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Dict, Iterator, List, Mapping

from slurm.site import ClusterConfig, Resources

BATCH_ONLY = (
    "requeue",
    "no-requeue",
    "get-user-env",
    "parsable",
    "wait",
    "wait-all-nodes",
    "test-only",
    "kill-on-invalid-dep",
    "signal",
    "begin",
    "deadline",
)
"""Options in extra_sbatch that srun does not have, or that would only make it wait."""


def job_options(cluster: ClusterConfig, resources: Resources) -> Dict[str, Any]:
    """Option (with underscores) -> value; what neither site nor stage says is left out."""
    options = {
        "nodes": resources.nodes,
        "ntasks_per_node": resources.ranks_per_node,
        "cpus_per_task": resources.cpus_per_task,
        "gpus_per_node": resources.gpus_per_node or None,
        "mem": f"{round(resources.mem_gb * 1024)}MB" if resources.mem_gb else None,
        "time": resources.minutes,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
    }
    return {name: value for name, value in options.items() if value is not None}


def srun_extra(cluster: ClusterConfig) -> Dict[str, Any]:
    """The site's other options for somebody who waits for srun."""
    return {name: value for name, value in cluster.extra_sbatch.items() if name not in BATCH_ONLY}


@contextlib.contextmanager
def outside_of_a_job() -> Iterator[None]:
    """Hide the variables of the job that this shell runs in: jobs submitted from it would inherit them."""
    names = [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]
    inside = {name: os.environ.pop(name) for name in names} if "SLURM_JOB_ID" in os.environ else {}
    try:
        yield
    finally:
        os.environ.update(inside)


def option_words(options: Mapping[str, Any]) -> List[str]:
    """The options as words of a command line; True: an option without a value."""
    return [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in options.items()
    ]

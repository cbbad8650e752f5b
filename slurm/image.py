"""The image for a site: built here or as a job of its cluster, and unpacked."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import List, Optional

from slurm.options import job_options, option_words
from slurm.queue import attached, submitted
from slurm.site import CODE, IMAGE_JOB, ClusterConfig
from textocvp.config.errors import UserError


def build_image(cluster: ClusterConfig, base: Optional[str], lock: Optional[str], wait: bool) -> int:
    """Build the image that the site's jobs look for; returns the exit status (of sbatch, for a job).

    Args:
        base, lock: as in containers/build.sh; None: its default, the site's container.lock.
        wait: stay until the job has ended.
    """
    words = build_words(cluster, base, lock)
    if cluster.scheduler == "local":
        print(shlex.join(words), flush=True)
        return attached(words, {})
    words = job_words(cluster, words, wait)
    (CODE / cluster.paths.image_cache).mkdir(parents=True, exist_ok=True)
    print(shlex.join(words), flush=True)
    told = f"job {{}} builds it, its log: {job_log(cluster, '{}')}"
    return submitted(words, cluster.slurm_environment(), told)


def unpack_image(cluster: ClusterConfig) -> int:
    """Unpack the site's image into a folder beside it, which its jobs then take; returns the exit status."""
    if not cluster.container.used:
        raise UserError(f"cluster {cluster.name}: container.runtime is none, its jobs use no image")
    words = [
        "env",
        f"APPTAINER={cluster.container.runtime}",
        "bash",
        str(CODE / "containers" / "unpack.sh"),
        str(cluster.image_file()),
    ]
    print(shlex.join(words), flush=True)
    return attached(words, {})


def build_words(cluster: ClusterConfig, base: Optional[str], lock: Optional[str]) -> List[str]:
    """The line that builds the image."""
    images = CODE / cluster.paths.image_cache
    scratch = CODE / cluster.paths.scratch if cluster.paths.scratch else images / "scratch"
    words = [
        "bash",
        str(CODE / "containers" / "build.sh"),
        "--lock",
        lock or cluster.container.lock,
        "--images",
        str(images),
        "--scratch",
        str(scratch),
    ]
    return [*words, "--base", base] if base else words


def job_words(cluster: ClusterConfig, words: List[str], wait: bool) -> List[str]:
    """The line that submits another as a job with the resources of the entry `image`."""
    options = {**job_options(cluster, cluster.stage_resources(IMAGE_JOB)), **cluster.extra_sbatch}
    runtime = [f"export APPTAINER={cluster.container.runtime}"] if cluster.container.used else []
    script = "\n".join([*cluster.setup, *runtime, shlex.join(words)])
    return [
        "sbatch",
        "--parsable",
        *(["--wait"] if wait else []),
        "--job-name=textocvp.image",
        f"--output={job_log(cluster, '%j')}",
        *option_words(options),
        f"--wrap={script}",
    ]


def job_log(cluster: ClusterConfig, number: str) -> Path:
    """Where the job of this number writes."""
    return CODE / cluster.paths.image_cache / f"build-job-{number}.log"

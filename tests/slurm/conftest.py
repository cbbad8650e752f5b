"""What tests on a real Slurm share."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


@pytest.fixture
def slurm(dev_cluster):
    """Runs one of Slurm's programs on the dev cluster; cancels all jobs in the end."""

    def run(*command):
        result = subprocess.run(command, env={**os.environ, **dev_cluster}, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stdout.strip()

    yield run
    subprocess.run(["scancel", "--user", str(os.getuid())], env={**os.environ, **dev_cluster}, check=False)


@pytest.fixture
def pid_of_rank():
    """Finds the process of one rank of a job on this machine, which is all of the dev cluster's nodes."""

    def find(job, rank):
        array, _, index = job.partition("_")
        wanted = {f"SLURM_PROCID={rank}"}
        wanted |= (
            {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={index}"}
            if index
            else {f"SLURM_JOB_ID={job}"}
        )
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
                name = (folder / "comm").read_text()
            except OSError:
                continue
            if wanted <= variables and name.startswith("python"):
                return int(folder.name)
        raise AssertionError(f"no process of rank {rank} of job {job}")

    return find

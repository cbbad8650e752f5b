"""What tests on a real Slurm share."""

from __future__ import annotations

import os
import subprocess

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

"""A site and an array job of plain values, for all tests of how Slurm is reached."""

from pathlib import Path

import pytest

from slurm.options import ArrayJob, Resources
from slurm.site import parse_cluster

CODE = Path(__file__).parents[2]
KINDS = {"train_decomp": True, "make_data": False}


@pytest.fixture
def program(tmp_path):
    """Writes a stand-in for one of Slurm's programs, a shell script, to `tmp_path`."""

    def write(name, text=""):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)

    return write


@pytest.fixture
def site():
    """Parses a site's values."""

    def parse(**values):
        return parse_cluster({"scheduler": "slurm", **values}, "site.yaml", "site", CODE, KINDS)

    return parse


@pytest.fixture
def array(tmp_path):
    """Makes an array job; its batch script asks to be queued again by files in `tmp_path/a b`."""

    def make(indices=(0,), **values):
        defaults = {
            "name": "exp.train",
            "function": str,
            "arguments": [f"argument {index}" for index in range(max(indices) + 1)],
            "indices": indices,
            "resources": Resources(),
            "python": "python3",
            "environment": {"MINE": "a b"},
            "logs": tmp_path / "my logs",
            "requeue_file": f"{tmp_path}/a b/{{index}}/requeue_request",
        }
        return ArrayJob(**{**defaults, **values})

    return make

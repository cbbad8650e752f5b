"""A copy of containers/ to build from, and commands in the real image."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

CODE = Path(__file__).resolve().parents[2]
CONTAINERS = CODE / "containers"


def run(*command, **settings):
    settings.setdefault("timeout", 600)
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **settings)


def key_of(folder, lock):
    """The image's key, as the header of build.sh defines it."""
    parts = [folder / name for name in (f"requirements-{lock}.lock", "textocvp.def", "selftest.py")]
    return hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:16]


@pytest.fixture
def containers(tmp_path):
    """A copy of containers/ that a test may change; `build` runs its build.sh into tmp_path/images."""
    folder = tmp_path / "containers"
    shutil.copytree(CONTAINERS, folder, symlinks=True)
    images = tmp_path / "images"

    def build(*arguments, **environment):
        command = (folder / "build.sh", "--images", images, *arguments)
        return run(*command, env={**os.environ, **environment})

    return SimpleNamespace(folder=folder, images=images, build=build)


@pytest.fixture(scope="session")
def in_image(runtime, image):
    """Runs a command in the image, as a job would."""

    def start(*command, options=(), image=image, **settings):
        return run(CONTAINERS / "exec.sh", *options, runtime, image, *command, **settings)

    return start

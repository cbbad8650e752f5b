"""A copy of containers/ to build from, and the real image, built once and kept."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

CODE = Path(__file__).resolve().parents[2]
CONTAINERS = CODE / "containers"
RUNTIME = shutil.which("apptainer") or shutil.which("singularity")


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
def runtime():
    """The path of apptainer or singularity."""
    if RUNTIME is None:
        absent = "needs Apptainer (on Debian 12: .ci/install-apptainer)"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return RUNTIME


@pytest.fixture(scope="session")
def image(runtime):
    """The image of the cpu lock, in TEXTOCVP_TEST_IMAGES or .images; built where it is missing (minutes)."""
    images = Path(os.environ.get("TEXTOCVP_TEST_IMAGES") or CODE / ".images")
    build = (CONTAINERS / "build.sh", "--images", images)
    if not run(*build, "--dry").stdout.startswith("unchanged"):
        base = ("--base", "debootstrap") if shutil.which("debootstrap") else ()
        built = run(*build, *base, timeout=3000)
        assert built.returncode == 0, built.stderr
    return images / f"textocvp-cpu-{key_of(CONTAINERS, 'cpu')}.sif"


@pytest.fixture(scope="session")
def in_image(runtime, image):
    """Runs a command in the image, as a job would."""

    def start(*command, options=(), image=image, **settings):
        return run(CONTAINERS / "exec.sh", *options, runtime, image, *command, **settings)

    return start

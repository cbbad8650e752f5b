"""lock.py: the cuda lock is the cpu lock and what CUDA needs; --check notices where it is not, offline."""

import shutil
import sys

import pytest

from .conftest import CODE, CONTAINERS, run


def pins(path):
    lines = path.read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def test_the_locks_agree_and_the_cuda_lock_has_only_what_cuda_needs_more():
    names = ("login", "dev", "cpu", "cuda")
    login, dev, cpu, cuda = (pins(CONTAINERS / f"requirements-{name}.lock") for name in names)
    assert "torch" not in login and cpu["torch"] == "2.13.0"
    assert login.items() <= cpu.items() and not dev.keys() & cpu.keys()
    assert cpu.items() <= cuda.items()
    added = cuda.keys() - cpu.keys()
    assert {"nvidia-cublas", "nvidia-cudnn-cu13", "nvidia-nccl-cu13", "triton"} <= added
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in added)


@pytest.fixture
def check(tmp_path):
    """Runs `lock.py --check` on changed copies of the locks: {file: (old text, new text)}."""
    shutil.copy(CODE / "pyproject.toml", tmp_path)
    folder = tmp_path / "containers"
    shutil.copytree(CONTAINERS, folder, symlinks=True)

    def run_check(changes):
        for name, (old, new) in changes.items():
            path = folder / name if name.endswith(".lock") else tmp_path / name
            text = path.read_text()
            assert old in text
            path.write_text(text.replace(old, new))
        offline = {"PATH": "/nonexistent", "HOME": str(tmp_path)}
        return run(sys.executable, folder / "lock.py", "--check", env=offline)

    return run_check


def test_the_locks_as_they_are_pass(check):
    result = check({})
    assert (result.returncode, result.stdout) == (0, "differ: none\n")


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("requirements-cuda.lock", "numpy==", "numpy==0.", "differ: requirements-cuda.lock"),
        ("requirements-cuda.lock", "of torch 2", "of torch 1", "differ: requirements-cuda.lock"),
        ("requirements-cuda.lock", "nvidia-nccl-cu13==", "left-out==", "lacks nvidia-nccl-cu13: make lock"),
        ("requirements-cpu.lock", "torch==", "torch==0.", "differ: requirements-cpu.lock"),
        ("requirements-login.lock", "pydantic==", "pydantic==0.", "differ: requirements-login.lock"),
        ("pyproject.toml", '"h5py>=3.12,<4"', '"iniconfig"', "requirements-cpu.lock"),
    ],
)
def test_what_does_not_fit_is_named(check, name, old, new, words):
    result = check({name: (old, new)})
    assert result.returncode == 1
    assert words in result.stdout + result.stderr

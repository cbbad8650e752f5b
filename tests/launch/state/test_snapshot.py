import subprocess

import pytest

from launch.state import snapshot
from launch.state.snapshot import take_snapshot
from textocvp.files import UserError


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@x"]
    subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True)


@pytest.fixture
def code(tmp_path):
    """A checkout: a tracked and edited file, an untracked one, an ignored one, a program, a link."""
    folder = tmp_path / "code"
    (folder / "package").mkdir(parents=True)
    (folder / "package/module.py").write_text("old = 1\n")
    (folder / "gone.py").write_text("")
    (folder / ".gitignore").write_text("*.log\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("run.sh")
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first")
    (folder / "package/module.py").write_text("new = 2\n")
    (folder / "package/untracked.py").write_text("more = 3\n")
    (folder / "gone.py").unlink()
    (folder / "noise.log").write_text("ignored")
    return folder


def test_the_tree_as_it_is(code, tmp_path):
    taken = take_snapshot(code, tmp_path / "snapshots")
    files = sorted(path.relative_to(taken).as_posix() for path in taken.rglob("*") if not path.is_dir())
    assert files == [".gitignore", "link", "package/module.py", "package/untracked.py", "run.sh"]
    assert (taken / "package/module.py").read_text() == "new = 2\n"
    assert (taken / "link").is_symlink() and (taken / "run.sh").stat().st_mode & 0o111


def test_equal_trees_share_a_folder_and_changed_ones_do_not(code, tmp_path):
    first = take_snapshot(code, tmp_path / "snapshots")
    assert take_snapshot(code, tmp_path / "snapshots") == first
    (code / "noise.log").write_text("still ignored")
    assert take_snapshot(code, tmp_path / "snapshots") == first
    (code / "package/module.py").write_text("new = 3\n")
    second = take_snapshot(code, tmp_path / "snapshots")
    assert second != first and (first / "package/module.py").read_text() == "new = 2\n"
    assert {path.name for path in (tmp_path / "snapshots").iterdir()} == {first.name, second.name}


def test_without_git_experiments_and_hidden_files_stay_behind(tmp_path):
    folder = tmp_path / "code"
    for name in ("package/a.py", "experiments/exp/big.h5", ".venv/lib.py", "package/__pycache__/a.pyc"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    taken = take_snapshot(folder, tmp_path / "snapshots")
    assert [path.name for path in taken.rglob("*") if path.is_file()] == ["a.py"]


def test_a_tree_that_is_too_large_names_its_largest_files(code, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "MAX_BYTES", 1 << 20)
    (code / "data.bin").write_bytes(bytes(2 << 20))
    with pytest.raises(UserError, match=r"1 MB .*: data.bin \(2 MB\), .*\.gitignore"):
        take_snapshot(code, tmp_path / "snapshots")
    assert not (tmp_path / "snapshots").exists()

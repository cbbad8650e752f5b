import errno
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from textocvp import files
from textocvp.config.experiment import experiment_root
from textocvp.files import DiskFullError, UserError, atomic_folder, atomic_path, file_lock, full_disk_reason


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert files.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_hash_of_json_ignores_order():
    assert files.sha256_json({"a": 1, "b": 2}) == files.sha256_json({"b": 2, "a": 1})
    assert files.sha256_json({"a": 1}) != files.sha256_json({"a": 2})


def test_lines_of_concurrent_writers_stay_whole(tmp_path):
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys; from pathlib import Path; from textocvp.files import append_jsonl\n"
        "for i in range(50):\n"
        "    append_jsonl(Path(sys.argv[1]), {'writer': sys.argv[2], 'i': i, 'pad': 'x' * 5000})"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in "ab"]
    assert [writer.wait() for writer in writers] == [0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 100
    assert [line["i"] for line in lines if line["writer"] == "a"] == list(range(50))


@pytest.mark.parametrize("below", ["", "seeds/1", "predictors/p", "predictors/p/seeds/2"])
def test_experiment_root(tmp_path, below):
    assert experiment_root(tmp_path / "exp" / below) == tmp_path / "exp"


def test_a_folder_is_whole_or_not_there(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a") as temporary:
        (temporary / "half").touch()
        raise RuntimeError("killed")
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "a") as temporary:
        (temporary / "all").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "all"]


def test_a_lock_that_is_held_is_not_waited_for(tmp_path):
    path = tmp_path / "lock"
    with file_lock(path), pytest.raises(BlockingIOError), file_lock(path, wait=False):
        pass
    with file_lock(path, wait=False):
        pass


def test_space_of_a_path_that_does_not_exist_yet(tmp_path):
    found, real = files.space_at(tmp_path / "not" / "there"), os.statvfs(tmp_path)
    assert abs(found.free - real.f_bavail * real.f_frsize) < 1e8
    assert found.total == real.f_blocks * real.f_frsize


def test_revision_of_a_snapshot_comes_from_the_job(monkeypatch, tmp_path):
    assert files.code_revision(tmp_path) == ("", False)
    monkeypatch.setenv("TEXTOCVP_REVISION", "abc")
    monkeypatch.setenv("TEXTOCVP_DIRTY", "1")
    assert files.code_revision(tmp_path) == ("abc", True)


def test_bytes_for_people():
    texts = ", ".join(files.format_bytes(n) for n in (0, 999, 1000, 123456, 5.2e9, 4e12, 5e15))
    assert texts == "0 B, 999 B, 1.0 kB, 123 kB, 5.2 GB, 4.0 TB, 5000 TB"


FULL = Path("/dev/full")
"""Each write to it fails as on a full disk."""


def test_errors_of_a_full_disk():
    with pytest.raises(OSError) as python, open(FULL, "wb", buffering=0) as file:
        file.write(b"x")
    assert full_disk_reason(python.value) == "no space left on device"
    assert full_disk_reason(pickle.loads(pickle.dumps(python.value))) == "no space left on device"
    assert full_disk_reason(OSError(errno.EDQUOT, "x")) == "disk quota exceeded"
    assert full_disk_reason(OSError("Can't write (errno = 122, message = '...')")) == "disk quota exceeded"
    try:
        raise ValueError("what comes of it") from python.value
    except ValueError as error:
        assert full_disk_reason(error) == "no space left on device"
    for other in (OSError(errno.EIO, "x"), OSError("errno = 5"), ValueError("28"), UserError("space")):
        assert full_disk_reason(other) is None


@pytest.mark.parametrize("numbers", [10, 10**6])
@pytest.mark.parametrize("by_name", [True, False])
def test_torch_names_no_cause(by_name, numbers):
    import torch

    with pytest.raises(DiskFullError, match="no space left on device"), files.writing(FULL):
        if by_name:
            torch.save({"x": torch.zeros(numbers)}, FULL)
        else:
            with open(FULL, "wb") as file:
                torch.save({"x": torch.zeros(numbers)}, file)


def test_the_thread_of_tensorboard_ends_quietly(tmp_path, capfd, mount_small):
    import torch

    from textocvp.training.recorder import Curves

    curves = Curves(mount_small("64k"))
    with pytest.raises(DiskFullError, match="no space left on device"):
        for step in range(200):
            curves.pictures({"noise": torch.rand(3, 64, 64)}, step)
            curves.flush()
    assert "Traceback" not in capfd.readouterr().err


def test_a_file_is_whole_or_not_there(mount_small):
    folder = mount_small("64k")
    (folder / "x").write_text("before")
    with pytest.raises(DiskFullError) as error, atomic_path(folder / "x") as temporary:
        temporary.write_bytes(bytes(100_000))
    assert str(error.value) == f"{folder / 'x'}: no space left on device: 0 B free of 65.5 kB"
    assert [path.name for path in folder.iterdir()] == ["x"] and (folder / "x").read_text() == "before"


def test_a_line_of_the_ledger_is_whole_or_not_there(mount_small):
    folder = mount_small("64k")
    path = folder / "x.jsonl"
    with pytest.raises(DiskFullError):
        for _ in range(100):
            files.append_jsonl(path, "x" * 1500)
    lines = path.read_text()
    assert lines.endswith('"\n') and len(lines) % 1503 == 0 and len(lines) > 40_000

from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest

from textocvp import files as disk_space
from textocvp.config.errors import DiskFullError, UserError
from textocvp.files import (
    Quota,
    Space,
    append_jsonl,
    atomic_path,
    format_bytes,
    full_disk_reason,
    mount_of,
    parse_quotas,
    space_at,
    writing,
)

QUOTA = """\
Disk quotas for user alice (uid 1000):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sda1  123456       0       0            1234       0       0
server.example.org:/export/a_long_name
                 1500000* 1000000 2000000   6days    4321   50000   60000
Disk quotas for group lab (gid 100):
     Filesystem  blocks   quota   limit   grace   files   quota   limit   grace
      /dev/sdb1  20000   30000   40000             5       0       0
"""
LUSTRE = """\
Disk quotas for usr alice (uid 1000):
      Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
        /scratch [123456]       0 20000000       -     917       0 1000000       -
uid 1000 is using default block quota setting
Disk quotas for grp lab (gid 100):
      Filesystem  kbytes   quota   limit   grace   files   quota   limit   grace
        /scratch 99999999* 90000000 100000000 6d23h59m  917       0 1000000       -
Some errors happened when getting quota info. Some devices may be not working or deactivated.
"""


def test_the_tables_of_quota():
    assert parse_quotas(QUOTA) == [
        Quota("user alice", "server.example.org:/export/a_long_name", 1500000 * 1024, 1000000 * 1024),
        Quota("group lab", "/dev/sdb1", 20000 * 1024, 30000 * 1024),
    ]


def test_the_tables_of_lfs_quota():
    assert parse_quotas(LUSTRE) == [
        Quota("user alice", "/scratch", 123456 * 1024, 20000000 * 1024),
        Quota("group lab", "/scratch", 99999999 * 1024, 90000000 * 1024),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Disk quotas for user alice (uid 1000): none\n",
        "quota: Cannot stat() mounted device\n",
        "Disk quotas for user alice (uid 1000):\n  Filesystem  blocks  quota\n  /dev/sda1  12K  20K  30K\n",
    ],
)
def test_what_is_no_table_counts_for_nothing(text):
    assert parse_quotas(text) == []


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Writes programs that print some text and fail, as `quota` does where a limit is exceeded."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def write(name, text, then="exit 1"):
        (folder / f"{name}.txt").write_text(text)
        (folder / name).write_text(f"#!/bin/sh\ncat {folder / name}.txt\n{then}\n")
        (folder / name).chmod(0o755)

    return write


def test_the_file_system_limits_where_there_is_no_quota(programs, tmp_path):
    programs("quota", QUOTA)  # of other file systems
    found, real = space_at(tmp_path / "not" / "there"), os.statvfs(tmp_path)
    assert abs(found.free - real.f_bavail * real.f_frsize) < 1e8
    assert found.total == real.f_blocks * real.f_frsize
    assert found.limit == f"file system {mount_of(tmp_path)[0]}"


def test_the_tightest_quota_limits(programs, tmp_path):
    point, source = mount_of(tmp_path)
    header = "Filesystem blocks quota limit"
    programs("quota", f"Disk quotas for user alice (uid 1000):\n {header}\n {source} 60 100 0\n")
    assert space_at(tmp_path) == Space(40 * 1024, 100 * 1024, f"quota of user alice on {point}")
    programs("lfs", f"Disk quotas for prj 7 (pid 7):\n {header} grace\n /x 95* 80 100 -\n")
    assert space_at(tmp_path) == Space(0, 80 * 1024, f"quota of project 7 on {point}")


def test_a_program_that_does_not_answer_counts_for_nothing(programs, tmp_path, monkeypatch):
    monkeypatch.setattr(disk_space, "PATIENCE", 0.3)
    programs("quota", QUOTA, then="exec sleep 20")
    assert space_at(tmp_path).limit.startswith("file system ")


def test_mount_points():
    assert mount_of(Path("/proc/self"))[0] == "/proc"


def test_bytes_for_people():
    assert [format_bytes(n) for n in (0, 999, 1000, 123456, 5.2e9, 4e12, 5e15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "123 kB",
        "5.2 GB",
        "4.0 TB",
        "5000 TB",
    ]


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

    with pytest.raises(DiskFullError, match="no space left on device"), writing(FULL):
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
    limit = f"0 B free of 65.5 kB (file system {folder})"
    assert str(error.value) == f"{folder / 'x'}: no space left on device: {limit}"
    assert [path.name for path in folder.iterdir()] == ["x"] and (folder / "x").read_text() == "before"


def test_a_line_of_the_ledger_is_whole_or_not_there(mount_small):
    folder = mount_small("64k")
    path = folder / "x.jsonl"
    with pytest.raises(DiskFullError):
        for _ in range(100):
            append_jsonl(path, "x" * 1500)
    lines = path.read_text()
    assert lines.endswith('"\n') and len(lines) % 1503 == 0 and len(lines) > 40_000

"""How much may still be written somewhere: free bytes of the file system, quotas; and failing for want of it.

Standard library only.

Quotas are asked of `quota` and `lfs quota` where these programs exist; one that does not answer, or answers
something that cannot be understood, counts for nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Iterator, List, NamedTuple, Optional, Tuple

from textocvp.config.errors import DiskFullError

PATIENCE = 10
"""Seconds that a program may take to tell a quota."""
FULL = {errno.ENOSPC: "no space left on device", errno.EDQUOT: "disk quota exceeded"}
_FULL_TEXT = re.compile(r"(?:errno = |\[Errno )(\d+)\b")
"""As h5py and others write an error's number into their own errors' text."""
_TORCH_TEXT = re.compile(
    r"PytorchStreamWriter failed writing|inline_container\.cc:\d+\] \. unexpected pos|"
    r"basic_ios::clear: iostream error"
)
"""torch.save names no cause, but the file was open: what remains is a lack of space."""
_OWNER = re.compile(r"Disk quotas for (\S+) (\S+)")
_NUMBER = re.compile(r"\[?(\d+)\*?\]?")
_KINDS = {"usr": "user", "grp": "group", "prj": "project"}
"""Lustre's words."""


def full_disk_reason(error: BaseException) -> Optional[str]:
    """Why an error is one of too little space ("no space left on device", ...); None where it is another."""
    seen: List[BaseException] = []
    cause: Optional[BaseException] = error
    while cause is not None and cause not in seen:
        number = getattr(cause, "errno", None)
        told = [number] if isinstance(number, int) else map(int, _FULL_TEXT.findall(str(cause)))
        reason = next((FULL[each] for each in told if each in FULL), None)
        if reason:
            return reason
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return "no space left on device" if any(map(_TORCH_TEXT.search, map(str, seen))) else None


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Whatever fails inside for want of space is a DiskFullError, one line with path and limit."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        reason = full_disk_reason(error)
        if reason is None:
            raise
        space = space_at(path)
        named = getattr(error, "filename2", None) or getattr(error, "filename", None)
        raise DiskFullError(
            f"{named or path}: {reason}: {format_bytes(space.free)} free of "
            f"{format_bytes(space.total)} ({space.limit})"
        ) from None


class Space(NamedTuple):
    """What may still be written at some place."""

    free: int
    """Bytes."""
    total: int
    limit: str
    """What sets the limit: "file system /scratch", "quota of user alice on /scratch"."""


class Quota(NamedTuple):
    """One line of a quota program's table; bytes."""

    owner: str
    """For example "user alice"."""
    file_system: str
    used: int
    limit: int


def space_at(path: Path) -> Space:
    """The tightest limit at a path, which need not exist yet."""
    folder = _existing(path)
    return min([file_system_space(folder), *_quota_spaces(folder)], key=lambda space: space.free)


def file_system_space(folder: Path) -> Space:
    """Free and all bytes of the file system that holds an existing folder."""
    found = os.statvfs(folder)
    mount_point, _ = mount_of(folder)
    return Space(
        found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize, f"file system {mount_point}"
    )


def mount_of(path: Path) -> Tuple[str, str]:
    """Where the file system of a path is mounted, and what is mounted there."""
    real, found = os.path.realpath(path), ("/", "")
    try:
        lines = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        source, point = (word.encode().decode("unicode_escape") for word in line.split(" ")[:2])
        # of several on one point the last is seen
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(found[0]):
            found = (point, source)
    return found


def parse_quotas(text: str) -> List[Quota]:
    """The limits in the output of `quota` or `lfs quota` (tables in KiB); lines without one are left out."""
    found = (_quota(owner, words) for owner, words in _table(text))
    return [quota for quota in found if quota]


def _table(text: str) -> Iterator[Tuple[str, List[str]]]:
    """(owner, words of a line), a line that was wrapped after a long name put together."""
    owner, name = "", None
    for line in text.splitlines():
        told, words = _OWNER.match(line.strip()), line.split()
        if told:
            owner = f"{_KINDS.get(told[1], told[1])} {told[2]}"
        elif len(words) == 1:
            name = words[0]
        elif words:
            yield owner, [name, *words] if name and _NUMBER.fullmatch(words[0]) else words
            name = None


def _quota(owner: str, words: List[str]) -> Optional[Quota]:
    if len(words) < 4:
        return None
    numbers = [_NUMBER.fullmatch(word) for word in words[1:4]]
    if None in numbers:
        return None
    used, soft, hard = (1024 * int(number[1]) for number in numbers)
    # beyond the soft limit one has a few days: nothing to plan with
    limit = soft or hard
    return Quota(owner, words[0], used, limit) if limit else None


def _quota_spaces(folder: Path) -> List[Space]:
    point, source = mount_of(folder)
    quotas = parse_quotas(_output("lfs", "quota", str(folder)))
    # `quota` tells of every file system
    quotas += [
        quota
        for quota in parse_quotas(_output("quota", "-w", "-u", "-g"))
        if os.path.realpath(quota.file_system) in (os.path.realpath(point), os.path.realpath(source))
    ]
    return [
        Space(max(0, quota.limit - quota.used), quota.limit, f"quota of {quota.owner} on {point}")
        for quota in quotas
    ]


def _output(*command: str) -> str:
    """What a program prints, whatever its status: `quota` fails where a limit is exceeded."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        ).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = Path(path).absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def bytes_below(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 for what is not there."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size if os.path.lexists(path) else 0
    files = (Path(folder) / name for folder, _, names in os.walk(path) for name in names)
    return sum(file.lstat().st_size for file in files if os.path.lexists(file))


def format_bytes(number: float) -> str:
    """For example "12 B", "3.4 MB", "120 GB"."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.0f} {units[0]}" if units[0] == "B" or number >= 100 else f"{number:.1f} {units[0]}"

"""What a run leaves on disk: hashes, atomic writes, manifests, progress. Standard library only.

Whatever is written here appears under its name whole or not at all: it is written beside it under a
temporary name, flushed to disk and renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

VERSIONED_PACKAGES = ("torch", "deepspeed", "transformers", "h5py", "numpy")


class UserError(Exception):
    """Something the user can mend. The message is one line: what is wrong and what to do."""


class DiskFullError(UserError):
    """Nothing more can be written: the disk is full or a quota is exceeded. What is finished is kept."""


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of a JSON value in canonical form (sorted keys, no spaces)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_json(path: Path) -> Any:
    """The JSON value in a file; UserError that names the file where it is absent or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged, no valid JSON ({error})") from None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, flushed and renamed to it on success, removed on an error.

    DiskFullError, with the path, where there is too little space for it.
    """
    path = Path(path)
    # the name tells of host and process: nodes of one cluster share the folder
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path` (created where absent); waits for other holders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        yield


def append_jsonl(path: Path, value: Any) -> None:
    """Append one JSON line under a lock, so that concurrent writers never mix lines; whole or not at all."""
    lock = Path(path).with_name(Path(path).name + ".lock")
    with writing(path), file_lock(lock), open(path, "ab+", buffering=0) as file:
        size, line = file.seek(0, os.SEEK_END), (json.dumps(value) + "\n").encode()
        file.seek(max(0, size - 1))
        if file.read(1) not in (b"", b"\n"):  # a crash cut a line short: this one is not lost with it
            line = b"\n" + line
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


@functools.cache
def provenance() -> Dict[str, Any]:
    """Code revision, image digest and versions, written beside every checkpoint and into every store."""
    versions = {"python": sys.version.split()[0]}
    for package in VERSIONED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    revision, dirty = code_revision(Path(__file__).resolve().parent.parent)
    return {
        "revision": revision,
        "dirty": dirty,
        "image": os.environ.get("TEXTOCVP_IMAGE", ""),
        "versions": versions,
    }


def code_revision(folder: Path) -> "tuple[str, bool]":
    """Git commit of the code, and whether the tree differs from it; ("", False) outside a checkout."""
    if os.environ.get("TEXTOCVP_REVISION"):  # a snapshot has no .git: its job is told
        return os.environ["TEXTOCVP_REVISION"], os.environ.get("TEXTOCVP_DIRTY") == "1"
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "", False


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


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

"""Files: hashes, JSON, locks, atomic writing, free space. Standard library only.

Files are written atomically: under a temporary name in the same folder, flushed to disk, then renamed.
A write that fails for lack of space raises DiskFullError, which names the path.
"""

import contextlib
import difflib
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
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Tuple

VERSIONED_PACKAGES = ("torch", "deepspeed", "transformers", "h5py", "numpy")
FULL = {errno.ENOSPC: "no space left on device", errno.EDQUOT: "disk quota exceeded"}
_FULL_TEXT = re.compile(r"(?:errno = |\[Errno )(\d+)\b")
"""How h5py and others write an error number into the text of their own errors."""
_TORCH_TEXT = re.compile(
    r"PytorchStreamWriter failed writing|inline_container\.cc:\d+\] \. unexpected pos|"
    r"basic_ios::clear: iostream error"
)
"""torch.save does not report why it failed; since the file could be opened, lack of space is assumed."""


class UserError(Exception):
    """An error that the user can fix. The message is one line: what is wrong and what to do."""


class DiskFullError(UserError):
    """The disk is full or a quota is exceeded. Finished outputs are kept."""


class ConfigError(UserError):
    """A value in a configuration file is missing, unknown, of the wrong type or out of range."""


def missing_package(error: ModuleNotFoundError) -> str:
    """One line for a Python that has not all packages."""
    name, python = error.name or error, sys.executable
    return f"{python} lacks the package {name}; use .venv/bin/python, which `make setup` creates"


def nearest(name: str, known: Iterable[str], listed: bool = True) -> str:
    """A hint for a misspelt name: ", did you mean 'x'?"; else, if `listed`, the known names."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f", did you mean {close[0]!r}?"
    return f"; known: {', '.join(sorted(known)) or 'none'}" if listed else ""


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
    """The JSON value in a file; UserError that names the file if it is absent or damaged."""
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged, not valid JSON ({error})") from None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n")


def _temporary(path: Path) -> Path:
    # with host and process in its name: the nodes of a cluster share the folder
    return path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.tmp")


@contextlib.contextmanager
def atomic_path(path: Path, durable: bool = True) -> Iterator[Path]:
    """A temporary path next to `path`, renamed to it on success and removed on an error.

    Args:
        durable: flush to disk first. False is faster for thousands of small files, but a crash of the machine
            may lose them.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            if durable:
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder next to `path`, renamed to it on success and removed on an error.

    OSError if `path` then exists and is not an empty folder.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with writing(path):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            yield temporary
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[int]:
    """Hold an exclusive lock on `path` (created if absent); yields its file descriptor.

    Processes that inherit the descriptor hold the lock too.

    Raises:
        BlockingIOError: without `wait`, another process holds it.
        OSError: the file cannot be opened, or its file system has no locks.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield descriptor
    finally:
        os.close(descriptor)


def append_jsonl(path: Path, value: Any) -> None:
    """Append one JSON line under a lock, so that concurrent writers never mix lines."""
    lock = Path(path).with_name(Path(path).name + ".lock")
    with writing(path), file_lock(lock), open(path, "ab+", buffering=0) as file:
        size, line = file.seek(0, os.SEEK_END), (json.dumps(value) + "\n").encode()
        file.seek(max(0, size - 1))
        if file.read(1) not in (
            b"",
            b"\n",
        ):  # a crash truncated the previous line: do not append to it
            line = b"\n" + line
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size)
            raise


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn any failure for lack of space inside into a DiskFullError: one line with the path."""
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        reason = full_disk_reason(error)
        if reason is None:
            raise
        space = space_at(path)
        named = getattr(error, "filename2", None) or getattr(error, "filename", None) or path
        left = f"{format_bytes(space.free)} free of {format_bytes(space.total)}"
        raise DiskFullError(f"{named}: {reason}: {left}") from None


def full_disk_reason(error: BaseException) -> Optional[str]:
    """The lack of space that caused an error ("no space left on device", ...); None: another cause."""
    seen: List[BaseException] = []
    cause: Optional[BaseException] = error
    while cause is not None and cause not in seen:
        number = getattr(cause, "errno", None)
        numbers = [number] if isinstance(number, int) else [int(n) for n in _FULL_TEXT.findall(str(cause))]
        for each in numbers:
            if each in FULL:
                return FULL[each]
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__
    return FULL[errno.ENOSPC] if any(_TORCH_TEXT.search(str(each)) for each in seen) else None


class Space(NamedTuple):
    """Bytes of a file system. A quota may allow less."""

    free: int
    total: int


def space_at(path: Path) -> Space:
    """The file system of a path, which need not exist yet."""
    path = Path(path).absolute()
    usage = shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists()))
    return Space(usage.free, usage.total)


def bytes_below(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; 0 if it does not exist."""
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


@functools.cache
def provenance() -> Dict[str, Any]:
    """Code revision, image digest and versions, written beside every checkpoint and into every store."""
    versions = {"python": sys.version.split()[0]}
    for package in VERSIONED_PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    revision, dirty = code_revision(Path(__file__).resolve().parent.parent)
    image = os.environ.get("TEXTOCVP_IMAGE", "")
    return {"revision": revision, "dirty": dirty, "image": image, "versions": versions}


def code_revision(folder: Path) -> Tuple[str, bool]:
    """Git commit of the code, and whether the tree differs from it; ("", False) outside a checkout."""
    if os.environ.get("TEXTOCVP_REVISION"):  # a job's snapshot has no .git
        return os.environ["TEXTOCVP_REVISION"], os.environ.get("TEXTOCVP_DIRTY") == "1"
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit, bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "", False


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

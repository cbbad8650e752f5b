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
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional

from textocvp.config.errors import UserError
from textocvp.disk_space import writing

JOB_DIR_VARIABLE = "TEXTOCVP_JOB_DIR"
"""A job's own folder EXP/jobs/STAGE/TASK; unset where a command runs by hand."""
ATTEMPT_VARIABLE = "TEXTOCVP_ATTEMPT"
"""Names one attempt at a task, the same on all of its ranks."""
ATTEMPT_FILE = "attempt.json"
"""In a job's folder: the newest attempt at its task."""
REQUEUE_FILE = "requeue_request"
"""In a job's folder: the job asks to be queued again."""
TERM_WAIT_VARIABLE = "TEXTOCVP_TERM_WAIT"
"""Seconds that a run stays alive after SIGTERM, with what it had saved, so that the scheduler, not the run's
exit, decides whether the job was cancelled or is queued again. Set by jobs; unset: exit at once."""
FINAL = "checkpoint_epoch_final.pth"
"""What a training writes when it ends: where it lies, the training is finished."""
VERSIONED_PACKAGES = ("torch", "deepspeed", "transformers", "h5py", "numpy")
SCHEMA = 1
FORGET = "remove the file, then its task counts as not done and runs again"


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


def experiment_root(folder: Path) -> Path:
    """EXP for EXP itself, EXP/seeds/K, EXP/predictors/N and EXP/predictors/N/seeds/K."""
    folder = Path(folder)
    if folder.parent.name == "seeds":
        folder = folder.parent.parent
    if folder.parent.name == "predictors":
        folder = folder.parent.parent
    return folder


@dataclass(frozen=True)
class Manifest:
    """What one finished task read and wrote. Paths are relative to the experiment's root."""

    stage: str
    task: int
    key: str
    """Hash of declared config fields, inputs and stage version: equal keys mean equal outputs."""
    config_sha256: str = ""
    inputs: Dict[str, str] = field(default_factory=dict)
    """Relative path of each input's manifest or file -> hash."""
    outputs: Dict[str, Dict[str, Any]] = field(default_factory=dict)
    """Relative path -> {"sha256", "bytes"}."""
    revision: str = ""
    image: str = ""
    versions: Dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    schema: int = SCHEMA

    def write(self, path: Path) -> None:
        """Write atomically as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read one; UserError where the file is absent, damaged or of a later schema."""
        try:
            values = read_json(path)
        except UserError as error:
            raise UserError(f"{error}; {FORGET}") from None
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise UserError(
                f"{path}: no manifest of schema {SCHEMA}; written by another version of the suite? {FORGET}"
            )
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"{path}: damaged manifest ({error}); {FORGET}") from None

    def damaged_outputs(self, root: Path, rehash: bool = False) -> List[str]:
        """One line for each output that is absent or differs in size (with `rehash`: or content)."""
        lines = []
        for name, expected in self.outputs.items():
            path = Path(root) / name
            if not path.is_file():
                lines.append(f"{path}: missing")
            elif path.stat().st_size != expected["bytes"]:
                lines.append(f"{path}: {path.stat().st_size} bytes, the manifest says {expected['bytes']}")
            elif rehash and sha256_file(path) != expected["sha256"]:
                lines.append(f"{path}: content differs from the manifest's hash")
        return lines


def describe_outputs(root: Path, paths: Iterable[Path]) -> Dict[str, Dict[str, Any]]:
    """The `outputs` of a manifest for files below `root`."""
    return {
        Path(path).relative_to(root).as_posix(): {
            "sha256": sha256_file(path),
            "bytes": Path(path).stat().st_size,
        }
        for path in sorted(paths)
    }


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


def job_folder() -> Optional[Path]:
    """This job's folder EXP/jobs/STAGE/TASK, or None where the command runs by hand."""
    value = os.environ.get(JOB_DIR_VARIABLE)
    return Path(value) if value else None


def refuse_if_superseded() -> None:
    """UserError in a job whose task another attempt has taken up since: its node was given up while it lived.

    What is written after that would mix with what the other one writes.
    """
    folder, mine = job_folder(), os.environ.get(ATTEMPT_VARIABLE)
    path = folder / ATTEMPT_FILE if folder is not None else None
    if mine is None or path is None or not path.exists():
        return
    newest = read_json(path)["attempt"]
    if newest != mine:
        raise UserError(
            f"attempt {mine} was given up, attempt {newest} has taken over; nothing more is written"
        )


def report_progress(step: int, total_steps: int, **figures: Any) -> None:
    """Write step, total and figures (loss, rate, seconds_left, ...) to this job's progress.json."""
    folder = job_folder()
    if folder is not None:
        write_json(
            folder / "progress.json",
            {"step": step, "total_steps": total_steps, "time": time.time(), **figures},
        )

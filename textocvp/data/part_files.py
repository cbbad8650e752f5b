"""HDF5 stores in part files of at most 64 videos: written whole or not at all, opened lazily by each process.

A store's folder of one split holds part_0000.h5, part_0000.json, part_0001.h5, ... The JSON files are the
manifests: the store's key, the number of parts, the file's bytes and hashes, and what the part holds. The
index of a store is a function of its manifests; a part without manifest does not exist.
"""

import contextlib
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Sequence, Tuple

import h5py
import numpy as np

from textocvp.files import (
    UserError,
    atomic_path,
    full_disk_reason,
    provenance,
    read_json,
    sha256_file,
    write_json,
)

PART_VIDEOS = 64
SCHEMA = 1
NEEDED = {"part", "num_parts", "key", "content", "file", "bytes"}
"""What every manifest has."""
MAX_OPEN_FILES = 128
MAX_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """One part of a split: which of its videos are in which file."""

    index: int
    num_parts: int
    rows: Sequence[int]
    """Positions in the split's list of videos."""

    @property
    def name(self) -> str:
        """File name without suffix."""
        return f"part_{self.index:04d}"


def plan_parts(num_videos: int) -> List[Part]:
    """Split `num_videos` videos, in order, into parts of at most PART_VIDEOS."""
    rows, starts = range(num_videos), range(0, num_videos, PART_VIDEOS)
    return [Part(i, len(starts), rows[start : start + PART_VIDEOS]) for i, start in enumerate(starts)]


def write_part(
    folder: Path,
    part: Part,
    key: Mapping[str, Any],
    content: Any,
    fill: Callable[[h5py.File], Any],
    config: Mapping[str, Any],
) -> None:
    """Write one part and its manifest; a kill at any moment leaves either both or nothing that counts.

    Args:
        key: what the part is made from; readers refuse another one.
        content: JSON value for the manifest, what the part contains.
        fill: writes the datasets into the open file; what it returns (dict or None) is added to the manifest.
        config: the resolved config, kept in the file next to the code revision and versions.
    """
    path = Path(folder) / f"{part.name}.h5"
    with atomic_path(path) as temporary:
        # no chunk waits for a dataset's end: where that fails HDF5 crashes the process at its exit
        with h5py.File(temporary, "w", rdcc_nbytes=0) as file, _notice_a_full_disk(file):
            more = fill(file) or {}
            for name, value in {**key, "config": config, "provenance": provenance()}.items():
                file.attrs[name] = value if isinstance(value, (str, int, float)) else json.dumps(value)
            file.flush()
        content_sha256 = _read_back(temporary)
    manifest = {"schema": SCHEMA, "part": part.index, "num_parts": part.num_parts, "key": dict(key)}
    manifest.update(content=content, **more, file=path.name, bytes=path.stat().st_size)
    manifest.update(sha256=sha256_file(path), content_sha256=content_sha256)
    write_json(path.with_suffix(".json"), manifest)


@contextlib.contextmanager
def _notice_a_full_disk(file: h5py.File) -> Iterator[None]:
    """Raise if something written to `file` inside did not reach the disk; h5py alone would only print that.

    HDF5 writes when it closes something; h5py then prints the error instead of raising it, once for each
    thing that is still open, and goes on trying until the process ends. So the first such error is raised
    at the end, and what is left of the file goes into memory.
    """
    lost: List[BaseException] = []
    hooks = sys.excepthook, sys.unraisablehook

    def is_lost(error: Any) -> bool:  # noqa: ANN401
        found = error is not None and full_disk_reason(error) is not None
        lost.extend([error] * found)
        return found

    sys.excepthook = lambda *failure: None if is_lost(failure[1]) else hooks[0](*failure)
    sys.unraisablehook = lambda failure: None if is_lost(failure.exc_value) else hooks[1](failure)
    try:
        yield
        if lost:
            raise lost[0]
    except BaseException as error:
        if lost or full_disk_reason(error):
            memory = os.memfd_create("lost")
            os.dup2(memory, file.id.get_vfd_handle())
            os.close(memory)
        raise
    finally:
        sys.excepthook, sys.unraisablehook = hooks


def _read_back(path: Path) -> str:
    """Read every row once: HDF5 compares each chunk with its checksum (OSError if they differ).

    Returns:
        SHA-256 of the rows of all datasets, which, unlike the file's, does not depend on code or versions.
    """
    digest = hashlib.sha256()
    with h5py.File(path, "r", locking=False) as file:
        for name in sorted(file):
            digest.update(f"{name} {file[name].shape}".encode())
            for row in file[name]:
                digest.update(row if isinstance(row, bytes) else np.ascontiguousarray(row).tobytes())
    return digest.hexdigest()


def create_rows(
    file: h5py.File, name: str, shape: Sequence[int], dtype: str, growing: bool = False
) -> h5py.Dataset:
    """A checksummed dataset (rows, T, ...) whose chunks hold one row, or as much of its T as fits in 1 MiB.

    With `growing`, T can be enlarged later.
    """
    step_bytes = int(np.prod(shape[2:], dtype=np.int64)) * np.dtype(dtype).itemsize
    steps = max(1, min(shape[1], MAX_CHUNK_BYTES // step_bytes))
    longest = (shape[0], None if growing else shape[1], *shape[2:])
    chunks = (1, steps, *shape[2:])
    return file.create_dataset(
        name, shape=tuple(shape), dtype=dtype, chunks=chunks, maxshape=longest, fletcher32=True
    )


def is_finished(folder: Path, part: Part, key: Mapping[str, Any]) -> bool:
    """Whether the part exists, whole (by size); UserError if it has another key: nothing is overwritten."""
    path = Path(folder) / f"{part.name}.json"
    if not path.is_file():
        return False
    manifest, data = _read_manifest(path), path.with_suffix(".h5")
    check_key(path, manifest["key"], key)
    whole = data.is_file() and data.stat().st_size == manifest["bytes"]
    return whole and manifest["num_parts"] == part.num_parts


def check_key(where: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """UserError that names each field in which a store's key differs from the expected one."""
    differences = [
        f"{name} is {_short(found.get(name))}, not {_short(expected.get(name))}"
        for name in {**found, **expected}
        if found.get(name) != expected.get(name)
    ]
    if differences:
        raise UserError(
            f"{where}: created from different data or settings ({'; '.join(differences)}); "
            f"move {where.parent} aside and create it again"
        )


def _short(value: Any) -> str:  # noqa: ANN401
    text = value if isinstance(value, str) else json.dumps(value)
    return f"{text[:12]}..." if len(text) == 64 else text  # a hash


def _read_manifest(path: Path) -> Dict[str, Any]:
    again = "delete it and run the command that created it again"
    try:
        manifest = read_json(path)
    except UserError as error:
        raise UserError(f"{error}; {again}") from None
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise UserError(f"{path}: expected a manifest of schema {SCHEMA}; written by another version?")
    if not manifest.keys() >= NEEDED or not isinstance(manifest["key"], dict):
        raise UserError(f"{path}: damaged manifest; {again}")
    return manifest


def read_manifests(folder: Path, key: Mapping[str, Any], command: str) -> List[Dict[str, Any]]:
    """The manifests of a complete split in the order of its parts.

    Args:
        key: the key, or the fields of it, that the store must have.
        command: the command that creates the store, for messages.

    Raises:
        UserError: parts are missing or cut off, or have another key.
    """
    read = [(path, _read_manifest(path)) for path in Path(folder).glob("part_*.json")]
    if not read:
        raise UserError(f"{folder}: contains no store; run {command}")
    read.sort(key=lambda pair: pair[1]["part"])
    manifests = [manifest for _, manifest in read]
    for path, manifest in read:
        check_key(path, {name: manifest["key"].get(name) for name in key}, key)
        check_key(path, manifest["key"], manifests[0]["key"])
    expected, found = set(range(manifests[0]["num_parts"])), {manifest["part"] for manifest in manifests}
    if expected != found:
        has = f"has {len(expected & found)} of {len(expected)} parts"
        missing = ", ".join(f"part_{index:04d}" for index in sorted(expected ^ found)[:5])
        raise UserError(f"{folder}: {has} (see {missing}); run {command} again, it continues")
    for manifest in manifests:
        path = Path(folder) / manifest["file"]
        size = path.stat().st_size if path.is_file() else None
        if size != manifest["bytes"]:
            has = "no such file" if size is None else f"has {size} bytes"
            raise UserError(f"{path}: {has}, expected {manifest['bytes']} bytes; run {command} again")
    return manifests


class PartReader:
    """Open files of one split, opened on first use and by each process for itself."""

    def __init__(self, folder: Path, command: str) -> None:
        self.folder, self.command = Path(folder), command
        self._files: Dict[str, h5py.File] = {}
        self._datasets: Dict[Tuple[str, str], h5py.Dataset] = {}
        self._pid = os.getpid()

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_files": {}, "_datasets": {}}

    def read(self, name: str, dataset: str, selection: Any) -> np.ndarray:  # noqa: ANN401
        """`file[dataset][selection]` of the part's file `name`; UserError that names a damaged file."""
        try:
            return self._open(name, dataset)[selection]
        except (OSError, KeyError, RuntimeError) as error:
            path = self.folder / name
            raise UserError(f"{path}: damaged ({error}); delete it and run {self.command} again") from None

    def _open(self, name: str, dataset: str) -> h5py.Dataset:
        if self._pid != os.getpid():  # a fork: the parent's handles must not be used here
            self._files, self._datasets, self._pid = {}, {}, os.getpid()
        if (name, dataset) not in self._datasets:
            if name not in self._files:
                if len(self._files) >= MAX_OPEN_FILES:
                    oldest = next(iter(self._files))
                    self._datasets = {key: data for key, data in self._datasets.items() if key[0] != oldest}
                    self._files.pop(oldest).close()
                # rows are read in random order: caching chunks only costs memory
                self._files[name] = h5py.File(self.folder / name, "r", locking=False, rdcc_nbytes=0)
            self._datasets[name, dataset] = self._files[name][dataset]
        return self._datasets[name, dataset]

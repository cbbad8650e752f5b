"""What a run leaves on disk: hashes, atomic writes, manifests, progress. Standard library only.

Whatever is written here appears under its name whole or not at all: it is written beside it under a
temporary name, flushed to disk and renamed.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

from launch.state.task import ANY, Edge, Task, TaskId
from textocvp.config.errors import UserError
from textocvp.config.schema import build, difference, to_dict
from textocvp.files import read_json, sha256_file, sha256_json, write_json

SCHEMA = 1
FORGET = "remove the file, then its task counts as not done and runs again"


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


def job_folder(root: Path, stage: str, index: int) -> Path:
    """The folder of one task's records."""
    return Path(root) / "jobs" / stage / str(index)


class Records:
    """Tasks and manifests of one experiment, each read once: make a new one to see what changed since."""

    def __init__(self, root: Path, planned: Iterable[Task] = ()) -> None:
        """`planned` tasks stand for what was submitted before under the same index."""
        self.root = Path(root)
        self._tasks: Dict[TaskId, Optional[Task]] = {task.id: task for task in planned}
        self._manifests: Dict[TaskId, Optional[Manifest]] = {}
        self._upstream: Dict[Tuple[Edge, ...], Dict[str, str]] = {}
        self._matching: Dict[Tuple[Tuple[Edge, ...], str], Dict[str, str]] = {}

    def task(self, task_id: TaskId) -> Optional[Task]:
        """The task as it is planned, or as it was submitted, or None."""
        if task_id not in self._tasks:
            self._tasks[task_id] = read_task(self.root, *task_id)
        return self._tasks[task_id]

    def manifest(self, task_id: TaskId) -> Optional[Manifest]:
        """The manifest of the task's last success, or None."""
        if task_id not in self._manifests:
            path = job_folder(self.root, *task_id) / "manifest.json"
            self._manifests[task_id] = Manifest.read(path) if path.is_file() else None
        return self._manifests[task_id]

    def upstream_outputs(self, task: Task, pattern: str) -> Dict[str, str]:
        """Path -> SHA-256 of the outputs of a task's direct and indirect upstream that match a pattern.

        The hundreds of tasks of one stage mostly have the same edges and patterns.
        """
        key = (task.after, pattern)
        if key not in self._matching:
            if task.after not in self._upstream:
                self._upstream[task.after] = self._outputs_before(task.after)
            listed = self._upstream[task.after]
            self._matching[key] = {
                name: digest for name, digest in listed.items() if fnmatchcase(name, pattern)
            }
        return self._matching[key]

    def _outputs_before(self, edges: Tuple[Edge, ...]) -> Dict[str, str]:
        listed: Dict[str, str] = {}
        waiting, seen = [edge.id for edge in edges], set()
        while waiting:
            task_id = waiting.pop()
            upstream = self.task(task_id)
            if task_id in seen or upstream is None:
                continue
            seen.add(task_id)
            manifest = self.manifest(task_id)
            listed.update(
                {path: entry["sha256"] for path, entry in (manifest.outputs if manifest else {}).items()}
            )
            waiting += [edge.id for edge in upstream.after]
        return listed


def write_task(root: Path, task: Task) -> Path:
    """Record what a task is when it is submitted; returns the file that a job is started with."""
    path = job_folder(root, task.stage, task.index) / "task.json"
    write_json(path, to_dict(task))
    return path


def read_task(root: Path, stage: str, index: int) -> Optional[Task]:
    """The task as it was last submitted, or None."""
    path = job_folder(root, stage, index) / "task.json"
    return build(Task, read_json(path), str(path)) if path.is_file() else None


def write_manifest(
    root: Path, task: Task, inputs: Dict[str, str], seconds: float, about: Dict[str, Any]
) -> None:
    """Record a success; UserError where the task did not write what it should have."""
    outputs = describe_outputs(root, output_files(root, task))
    absent = [name for name in task.outputs if "*" not in name and name not in outputs]
    if absent:
        raise UserError(f"{task.name} ended without an error, but did not write {', '.join(absent)}")
    manifest = Manifest(
        stage=task.stage,
        task=task.index,
        key=task_key(task, inputs),
        config_sha256=config_sha256(task),
        inputs=inputs,
        outputs=outputs,
        revision=about["revision"],
        image=about["image"],
        versions=about["versions"],
        seconds=seconds,
    )
    manifest.write(job_folder(root, task.stage, task.index) / "manifest.json")


def output_files(root: Path, task: Task) -> List[Path]:
    """The files that match the task's outputs, of those its share."""
    files = {path for pattern in task.outputs for path in Path(root).glob(pattern) if path.is_file()}
    share, of = task.share
    return sorted(path for path in files if of == 1 or _number(path) % of == share)


def _number(path: Path) -> int:
    return int(re.findall(r"\d+", path.stem)[-1])


def config_sha256(task: Task) -> str:
    """Hash of the declared config fields and the stage's version."""
    return sha256_json({"version": task.version, "config": task.config})


def task_key(task: Task, inputs: Dict[str, str]) -> str:
    """Equal keys mean equal outputs; where the experiment lies, or how its job ran, is no part of it."""
    return sha256_json({"stage": task.stage, "config": config_sha256(task), "inputs": inputs})


def set_aside(root: Path, task: Task) -> Path:
    """Move outputs that were made under another key into a folder of old ones; returns that folder."""
    root, folder = Path(root), job_folder(root, *task.id)
    manifest = Records(root).manifest(task.id)
    names = set(task.leftovers) | {path.relative_to(root).as_posix() for path in output_files(root, task)}
    names |= set(manifest.outputs) if manifest else set()
    aside = folder / "aside" / f"{len(list(folder.glob('aside/*'))) + 1:03d}"
    aside.mkdir(parents=True)
    for name in sorted(names):  # a folder comes before what lies in it, which then moves with it
        if (root / name).exists():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).rename(aside / name)
    for name in ("manifest.json", "progress.json"):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    return aside


DONE = "done"
MISSING = "missing"
CHANGED = "changed"


class InputError(UserError):
    """A task's inputs are absent, damaged or made from something else than what lies there now."""


@dataclass(frozen=True)
class Standing:
    """Where a task stands, judged by the files alone."""

    state: str
    """done; missing: to be run; changed: outputs of another config or of other inputs lie there."""
    reasons: Tuple[str, ...] = ()
    """Why it is not done; for `changed` the difference."""


def input_hashes(records: Records, task: Task) -> Dict[str, str]:
    """Path -> SHA-256 of everything that decides the task's outputs; InputError where one is absent."""
    hashes: Dict[str, str] = {}
    for pattern in task.inputs:
        matching = records.upstream_outputs(task, pattern)
        if not matching and "*" not in pattern:
            path = records.root / pattern
            if not path.is_file():
                raise InputError(f"{task.name} needs {path}, which does not exist")
            # a file of another folder counts by its name and content: no path enters a hash
            matching = {path.name if Path(pattern).is_absolute() else pattern: sha256_file(path)}
        hashes.update(matching)
    return hashes


def check_upstream(records: Records, task: Task, seen: Optional[Set[TaskId]] = None) -> None:
    """InputError unless every upstream task is done, its outputs whole and made from what lies there now.

    Slurm may drop or ignore a dependency; this check is what keeps a task from reading half an output.
    What has only to have ended (`any`) may be missing.
    """
    seen = set() if seen is None else seen
    for edge in task.after:
        if edge.mode == ANY or edge.id in seen:
            continue
        seen.add(edge.id)
        upstream = records.task(edge.id)
        if upstream is None:
            raise InputError(f"{task.name} needs {edge.id}, which was never run")
        check_upstream(records, upstream, seen)
        standing = stand(records, upstream)
        if standing.state != DONE:
            why = "; ".join(standing.reasons)
            raise InputError(f"{task.name} needs {upstream.name}, which is not done: {why}")


def stand(records: Records, task: Task, settled: bool = True) -> Standing:
    """Where a task stands, given that everything upstream of it is as it should be.

    Args:
        settled: everything upstream is done; otherwise inputs are not judged, they may still change.
    """
    manifest = records.manifest(task.id)
    if manifest is None:
        return _never_done(records.root, task)
    if manifest.config_sha256 != config_sha256(task):
        return Standing(CHANGED, tuple(_config_difference(records.root, task)))
    damage = manifest.damaged_outputs(records.root)
    if damage:
        return Standing(MISSING, tuple(damage))
    if not settled:
        return Standing(DONE)
    try:
        inputs = input_hashes(records, task)
    except InputError as error:
        return Standing(MISSING, (str(error),))
    if manifest.key != task_key(task, inputs):
        names = [change.path for change in difference(manifest.inputs, inputs)]
        more = " ..." if len(names) > 3 else ""
        return Standing(CHANGED, (f"made from another {', '.join(names[:3]) or 'stage'}{more}",))
    return Standing(DONE)


def _never_done(root: Path, task: Task) -> Standing:
    before = read_task(root, *task.id)
    begun = bool(output_files(root, task)) or any((root / name).exists() for name in task.leftovers)
    if before is not None and begun and config_sha256(before) != config_sha256(task):
        return Standing(CHANGED, tuple(_config_difference(root, task)))
    return Standing(MISSING, ("it has not finished yet" if begun else "it has not run yet",))


def _config_difference(root: Path, task: Task) -> List[str]:
    before = read_task(root, *task.id)
    if before is None:
        return ["made with another config"]
    if before.version != task.version:
        return [f"the stage's version: {before.version} -> {task.version}"]
    return [str(change) for change in difference(before.config, task.config)] or ["made with another config"]


def refusal(task: Task, standing: Standing) -> str:
    """Why a task may not run over outputs that were made under another key."""
    return (
        f"{task.name} has outputs of another config or other inputs ({'; '.join(standing.reasons)}), "
        "which are neither resumed nor overwritten; --rerun (RERUN=1) moves them aside"
    )

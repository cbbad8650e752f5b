"""Records of what finished tasks read and wrote; whether a task is done follows from files alone.

EXP/jobs/STAGE/TASK/manifest.json   written when the task has succeeded
"""

import re
from dataclasses import asdict, dataclass, field
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Set, Tuple

from launch.state.task import ANY, Edge, Task, TaskId, job_folder, read_task
from textocvp.config.schema import Change, difference
from textocvp.files import UserError, read_json, sha256_file, sha256_json, write_json

SCHEMA = 1
DELETE = "delete the file, and its task will run again"


class Why(Enum):
    """Reasons why a task is not done; {}: the details."""

    NEVER_RAN = "it has not run yet"
    NOT_FINISHED = "it has not finished yet"
    OUTPUT = "{}"
    """Missing or damaged."""
    INPUT = "{}"
    """Missing."""
    CONFIG = "created with another config: {}"
    INPUTS = "created from different inputs: {}"


@dataclass(frozen=True)
class Reason:
    """Why a task is not done."""

    why: Why
    details: Tuple[object, ...] = ()
    """Texts, paths or, for CONFIG, each Change."""

    def __str__(self) -> str:
        shown = [*map(str, self.details[:3]), *(["..."] if len(self.details) > 3 else [])]
        return self.why.value.format("; ".join(shown))

    @property
    def changed(self) -> bool:
        """Whether outputs exist, but from another config or other inputs."""
        return self.why in (Why.CONFIG, Why.INPUTS)


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
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest; UserError if the file is absent, damaged or of another schema."""
        try:
            values = read_json(path)
        except UserError as error:
            raise UserError(f"{error}; {DELETE}") from None
        found = values.get("schema") if isinstance(values, dict) else None
        if found != SCHEMA:
            raise UserError(f"{path}: expected a manifest of schema {SCHEMA}, got {found}; {DELETE}")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"{path}: damaged manifest ({error}); {DELETE}") from None

    def damaged_outputs(self, root: Path, rehash: bool = False) -> List[Reason]:
        """Outputs that are absent or differ in size (with `rehash`: or content)."""
        reasons = []
        for name, expected in self.outputs.items():
            path, problem = Path(root) / name, ""
            if not path.is_file():
                problem = "missing"
            elif path.stat().st_size != expected["bytes"]:
                problem = f"expected {expected['bytes']} bytes, got {path.stat().st_size}"
            elif rehash and sha256_file(path) != expected["sha256"]:
                problem = "content differs from the manifest's hash"
            reasons += [Reason(Why.OUTPUT, (f"{path}: {problem}",))] if problem else []
        return reasons


def describe_outputs(root: Path, paths: Iterable[Path]) -> Dict[str, Dict[str, Any]]:
    """The `outputs` of a manifest for files below `root`."""
    return {
        path.relative_to(root).as_posix(): {"sha256": sha256_file(path), "bytes": path.stat().st_size}
        for path in sorted(paths)
    }


class Records:
    """Tasks and manifests of one experiment, each read once; create a new instance to see later changes."""

    def __init__(self, root: Path, planned: Iterable[Task] = ()) -> None:
        """`planned` tasks replace those submitted earlier under the same index."""
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

        Cached, because the tasks of a stage mostly have the same edges and patterns.
        """
        key = (task.after, pattern)
        if key not in self._matching:
            if task.after not in self._upstream:
                self._upstream[task.after] = self._outputs_before(task.after)
            listed = self._upstream[task.after].items()
            self._matching[key] = {name: digest for name, digest in listed if fnmatchcase(name, pattern)}
        return self._matching[key]

    def _outputs_before(self, edges: Tuple[Edge, ...]) -> Dict[str, str]:
        listed: Dict[str, str] = {}
        waiting, seen = [edge.id for edge in edges], set()
        while waiting:
            task_id = waiting.pop()
            upstream, manifest = self.task(task_id), self.manifest(task_id)
            if task_id in seen or upstream is None:
                continue
            seen.add(task_id)
            listed.update(
                {path: out["sha256"] for path, out in (manifest.outputs if manifest else {}).items()}
            )
            waiting += [edge.id for edge in upstream.after]
        return listed


def write_manifest(
    root: Path, task: Task, inputs: Dict[str, str], seconds: float, about: Dict[str, Any]
) -> None:
    """Record a success; UserError if an expected output does not exist."""
    outputs = describe_outputs(root, output_files(root, task))
    absent = [name for name in task.outputs if "*" not in name and name not in outputs]
    if absent:
        raise UserError(f"{task.name} exited without an error, but did not write {', '.join(absent)}")
    made = {name: about[name] for name in ("revision", "image", "versions")}
    key, config = task_key(task, inputs), config_sha256(task)
    manifest = Manifest(*task.id, key, config, inputs, outputs, **made, seconds=seconds)
    manifest.write(job_folder(root, *task.id) / "manifest.json")


def output_files(root: Path, task: Task) -> List[Path]:
    """The task's share of the files that match its outputs."""
    files = {path for pattern in task.outputs for path in Path(root).glob(pattern) if path.is_file()}
    share, of = task.share
    return sorted(path for path in files if of == 1 or int(re.findall(r"\d+", path.stem)[-1]) % of == share)


def config_sha256(task: Task) -> str:
    """Hash of the declared config fields and the stage's version."""
    return sha256_json({"version": task.version, "config": task.config})


def task_key(task: Task, inputs: Dict[str, str]) -> str:
    """Equal keys mean equal outputs; the experiment's path and the job's resources are not part of it."""
    return sha256_json({"stage": task.stage, "config": config_sha256(task), "inputs": inputs})


def set_aside(root: Path, task: Task) -> Path:
    """Move outputs of another key into a folder of old ones; returns that folder."""
    root, folder = Path(root), job_folder(root, *task.id)
    manifest = Records(root).manifest(task.id)
    names = set(task.leftovers) | {path.relative_to(root).as_posix() for path in output_files(root, task)}
    names |= set(manifest.outputs) if manifest else set()
    aside = folder / "aside" / f"{len(list(folder.glob('aside/*'))) + 1:03d}"
    aside.mkdir(parents=True)
    for name in sorted(names):  # a folder is listed before its content, which moves with it
        if (root / name).exists():
            (aside / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).rename(aside / name)
    for name in ("manifest.json", "progress.json"):
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    return aside


class InputError(UserError):
    """A task's inputs are absent, damaged or out of date."""


def input_hashes(records: Records, task: Task) -> Dict[str, str]:
    """Path -> SHA-256 of every file that affects the task's outputs; InputError if one is absent."""
    hashes: Dict[str, str] = {}
    for pattern in task.inputs:
        matching = records.upstream_outputs(task, pattern)
        if not matching and "*" not in pattern:
            path = records.root / pattern
            if not path.is_file():
                raise InputError(f"{task.name} needs {path}, which does not exist")
            # a file outside the experiment is hashed by name and content, not by path
            matching = {path.name if Path(pattern).is_absolute() else pattern: sha256_file(path)}
        hashes.update(matching)
    return hashes


def check_upstream(records: Records, task: Task, seen: Optional[Set[TaskId]] = None) -> None:
    """InputError unless every upstream task is done, with complete outputs that are up to date.

    Slurm may drop or ignore a dependency; this check keeps a task from reading partial outputs.
    Outputs of `any` edges may be missing.
    """
    seen = set() if seen is None else seen
    for edge in task.after:
        if edge.mode == ANY or edge.id in seen:
            continue
        seen.add(edge.id)
        upstream = records.task(edge.id)
        if upstream is None:
            raise InputError(f"{task.name} needs {edge.id}, which was never submitted")
        check_upstream(records, upstream, seen)
        reasons = reasons_to_run(records, upstream)
        if reasons:
            why = "; ".join(map(str, reasons))
            raise InputError(f"{task.name} needs {upstream.name}, which is not done: {why}")


def reasons_to_run(records: Records, task: Task, settled: bool = True) -> Tuple[Reason, ...]:
    """Why a task is not done, assuming that all upstream tasks are; () if it is done.

    Args:
        settled: all upstream tasks are done; otherwise inputs may still change and are not compared.
    """
    manifest, root = records.manifest(task.id), records.root
    if manifest is None:
        before = read_task(root, *task.id)
        begun = bool(output_files(root, task)) or any((root / name).exists() for name in task.leftovers)
        if before is not None and begun and config_sha256(before) != config_sha256(task):
            return (_other_config(before, task),)
        return (Reason(Why.NOT_FINISHED if begun else Why.NEVER_RAN),)
    if manifest.config_sha256 != config_sha256(task):
        return (_other_config(read_task(root, *task.id), task),)
    damaged = manifest.damaged_outputs(root)
    if damaged or not settled:
        return tuple(damaged)
    try:
        inputs = input_hashes(records, task)
    except InputError as error:
        return (Reason(Why.INPUT, (error,)),)
    if manifest.key != task_key(task, inputs):
        names = tuple(change.path for change in difference(manifest.inputs, inputs))
        return (Reason(Why.INPUTS, names or ("stage",)),)
    return ()


def _other_config(before: Optional[Task], task: Task) -> Reason:
    if before is None:
        return Reason(Why.CONFIG, ("it is not recorded",))
    if before.version != task.version:
        return Reason(Why.CONFIG, (Change("version of the stage", before.version, task.version),))
    return Reason(Why.CONFIG, tuple(difference(before.config, task.config)))


def refusal(task: Task, reasons: Iterable[Reason]) -> str:
    """The error for a task that must not overwrite outputs of another key."""
    return (
        f"{task.name} already has outputs, {'; '.join(map(str, reasons))}; they are not overwritten; "
        "use --rerun (RERUN=1) to move them aside"
    )

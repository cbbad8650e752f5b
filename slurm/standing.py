"""Manifests are the only truth: is a task done, may it start? The same answers in plan and job.

A task's key is the hash of its stage's version, its declared config fields and its inputs' hashes. Inputs are
files that an upstream task's manifest lists, or that simply lie in the experiment's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple

from slurm.records import Records, TaskId, config_sha256, output_files, read_task, task_key
from slurm.task import ANY, Task
from textocvp.artifacts import sha256_file
from textocvp.config.errors import UserError
from textocvp.config.overrides import difference

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
    listed = records.upstream_outputs(task)
    hashes = {}
    for pattern in task.inputs:
        matching = {path: digest for path, digest in listed.items() if fnmatchcase(path, pattern)}
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
            raise InputError(f"{task.name} needs {edge.stage}[{edge.index}], which was never run")
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
        names = [change.split(": ")[0] for change in difference(manifest.inputs, inputs)]
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
    return difference(before.config, task.config) or ["made with another config"]


def refusal(task: Task, standing: Standing) -> str:
    """Why a task may not run over outputs that were made under another key."""
    return (
        f"{task.name} has outputs of another config or other inputs ({'; '.join(standing.reasons)}), "
        "which are neither resumed nor overwritten; --rerun (RERUN=1) moves them aside"
    )

"""What lies under EXP/jobs/STAGE/TASK: the task as it was submitted, its manifest, its old outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Iterable, List, Optional, Tuple

from slurm.task import Task
from textocvp.artifacts import Manifest, describe_outputs, read_json, sha256_json, write_json
from textocvp.config.errors import UserError
from textocvp.config.schema import build, to_dict

TaskId = Tuple[str, int]


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

    def upstream_outputs(self, task: Task) -> Dict[str, str]:
        """Path -> SHA-256 of everything that the manifests of a task's direct and indirect upstream list."""
        listed: Dict[str, str] = {}
        waiting, seen = [edge.id for edge in task.after], set()
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

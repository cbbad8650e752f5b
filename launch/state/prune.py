"""`make prune`: frees what an experiment's folder holds that is never needed again.

    EXP/.../resume                        of trainings that are done
    EXP/.../models/checkpoint_epoch_N.pth of trainings that are done; the final checkpoint stays
    EXP/jobs/STAGE/TASK/aside             outputs moved aside by --rerun
    EXP/jobs/snapshots/HASH               code of no queued or running job
    EXP/jobs/STAGE/logs/*.pkl             submitit's files of jobs that have ended
    .*.tmp                                left behind by processes that were killed at least a day ago

Files listed in a manifest and files of queued or running tasks are kept, and so are unknown ones.
"""

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, FrozenSet, Iterator, List, Optional, Sequence, Set, Tuple

from launch.state import ledger
from launch.state.manifest import Records, reasons_to_run
from launch.state.task import Task, TaskId, job_folder
from textocvp.config.experiment import FINAL
from textocvp.files import UserError, bytes_below, format_bytes
from textocvp.terminal import format_table

OLD_SECONDS = 24 * 3600
"""Minimum age of a temporary file (seconds)."""
SEVERAL = 4
"""Minimum number of files of one kind in one folder that are shown as one line."""
_ON_THE_WAY = re.compile(r"checkpoint_epoch_\d+\.pth")
_PICKLE = re.compile(r"(\d+)(?:_\d+)*_(?:submitted|result)\.pkl")


@dataclass(frozen=True)
class Alive:
    """The queued and running tasks and jobs of an experiment."""

    tasks: FrozenSet[TaskId] = frozenset()
    job_ids: FrozenSet[str] = frozenset()
    snapshots: Optional[FrozenSet[str]] = frozenset()
    """Names of the snapshots that its jobs use; None: unknown."""


@dataclass(frozen=True)
class Leftover:
    """A file or folder that is no longer needed."""

    path: Path
    bytes: int
    what: str

    def remove(self) -> None:
        """Remove it; UserError if permission is denied."""
        try:
            folder = self.path.is_dir() and not self.path.is_symlink()
            shutil.rmtree(self.path) if folder else self.path.unlink()
        except OSError as error:
            raise UserError(f"{error.filename or self.path}: cannot be removed: {error.strerror}") from None


def alive_by_ledger(root: Path) -> Alive:
    """From the ledger alone, without a scheduler: everything that has not ended counts."""
    ended = (ledger.FINISHED, ledger.FAILED, ledger.CANCELLED)
    last = {task: event for task, event in ledger.last_events(root).items() if event["event"] not in ended}
    job_ids = frozenset(str(event["job_id"]) for event in last.values())
    return Alive(frozenset(last), job_ids, None if last else frozenset())


def prune(root: Path, alive: Alive, dry: bool) -> List[str]:
    """Remove files that are no longer needed (with `dry`, only list them); returns the lines to print.

    Whoever calls holds the experiment's lock.
    """
    found = leftovers(root, alive)
    for leftover in () if dry else found:
        leftover.remove()
    if not found:
        return [f"{root}: nothing to prune"]
    rows = [
        (format_bytes(each.bytes).rjust(8), each.path.relative_to(root.resolve()).as_posix(), each.what)
        for each in _together(found)
    ]
    total = format_bytes(sum(each.bytes for each in found))
    end = "would be freed; nothing was removed" if dry else "freed"
    return [*format_table(("   bytes", "path", "what"), rows), f"{root}: {total} {end}"]


def _together(found: Sequence[Leftover]) -> Iterator[Leftover]:
    """The removed paths, with many small files of one kind in one folder grouped."""
    groups: Dict[Tuple[Path, str], List[Leftover]] = {}
    for each in found:
        groups.setdefault((each.path.parent, each.what), []).append(each)
    for (folder, what), group in groups.items():
        if len(group) < SEVERAL:
            yield from group
        else:
            yield Leftover(folder / f"{len(group)} files", sum(each.bytes for each in group), what)


def leftovers(root: Path, alive: Alive) -> List[Leftover]:
    """Absolute paths that can be removed, each once."""
    records = Records(Path(root).resolve())
    found: Dict[Path, Leftover] = {}
    needed = _needed(records, alive.tasks)
    for what, path in _candidates(records, alive):
        inside_another = {path, *path.parents} & (needed | set(found))
        if not inside_another and not any(path in each.parents for each in needed):
            found[path] = Leftover(path, bytes_below(path), what)
    return list(found.values())


def _recorded(root: Path, name: str) -> List[TaskId]:
    """The tasks whose folder contains the file `name`, task.json or manifest.json."""
    paths = sorted(root.glob(f"jobs/*/*/{name}"))
    return [TaskId(path.parts[-3], int(path.parts[-2])) for path in paths if path.parts[-2].isdigit()]


def _candidates(records: Records, alive: Alive) -> Iterator[Tuple[str, Path]]:
    root = records.root
    for task_id in _recorded(root, "manifest.json"):
        task = records.task(task_id)
        if task and task_id not in alive.tasks and not reasons_to_run(records, task):
            yield from _of_training(root, task)
    for path in sorted(root.glob("jobs/*/*/aside")):
        yield "moved aside", path
    for path in sorted(root.glob("jobs/snapshots/[!.]*")):
        if alive.snapshots is not None and path.name not in alive.snapshots:
            yield "unused code snapshot", path
    arrays = {job_id.split("_")[0] for job_id in alive.job_ids}
    for path in sorted(root.glob("jobs/*/logs/*.pkl")):
        job = _PICKLE.fullmatch(path.name)
        if job and job[1] not in arrays:
            yield "of an ended job", path
    for path in _temporary(root):
        if time.time() - _changed(path) > OLD_SECONDS:
            yield "never finished", path


def _of_training(root: Path, task: Task) -> Iterator[Tuple[str, Path]]:
    """The resume states and intermediate checkpoints of a finished training task."""
    for name in task.outputs:
        folder = (root / name).parent.parent
        resume = folder / "resume"
        if not name.endswith(f"models/{FINAL}") or resume.relative_to(root).as_posix() not in task.leftovers:
            continue
        if resume.is_dir():
            yield "states of a finished training", resume
        for path in sorted((folder / "models").glob("*.pth")):
            if _ON_THE_WAY.fullmatch(path.name):
                yield "intermediate checkpoint of a finished training", path


def _needed(records: Records, alive: FrozenSet[TaskId]) -> Set[Path]:
    """Every file that a manifest lists or a task reads, and every folder that tasks in `alive` write into."""
    names: Set[str] = set()
    for task_id in _recorded(records.root, "manifest.json"):
        manifest = records.manifest(task_id)
        names |= {*manifest.outputs, *manifest.inputs} if manifest else set()
    for task_id in {*_recorded(records.root, "task.json"), *alive}:
        task = records.task(task_id)
        names |= set(task.inputs) if task else set()
        if task_id in alive:
            names.add(job_folder(Path(), *task_id).as_posix())
            for name in (*task.leftovers, *task.outputs) if task else ():
                fixed = name.split("*")[0]  # "slots/*/part_*": all of slots
                names.add(fixed if fixed == name else fixed.rpartition("/")[0])
    paths = {records.root / name for name in names}  # an absolute name stays as it is
    return paths | {path.resolve() for path in paths}


def _temporary(root: Path) -> Iterator[Path]:
    """Files and folders with a temporary name."""
    for folder, names, files in os.walk(root):
        found = [name for name in (*names, *files) if name.startswith(".") and name.endswith(".tmp")]
        yield from (Path(folder) / name for name in sorted(found))
        names[:] = [name for name in names if name not in found]


def _changed(path: Path) -> float:
    """Time of the last change of a file, or of anything in a folder."""
    return max([path.lstat().st_mtime, *(inner.lstat().st_mtime for inner in path.rglob("*"))])

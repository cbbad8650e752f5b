"""A variant of an experiment: outputs that the changed values do not affect are reused."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Set, Tuple

import yaml

from launch.pipeline import INDICES, Pipeline, check_predictor, from_folder, shorten
from launch.recipe import RECIPE_FILE, write_experiment
from launch.stages import all_tasks
from launch.state.manifest import Records, config_sha256, output_files, reasons_to_run
from launch.state.task import Task, TaskId, job_folder, write_task
from textocvp.config.experiment import FILE_NAME, parse_experiment
from textocvp.config.schema import apply_overrides, read_yaml
from textocvp.files import UserError, write_json

SHARED_SECTIONS = ("dataset", "model", "suite")
"""Sections of a predictor's file that repeat its decomposition's."""
NOT_TAKEN = ("resume",)
"""Saved states: not needed by finished trainings; unfinished ones continue in their own folder."""


def fork(
    exp: Path, to: Path, overrides: Mapping[str, Any], predictor: Optional[str]
) -> Tuple[List[Task], int]:
    """Create the experiment `to` from `exp` with other values.

    Files of unchanged stages are hard links (copies on another file system): they need no space, and `to`
    stays complete when `exp` is deleted.

    Args:
        overrides: dotted path -> value, of the predictor's config where one is named, else of the
            decomposition's.
    Returns:
        the reused tasks, and the number of tasks left to run.
    Raises:
        UserError: `to` exists, there is no such predictor, or a value is wrong; nothing is written then.
    """
    base, to = from_folder(exp), shorten(to)
    if to.exists():
        raise UserError(f"{to}: already exists; choose another name")
    if predictor is not None:
        check_predictor(base, predictor)
    files = {folder: _changed(folder, values, overrides, predictor) for folder, values in base.files.items()}
    for folder, values in files.items():
        parse_experiment(values, str(to / folder / FILE_NAME))
    write_experiment(to, files)
    write_json(to / INDICES, base.indices)
    _write_recipe(base, to, overrides, predictor)
    tasks = all_tasks(from_folder(to))
    records = Records(base.root)
    taken = list(_unchanged_and_done(records, tasks))
    for task in taken:
        _take_over(records, to, task)
    return taken, len(tasks) - len(taken)


def _changed(
    folder: str, values: Mapping[str, Any], overrides: Mapping[str, Any], predictor: Optional[str]
) -> Dict[str, Any]:
    own = folder.split("/")[1] if folder.startswith("predictors/") else None
    if own == predictor:
        return apply_overrides(values, overrides)
    if own is None or predictor is not None:
        return dict(values)
    shared = {path: value for path, value in overrides.items() if path.split(".")[0] in SHARED_SECTIONS}
    return apply_overrides(values, shared)


def _write_recipe(base: Pipeline, to: Path, overrides: Mapping[str, Any], predictor: Optional[str]) -> None:
    path = base.root / RECIPE_FILE
    if not path.is_file():
        return
    recipe = dict(read_yaml(path), name=to.name)
    for entry in [recipe["decomposition"], *recipe.get("predictors", [])]:
        if entry.get("name") == predictor:
            entry["set"] = {**entry.get("set", {}), **overrides}
    comment = f"# {base.root.name} with {', '.join(f'{name}={value}' for name, value in overrides.items())}\n"
    (to / RECIPE_FILE).write_text(comment + yaml.safe_dump(recipe, sort_keys=False))


def _unchanged_and_done(records: Records, tasks: List[Task]) -> Iterator[Task]:
    """Tasks with the same config and inputs as in the experiment of `records`, and done there."""
    unchanged: Set[TaskId] = set()
    for task in tasks:
        before = records.task(task.id)
        if before is None or config_sha256(before) != config_sha256(task):
            continue
        if all(edge.id in unchanged for edge in task.after):
            unchanged.add(task.id)
            if not reasons_to_run(records, before):
                yield task


def _take_over(records: Records, to: Path, task: Task) -> None:
    root, manifest = records.root, records.manifest(task.id)
    folders = [root / name for name in task.leftovers if Path(name).name not in NOT_TAKEN]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(root).as_posix() for path in [*paths, *output_files(root, task)]}
    for name in sorted(names | set(manifest.outputs if manifest else ())):
        _link(root / name, to / name)
    write_task(to, replace(task, rerun=False))
    file = job_folder(Path(), *task.id) / "manifest.json"
    shutil.copyfile(root / file, to / file)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # of a task that was itself reused
        return
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP):
            raise
        shutil.copy2(source, target)

"""From a recipe to the experiment's folders: the values of each experiment_params.json, written once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from launch.recipe import RECIPE_FILE, Recipe
from textocvp.artifacts import read_json, write_json
from textocvp.config.errors import UserError
from textocvp.config.experiment import FILE_NAME, experiment_values, predictor_values
from textocvp.config.overrides import apply_overrides, difference
from textocvp.config.schema import to_dict

GENERATED_ROOT = "data"
"""dataset.root of an experiment that generates its data: looked up in the experiment's folder."""


def experiment_files(recipe: Recipe, data_root: Optional[str]) -> Dict[str, Dict[str, Any]]:
    """Folder below EXP ("" for EXP itself) -> the values of its experiment_params.json.

    Args:
        data_root: root of the data set at this site, or None: the data set's default.
    """
    decomposition, slots = recipe.decomposition, to_dict(recipe.slots)
    overrides = {
        f"suite.slots.{name}": slots[name] for name in ("mode", "stride", "draws") if slots[name] is not None
    }
    root = GENERATED_ROOT if recipe.data else data_root
    overrides.update({"dataset.root": root} if root else {})
    own = experiment_values(decomposition.model, decomposition.dataset, {**overrides, **decomposition.set})
    files = {"": own, **seed_files("", own, decomposition.seeds)}
    for predictor in recipe.predictors:
        folder = f"predictors/{predictor.name}"
        values = predictor_values(own, predictor.predictor, predictor.set)
        files.update({folder: values, **seed_files(folder, values, predictor.seeds)})
    return files


def seed_files(folder: str, values: Mapping[str, Any], seeds: Tuple[int, ...]) -> Dict[str, Dict[str, Any]]:
    """The experiment folders of several seeds: the same values, but for training.seed."""
    prefix = f"{folder}/" if folder else ""
    return {f"{prefix}seeds/{seed}": apply_overrides(values, {"training.seed": seed}) for seed in seeds}


def write_experiment(
    root: Path,
    files: Mapping[str, Mapping[str, Any]],
    recipe_path: Optional[Path] = None,
    replace: bool = False,
) -> None:
    """Create the experiment's folders, or find that they are there with the same values.

    Args:
        replace: other values take the place of those that are there.
    Raises:
        UserError: a folder has another config, which is not to be replaced; nothing is written then, the
            difference is shown.
    """
    existing = {folder: read_json(_file(root, folder)) for folder in files if _file(root, folder).is_file()}
    for folder, values in existing.items():
        changes = [line for line in difference(values, files[folder]) if not line.startswith("dataset.root:")]
        if changes and not replace:
            raise UserError(
                f"{_file(root, folder)} exists with another config ({'; '.join(changes)}); "
                "give the recipe another name, or --rerun (RERUN=1) for the new config"
            )
    for folder, values in files.items():
        if existing.get(folder) != values:
            write_json(_file(root, folder), dict(values))
    if recipe_path is not None:
        shutil.copyfile(recipe_path, Path(root) / RECIPE_FILE)


def _file(root: Path, folder: str) -> Path:
    return Path(root) / folder / FILE_NAME

"""experiments/recipes/NAME.yaml: a whole pipeline, resolved into experiment folders before any job."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from textocvp.config.data import EVAL_START
from textocvp.config.errors import ConfigError, UserError, nearest
from textocvp.config.experiment import (
    FILE_NAME,
    Experiment,
    check_fit,
    experiment_values,
    parse_experiment,
    predictor_values,
)
from textocvp.config.schema import (
    apply_overrides,
    build,
    difference,
    read_yaml,
    refuse_control_characters,
    to_dict,
)
from textocvp.config.synthetic import DEFAULTS as SYNTHETIC_DEFAULTS
from textocvp.config.synthetic import check_settings
from textocvp.config.training import CRITERIA
from textocvp.files import read_json, write_json

RECIPE_FILE = "recipe.yaml"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_name(name: str) -> None:
    """ValueError unless `name` can be a folder's name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"name: {name!r} is no folder's name; letters, digits, '_', '-' and '.' are allowed")


def check_seeds(seeds: Tuple[int, ...]) -> None:
    """ValueError unless the seeds are different numbers from 0 on."""
    if len(set(seeds)) < len(seeds) or any(seed < 0 for seed in seeds):
        raise ValueError(f"seeds: {list(seeds)} are not different numbers from 0 on")


@dataclass(frozen=True)
class DataRecipe:
    """What to generate: the options of `make-data`; null leaves one to its default."""

    dataset: str
    num_train: int = field(metadata={"min": 1})
    num_valid: int = field(metadata={"min": 0})
    num_test: int = field(metadata={"min": 1})
    size: Optional[int] = field(default=None, metadata={"min": 8})
    num_frames: Optional[int] = field(default=None, metadata={"min": 2})
    min_objects: Optional[int] = field(default=None, metadata={"min": 1})
    max_objects: Optional[int] = field(default=None, metadata={"min": 1})
    max_moving: Optional[int] = field(default=None, metadata={"min": 1})
    actions: Optional[Tuple[str, ...]] = None
    distinct_colors: Optional[bool] = None
    antialias: Optional[int] = field(default=None, metadata={"min": 1})
    object_scale: Optional[float] = None
    field_of_view: Optional[float] = None
    seed: Optional[int] = field(default=None, metadata={"min": 0})


@dataclass(frozen=True)
class WeightsRecipe:
    """A small frozen encoder with random values: the options of `make-weights`; null: its default."""

    kind: str = field(metadata={"choices": ("dinov2", "dino", "t5")})
    width: Optional[int] = field(default=None, metadata={"min": 1})
    depth: Optional[int] = field(default=None, metadata={"min": 1})
    num_heads: Optional[int] = field(default=None, metadata={"min": 1})
    patch_size: Optional[int] = field(default=None, metadata={"min": 1})
    seed: Optional[int] = field(default=None, metadata={"min": 0})


@dataclass(frozen=True)
class DecompositionRecipe:
    """The video decomposition model."""

    model: str
    """Registered name, for example SAVi."""
    dataset: str
    """Registered name, for example CATER_Hard."""
    seeds: Tuple[int, ...] = ()
    """Train once per seed and keep the best; none: one training, in the experiment's own folder."""
    select: Optional[str] = None
    """Criterion that ranks the seeds; null: the default of `select-decomp`."""
    set: Dict[str, Any] = field(default_factory=dict)
    """Dotted path -> value in experiment_params.json, for example training.lr: 0.001."""

    def __post_init__(self) -> None:
        """Raise ValueError for seeds that name the same folder."""
        check_seeds(self.seeds)


@dataclass(frozen=True)
class SlotsRecipe:
    """How slots reach the predictors; null leaves a value to its default."""

    mode: Optional[str] = field(default=None, metadata={"choices": ("store", "online")})
    stride: Optional[int] = field(default=None, metadata={"min": 1})
    draws: Optional[int] = field(default=None, metadata={"min": 1})
    shards: int = field(default=1, metadata={"min": 1})
    """Tasks that write the store side by side."""


@dataclass(frozen=True)
class PredictorRecipe:
    """One predictor experiment."""

    name: str
    """Its folder under predictors/."""
    predictor: str
    """Registered name, for example TextOCVP_CustomTF."""
    seeds: Tuple[int, ...] = ()
    """Train once per seed, in predictors/NAME/seeds/K; none: once, in predictors/NAME."""
    set: Dict[str, Any] = field(default_factory=dict)
    """Dotted path -> value in the predictor's experiment_params.json."""

    def __post_init__(self) -> None:
        """Raise ValueError for a name or seeds that cannot be folders."""
        check_name(self.name)
        check_seeds(self.seeds)


@dataclass(frozen=True)
class EvaluationRecipe:
    """Options of the evaluation; null leaves one to its default."""

    batch_size: Optional[int] = field(default=None, metadata={"min": 1})
    num_seed: Optional[int] = field(default=None, metadata={"min": 1})
    """Context frames."""
    num_preds: Optional[int] = field(default=None, metadata={"min": 1})
    """Predicted frames."""
    num_seqs: Optional[int] = field(default=None, metadata={"min": 1})
    """Sequences in the figures."""


@dataclass(frozen=True)
class Recipe:
    """A pipeline."""

    name: str
    """The experiment's folder."""
    decomposition: DecompositionRecipe
    predictors: Tuple[PredictorRecipe, ...] = ()
    data: Optional[DataRecipe] = None
    """Generate the data; null: it lies at the site (cluster config, paths.data) or at dataset.root."""
    weights: Dict[str, Any] = field(default_factory=dict)
    """Name -> WeightsRecipe: made in EXP/weights/NAME, for machines without pretrained weights."""
    slots: SlotsRecipe = SlotsRecipe()
    evaluation: EvaluationRecipe = EvaluationRecipe()
    checks: Dict[str, Any] = field(default_factory=dict)
    """Figures that `check-summary` asserts."""

    def __post_init__(self) -> None:
        """Raise ValueError for names that cannot be folders and for data of another data set."""
        check_name(self.name)
        for name in self.weights:
            check_name(name)
        names = [predictor.name for predictor in self.predictors]
        if len(set(names)) < len(names):
            raise ValueError(f"predictors: {names} are not different names")
        if self.data and self.data.dataset != self.decomposition.dataset:
            raise ValueError(
                f"data.dataset: {self.data.dataset!r} is not decomposition.dataset "
                f"{self.decomposition.dataset!r}"
            )


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe; ConfigError in one line where it is wrong."""
    values = read_yaml(Path(path))
    refuse_control_characters(values, str(path))
    recipe = build(Recipe, values, str(path))
    weights = {
        name: build(WeightsRecipe, section, str(path), f"weights.{name}")
        for name, section in recipe.weights.items()
    }
    return replace(recipe, weights=weights)


def check_recipe(recipe: Recipe, source: str, files: Mapping[str, Mapping[str, Any]]) -> None:
    """ConfigError, one line with the recipe's file, for what would fail in a job only.

    Args:
        files: from `experiment_files`.
    """
    decomposition, data = recipe.decomposition, recipe.data
    if decomposition.select is not None and decomposition.select not in CRITERIA:
        hint = nearest(decomposition.select, CRITERIA)
        raise ConfigError(f"{source}: decomposition.select: {decomposition.select!r} is no criterion{hint}")
    experiments = {folder: parse_experiment(values, source) for folder, values in files.items()}
    for folder, experiment in experiments.items():
        check_fit(experiment, f"{source}: {folder}" if folder else source)
    if data is None:
        return
    settings = {name: value for name, value in to_dict(data).items() if value is not None}
    try:
        made = check_settings(**{**SYNTHETIC_DEFAULTS, **settings})
    except UserError as error:
        raise ConfigError(f"{source}: data: {error}") from None
    for folder, experiment in experiments.items():
        _check_length(experiment, made.num_frames, f"{source}: {folder or 'decomposition'}")


def _check_length(experiment: Experiment, num_frames: int, source: str) -> None:
    """ConfigError where the generated videos are too short for the clips that are asked for."""
    start = EVAL_START.get(experiment.dataset.dataset_name, 0)
    if experiment.predictor is not None:
        needed, name = experiment.prediction_params.num_frames, "num_context + num_preds"
    else:
        stages = [stage.num_frames for stage in experiment.training.curriculum]
        needed, name = max([experiment.dataset.num_frames, *stages]), "clips"
    if start + needed > num_frames:
        raise ConfigError(
            f"{source}: {name} of {needed} frames from frame {start} do not fit into the "
            f"recipe's data.num_frames {num_frames}"
        )


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
        changes = [change for change in difference(values, files[folder]) if change.path != "dataset.root"]
        if changes and not replace:
            raise UserError(
                f"{_file(root, folder)} exists with another config ({'; '.join(map(str, changes))}); "
                "give the recipe another name, or --rerun (RERUN=1) for the new config"
            )
    for folder, values in files.items():
        if existing.get(folder) != values:
            write_json(_file(root, folder), dict(values))
    if recipe_path is not None:
        shutil.copyfile(recipe_path, Path(root) / RECIPE_FILE)


def _file(root: Path, folder: str) -> Path:
    return Path(root) / folder / FILE_NAME

"""experiments/recipes/NAME.yaml: a pipeline, resolved into experiment folders before any job is submitted."""

import re
import shutil
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from pydantic import NonNegativeInt, PositiveInt
from typing_extensions import Annotated

from textocvp.config.data import EvaluationConfig, SlotStoreConfig
from textocvp.config.experiment import FILE_NAME, experiment_values, predictor_values
from textocvp.config.registry import DATASETS, MODELS, PREDICTORS
from textocvp.config.schema import Settings, build, difference, given, read_yaml, refuse_control_characters
from textocvp.config.synthetic import VideoSettings, WeightsSettings
from textocvp.config.training import CRITERIA, Bounds
from textocvp.files import UserError, nearest, read_json, write_json

RECIPE_FILE = "recipe.yaml"
GENERATED_ROOT = "data"
"""dataset.root of an experiment that generates its data: a folder in the experiment."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def check_name(name: str, field: str) -> None:
    """ValueError unless `name` can be the name of a folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{field}: expected letters, digits, '_', '-' and '.', got {name!r}")


def check_seeds(seeds: Tuple[int, ...]) -> None:
    """ValueError unless the seeds are distinct, because folders are named after them."""
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds: expected distinct integers, got {list(seeds)}")


class DecompositionRecipe(Settings):
    """The video decomposition model."""

    model: Annotated[str, MODELS.name]
    """Registered name, for example SAVi."""
    dataset: Annotated[str, DATASETS.name]
    """Registered name, for example CATER_Hard."""
    seeds: Tuple[NonNegativeInt, ...] = ()
    """Train once per seed and keep the best; none: one training, in the experiment's own folder."""
    select: Optional[str] = None
    """Criterion that ranks the seeds; null: the default of `select-decomp`."""
    set: Dict[str, Any] = {}
    """Dotted path -> value in experiment_params.json, for example training.lr: 0.001."""

    def check(self) -> None:
        check_seeds(self.seeds)
        if self.select is not None and self.select not in CRITERIA:
            raise ValueError(f"select: unknown criterion {self.select!r}{nearest(self.select, CRITERIA)}")


class SlotsRecipe(SlotStoreConfig):
    """How predictors get their slots: suite.slots of the experiment, and how the store is written."""

    shards: PositiveInt = 1
    """Tasks that write the store in parallel."""


class PredictorRecipe(Settings):
    """One predictor experiment."""

    name: str
    """Its folder under predictors/."""
    predictor: Annotated[str, PREDICTORS.name]
    """Registered name, for example TextOCVP_CustomTF."""
    seeds: Tuple[NonNegativeInt, ...] = ()
    """Train once per seed, in predictors/NAME/seeds/K; none: once, in predictors/NAME."""
    set: Dict[str, Any] = {}
    """Dotted path -> value in the predictor's experiment_params.json."""

    def check(self) -> None:
        check_name(self.name, "name")
        check_seeds(self.seeds)

    @property
    def trainings(self) -> Tuple[str, ...]:
        """Folders below predictors/ in which it is trained: NAME, or NAME/seeds/K."""
        return tuple(f"{self.name}/seeds/{seed}" for seed in self.seeds) or (self.name,)


class Recipe(Settings):
    """A pipeline."""

    name: str
    """The experiment's folder."""
    decomposition: DecompositionRecipe
    predictors: Tuple[PredictorRecipe, ...] = ()
    data: Optional[VideoSettings] = None
    """Generate the data; null: use the site's data (cluster config, paths.data) or dataset.root."""
    weights: Dict[str, WeightsSettings] = {}
    """Name -> a frozen encoder to create in EXP/weights/NAME, when there are no pretrained weights."""
    slots: SlotsRecipe = SlotsRecipe()
    evaluation: EvaluationConfig = EvaluationConfig()
    checks: Dict[str, Bounds] = {}
    """Dotted path of a figure in summary.json -> its bounds, for `check-summary`."""

    def check(self) -> None:
        check_name(self.name, "name")
        for name in self.weights:
            check_name(name, f"weights.{name}")
        names = [predictor.name for predictor in self.predictors]
        if len(set(names)) < len(names):
            raise ValueError(f"predictors: expected distinct names, got {names}")
        if self.data and self.data.dataset != self.decomposition.dataset:
            raise ValueError(
                f"data.dataset: expected the same as decomposition.dataset, {self.decomposition.dataset!r}, "
                f"got {self.data.dataset!r}"
            )


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe; a one-line ConfigError if it is invalid."""
    values = read_yaml(Path(path))
    refuse_control_characters(values, str(path))
    return build(Recipe, values, str(path))


def experiment_files(recipe: Recipe, data_root: Optional[str]) -> Dict[str, Dict[str, Any]]:
    """Folder below EXP ("" for EXP itself) -> the values of its experiment_params.json.

    Args:
        data_root: root of the data set at this site, or None: the data set's default.
    """
    decomposition, slots = recipe.decomposition, given(recipe.slots)
    said = {f"suite.slots.{name}": value for name, value in slots.items() if name != "shards"}
    root = GENERATED_ROOT if recipe.data else data_root
    said.update({"dataset.root": root} if root else {})
    said.update(decomposition.set)
    own = experiment_values(decomposition.model, decomposition.dataset, said, "decomposition.set.")
    files = {"": own, **seed_files("", own, decomposition.seeds)}
    for i, predictor in enumerate(recipe.predictors):
        folder = f"predictors/{predictor.name}"
        values = predictor_values(own, predictor.predictor, predictor.set, f"predictors[{i}].set.")
        files.update({folder: values, **seed_files(folder, values, predictor.seeds)})
    return files


def kept_values(path: Path, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of an existing file that differs only in keys without effect, written by earlier
    revisions: they are part of its tasks' hashes."""
    existing = read_json(path) if path.is_file() else values
    return values if difference(existing, values) else existing


def seed_files(folder: str, values: Mapping[str, Any], seeds: Tuple[int, ...]) -> Dict[str, Dict[str, Any]]:
    """The experiment folders of several seeds: the same values except training.seed."""
    prefix = f"{folder}/" if folder else ""
    return {
        f"{prefix}seeds/{seed}": {**values, "training": {**values.get("training", {}), "seed": seed}}
        for seed in seeds
    }


def write_experiment(
    root: Path,
    files: Mapping[str, Mapping[str, Any]],
    recipe_path: Optional[Path] = None,
    replace: bool = False,
) -> None:
    """Create the experiment's folders, or check that they exist with the same values.

    Args:
        replace: overwrite different values.
    Raises:
        UserError: a folder has another config and `replace` is false; nothing is written, and the message
            shows the difference.
    """
    paths = {folder: Path(root) / folder / FILE_NAME for folder in files}
    existing = {folder: read_json(path) for folder, path in paths.items() if path.is_file()}
    for folder, values in existing.items():
        changes = [change for change in difference(values, files[folder]) if change.path != "dataset.root"]
        if changes and not replace:
            raise UserError(
                f"{paths[folder]} exists with another config ({'; '.join(map(str, changes))}); "
                "choose another name for the recipe, or use the new config with --rerun (RERUN=1)"
            )
    for folder, values in files.items():
        if existing.get(folder) != values:
            write_json(paths[folder], values)
    if recipe_path is not None:
        shutil.copyfile(recipe_path, Path(root) / RECIPE_FILE)

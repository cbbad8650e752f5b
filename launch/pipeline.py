"""What the stages of one experiment are planned from: its folders' values and a few numbers of its recipe."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

from launch.recipe import (
    RECIPE_FILE,
    DataRecipe,
    EvaluationRecipe,
    Recipe,
    WeightsRecipe,
    check_seeds,
    experiment_files,
    load_recipe,
    seed_files,
)
from textocvp.config.errors import UserError, nearest
from textocvp.config.experiment import FILE_NAME, parse_experiment
from textocvp.files import read_json

INDICES = "jobs/indices.json"


@dataclass(frozen=True)
class Pipeline:
    """One experiment, as the stages see it."""

    root: Path
    """EXP, as the user wrote it."""
    files: Mapping[str, Mapping[str, Any]]
    """Folder below EXP -> the values of its experiment_params.json, written or still to be written."""
    seeds: Tuple[int, ...] = ()
    """Of the decomposition model; none: one training in EXP itself."""
    predictors: Tuple[str, ...] = ()
    """Trainings: NAME or NAME/seeds/K."""
    data: Optional[DataRecipe] = None
    weights: Mapping[str, WeightsRecipe] = field(default_factory=dict)
    criterion: Optional[str] = None
    shards: int = 1
    evaluation: EvaluationRecipe = EvaluationRecipe()
    decomp_ckpt: Optional[str] = None
    """A decomposition checkpoint named by the user: what trained and selected it is not asked for."""
    workers: Mapping[str, Optional[int]] = field(default_factory=dict)
    """Stage -> cores of its task, where the cluster's config says."""

    indices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Stage -> seed or predictor -> index of its task: numbers are given once, and never to another."""

    @property
    def slots_online(self) -> bool:
        """Whether predictors encode their batches themselves, without a slot store."""
        suite = self.files[""].get("suite", {})
        return suite.get("slots", {}).get("mode", "store") == "online"

    @property
    def decomposition_folders(self) -> Tuple[str, ...]:
        """Folders below EXP that the decomposition model is trained in."""
        return tuple(f"seeds/{seed}" for seed in self.seeds) or ("",)

    @property
    def predictor_names(self) -> Tuple[str, ...]:
        """Predictor experiments, each once whatever its seeds."""
        return tuple(dict.fromkeys(training.split("/")[0] for training in self.predictors))

    def folder(self, below: str) -> str:
        """A folder of the experiment for a command line."""
        return str(self.root / below)


def from_recipe(recipe: Recipe, experiments: Path, data_root: Optional[str]) -> Pipeline:
    """The pipeline of a recipe; nothing needs to exist yet."""
    pipeline = Pipeline(shorten(experiments / recipe.name), experiment_files(recipe, data_root))
    return numbered(_with_recipe(pipeline, recipe))


def from_folder(root: Path) -> Pipeline:
    """The pipeline of an existing experiment: its own recipe, or what its folders show."""
    root = shorten(root)
    if not (root / FILE_NAME).is_file():
        known = sorted(path.parent.name for path in root.parent.glob(f"*/{FILE_NAME}"))
        raise UserError(f"{root / FILE_NAME}: no such experiment{nearest(root.name, known)}")
    files = {}
    for path in sorted(root.glob(FILE_NAME)) + sorted(root.glob(f"*/**/{FILE_NAME}")):
        below = path.parent.relative_to(root).as_posix()
        if below == "." or below.split("/")[0] in ("seeds", "predictors"):
            values = read_json(path)
            parse_experiment(values, str(path))
            files["" if below == "." else below] = values
    pipeline = Pipeline(root, files)
    if (root / RECIPE_FILE).is_file():
        pipeline = _with_recipe(pipeline, load_recipe(root / RECIPE_FILE))
    seeds = [seed for seed in _seeds_below(files, "") if seed not in pipeline.seeds]
    trainings = [name for name in _predictor_trainings(files) if name not in pipeline.predictors]
    return numbered(
        replace(
            pipeline, seeds=pipeline.seeds + tuple(seeds), predictors=pipeline.predictors + tuple(trainings)
        )
    )


def with_decomposition_seeds(pipeline: Pipeline, seeds: Tuple[int, ...]) -> Pipeline:
    """The same experiment, its decomposition model trained once per seed."""
    _check(seeds)
    files = {**seed_files("", pipeline.files[""], seeds), **pipeline.files}
    return numbered(replace(pipeline, seeds=seeds, files=files))


def with_predictors(pipeline: Pipeline, name: Optional[str], seeds: Tuple[int, ...]) -> Pipeline:
    """The same experiment with one predictor of it (None: all), trained once per seed (none: as it is)."""
    _check(seeds)
    names = pipeline.predictor_names
    if name is not None and name not in names:
        folder = pipeline.root / "predictors" / name
        raise UserError(f"{folder}: no such predictor experiment{nearest(name, names)}")
    files, trainings = dict(pipeline.files), []
    for base in names if name is None else (name,):
        more = seed_files(f"predictors/{base}", files[f"predictors/{base}"], seeds)
        files = {**more, **files}
        own = [training for training in pipeline.predictors if training.split("/")[0] == base]
        trainings += [folder[len("predictors/") :] for folder in more] or own
    return numbered(replace(pipeline, files=files, predictors=tuple(trainings)))


def numbered(pipeline: Pipeline) -> Pipeline:
    """Give every seed and predictor that has none yet the next index in its stages."""
    path = pipeline.root / INDICES
    recorded = read_json(path) if path.is_file() else {}
    folders = tuple(folder or "." for folder in pipeline.decomposition_folders)
    names = {
        "train_decomp": folders,
        "train_predictor": pipeline.predictors,
        "evaluate_predictor": pipeline.predictor_names,
    }
    indices = {}
    for stage, wanted in names.items():
        indices[stage] = dict(recorded.get(stage, {}))
        for name in wanted:
            indices[stage].setdefault(name, len(indices[stage]))
    return replace(pipeline, indices=indices)


def shorten(path: Path) -> Path:
    """A path as commands name it: relative where it lies below the current folder."""
    path = Path(path).absolute()
    here = Path.cwd()
    return path.relative_to(here) if here in path.parents else path


def _with_recipe(pipeline: Pipeline, recipe: Recipe) -> Pipeline:
    trainings = []
    for predictor in recipe.predictors:
        trainings += [f"{predictor.name}/seeds/{seed}" for seed in predictor.seeds] or [predictor.name]
    return replace(
        pipeline,
        seeds=recipe.decomposition.seeds,
        predictors=tuple(trainings),
        data=recipe.data,
        weights=recipe.weights,
        criterion=recipe.decomposition.select,
        shards=recipe.slots.shards,
        evaluation=recipe.evaluation,
    )


def _seeds_below(files: Mapping[str, Any], folder: str) -> Tuple[int, ...]:
    prefix = f"{folder}/seeds/" if folder else "seeds/"
    names = [name[len(prefix) :] for name in files if name.startswith(prefix)]
    return tuple(sorted(int(name) for name in names if name.isdigit()))


def _predictor_trainings(files: Mapping[str, Any]) -> Tuple[str, ...]:
    trainings = []
    for folder in files:
        if folder.startswith("predictors/") and "/seeds/" not in folder:
            name = folder[len("predictors/") :]
            trainings += [f"{name}/seeds/{seed}" for seed in _seeds_below(files, folder)] or [name]
    return tuple(trainings)


def _check(seeds: Tuple[int, ...]) -> None:
    try:
        check_seeds(seeds)
    except ValueError as error:
        raise UserError(str(error)) from None

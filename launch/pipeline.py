"""The input of the stages: the values of one experiment's folders and a few numbers of its recipe."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Tuple

from launch.recipe import (
    RECIPE_FILE,
    Recipe,
    check_seeds,
    experiment_files,
    kept_values,
    load_recipe,
    seed_files,
)
from launch.state.task import OK, Edge, Task, TaskId
from textocvp.config.data import EVAL_START, EvaluationConfig
from textocvp.config.experiment import FILE_NAME, FINAL, Experiment, check_fit, check_model, parse_experiment
from textocvp.config.synthetic import VideoSettings, WeightsSettings
from textocvp.files import ConfigError, UserError, nearest, read_json

INDICES = "jobs/indices.json"
FOLDERS = ("", "seeds/*", "predictors/*", "predictors/*/seeds/*")
"""Folders of an experiment that have an experiment_params.json."""
CHECKPOINT = f"models/{FINAL}"
WATCHED = "log_frequency image_log_frequency save_frequency save_every_steps save_minutes num_workers".split()
"""Fields of `training` that affect logs and speed, but not results."""
Planned = Mapping[str, Sequence[Task]]
"""Stage -> its tasks, for earlier stages."""


@dataclass(frozen=True)
class Pipeline:
    """One experiment, the input of the stages."""

    root: Path
    """EXP as given by the user."""
    files: Mapping[str, Mapping[str, Any]]
    """Folder below EXP -> the values of its experiment_params.json, whether written yet or not."""
    experiments: Mapping[str, Experiment]
    """The same files, parsed."""
    seeds: Tuple[int, ...] = ()
    """Of the decomposition model; none: one training in EXP itself."""
    predictors: Tuple[str, ...] = ()
    """Trainings: NAME or NAME/seeds/K."""
    only: Optional[str] = None
    """The only predictor whose tasks may run; the edges of shared tasks are those of all predictors."""
    data: Optional[VideoSettings] = None
    weights: Mapping[str, WeightsSettings] = field(default_factory=dict)
    criterion: Optional[str] = None
    shards: int = 1
    evaluation: EvaluationConfig = EvaluationConfig()
    decomp_ckpt: Optional[str] = None
    """A decomposition checkpoint named by the user; its training and selection are not checked."""
    workers: Mapping[str, Optional[int]] = field(default_factory=dict)
    """Stage -> cores of its task, if the cluster's config sets them."""
    indices: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Stage -> seed or predictor -> index of its task; an index is never reused."""

    @property
    def slots_online(self) -> bool:
        """Whether predictors encode their batches themselves, without a slot store."""
        suite = self.experiments[""].suite
        return suite is not None and suite.slots.mode == "online"

    @property
    def decomposition_folders(self) -> Tuple[str, ...]:
        """Folders below EXP in which the decomposition model is trained."""
        return tuple(f"seeds/{seed}" for seed in self.seeds) or ("",)

    @property
    def predictor_names(self) -> Tuple[str, ...]:
        """Predictor experiments, each once regardless of its seeds."""
        return tuple(dict.fromkeys(training.split("/")[0] for training in self.predictors))

    @property
    def predictor_experiments(self) -> Tuple[Experiment, ...]:
        """The settings of each training of a predictor."""
        return tuple(self.experiments[f"predictors/{name}"] for name in self.predictors)

    @property
    def skipped(self) -> Set[TaskId]:
        """The tasks of predictors other than `only`."""
        return {
            TaskId(stage, index)
            for stage in ("train_predictor", "evaluate_predictor")
            for name, index in self.indices[stage].items()
            if self.only not in (None, name.split("/")[0])
        }

    def folder(self, below: str) -> str:
        """A folder of the experiment for a command line."""
        return str(self.root / below)

    def dataset_fields(self, folder: str) -> Dict[str, Any]:
        """The dataset section of an experiment folder without its root, which does not affect results."""
        return {name: value for name, value in self.files[folder]["dataset"].items() if name != "root"}

    def sections(self, folder: str, *names: str, training: bool = True) -> Dict[str, Any]:
        """The config fields of an experiment folder that affect results."""
        values = self.files[folder]
        config = {"dataset": self.dataset_fields(folder), **{name: values.get(name) for name in names}}
        if training:
            section = values.get("training", {})
            config["training"] = {name: value for name, value in section.items() if name not in WATCHED}
        return config

    def worker_option(self, stage: str) -> Tuple[str, ...]:
        """One process per core of the stage's task, if the cluster's config sets the cores."""
        return option("workers", self.workers.get(stage))

    @property
    def checkpoint_option(self) -> Tuple[str, ...]:
        """The option for a decomposition checkpoint that the user named."""
        return option("decomp_ckpt", self.decomp_ckpt)

    @property
    def checkpoint_input(self) -> str:
        """The decomposition's checkpoint, as an input."""
        name = self.decomp_ckpt or FINAL
        return name if "/" in name else f"models/{name}"

    def decomposition_ready(self, planned: Planned) -> Tuple[Edge, ...]:
        """Tasks that must succeed before the decomposition's checkpoint can be used."""
        if self.decomp_ckpt:
            return edges_to(planned["prepare_data"])
        return edges_to(planned["select_decomp"] or planned["train_decomp"])


def option(name: str, value: Any) -> Tuple[str, ...]:
    """A command line option; nothing for null."""
    if value is None:
        return ()
    if isinstance(value, (list, tuple)):
        return (f"--{name}", *map(str, value))
    return (f"--{name}", str(value).lower() if isinstance(value, bool) else str(value))


def edges_to(tasks: Iterable[Task], mode: str = OK) -> Tuple[Edge, ...]:
    """Edges to tasks."""
    return tuple(Edge(task.stage, task.index, mode) for task in tasks)


def from_recipe(
    recipe: Recipe, experiments: Path, data_root: Optional[str], source: str = "recipe"
) -> Pipeline:
    """The pipeline of a recipe, fully checked; the experiment need not exist yet.

    Args:
        experiments: folder of the experiment's folder.
        source: the recipe's file, for messages.
    """
    files: Mapping[str, Mapping[str, Any]]
    try:
        files = experiment_files(recipe, data_root)
    except UserError as error:
        raise ConfigError(f"{source}: {error}") from None
    root = shorten(experiments / recipe.name)
    files = {folder: kept_values(root / folder / FILE_NAME, values) for folder, values in files.items()}
    parsed = {folder: parse_experiment(values, source) for folder, values in files.items()}
    for folder, experiment in parsed.items():
        check_fit(experiment, f"{source}: {folder}" if folder else source)
        if recipe.data is not None:
            _check_length(experiment, recipe.data.num_frames, f"{source}: {folder or 'decomposition'}")
    return numbered(_with_recipe(Pipeline(root, files, parsed), recipe))


def from_folder(root: Path) -> Pipeline:
    """The pipeline of an existing experiment, from its own recipe or from its folders."""
    root = shorten(root)
    if not (root / FILE_NAME).is_file():
        known = sorted(path.parent.name for path in root.parent.glob(f"*/{FILE_NAME}"))
        raise UserError(f"{root / FILE_NAME}: no such experiment{nearest(root.name, known)}")
    files, experiments = {}, {}
    paths = [path for pattern in FOLDERS for path in root.glob(f"{pattern}/{FILE_NAME}".lstrip("/"))]
    for path in sorted(paths):
        below = path.parent.relative_to(root).as_posix()
        folder = "" if below == "." else below
        files[folder] = read_json(path)
        experiments[folder] = parse_experiment(files[folder], str(path))
    pipeline = Pipeline(root, files, experiments)
    if (root / RECIPE_FILE).is_file():
        pipeline = _with_recipe(pipeline, load_recipe(root / RECIPE_FILE))
    seeds = [seed for seed in _seeds_below(files, "") if seed not in pipeline.seeds]
    trainings = [name for name in _predictor_trainings(files) if name not in pipeline.predictors]
    return numbered(
        replace(pipeline, seeds=(*pipeline.seeds, *seeds), predictors=(*pipeline.predictors, *trainings))
    )


def check_folders(pipeline: Pipeline) -> None:
    """ConfigError if sections of a config or its folders contradict each other; a job would fail later."""
    for folder, experiment in pipeline.experiments.items():
        path = pipeline.root / folder / FILE_NAME
        check_fit(experiment, str(path))
        check_model(experiment, path, pipeline.experiments[""], pipeline.root / FILE_NAME)


def with_decomposition_seeds(pipeline: Pipeline, seeds: Tuple[int, ...]) -> Pipeline:
    """The same experiment, its decomposition model trained once per seed."""
    return numbered(replace(_with_files(pipeline, "", seeds), seeds=seeds))


def with_predictors(pipeline: Pipeline, name: Optional[str], seeds: Tuple[int, ...]) -> Pipeline:
    """The same experiment for one predictor (None: all), trained once per seed (none: as it is)."""
    if name is not None:
        check_predictor(pipeline, name)
    trainings: List[str] = []
    for base in pipeline.predictor_names:
        own = [training for training in pipeline.predictors if training.split("/")[0] == base]
        if seeds and name in (None, base):
            pipeline = _with_files(pipeline, f"predictors/{base}", seeds)
            own = [f"{base}/seeds/{seed}" for seed in seeds]
        trainings += own
    return numbered(replace(pipeline, predictors=tuple(trainings), only=name))


def check_predictor(pipeline: Pipeline, name: str) -> None:
    """UserError unless the experiment has a predictor of that name."""
    if name not in pipeline.predictor_names:
        folder = pipeline.root / "predictors" / name
        raise UserError(f"{folder}: no such predictor experiment{nearest(name, pipeline.predictor_names)}")


def _with_files(pipeline: Pipeline, folder: str, seeds: Tuple[int, ...]) -> Pipeline:
    """With the experiment folders of more seeds."""
    try:
        check_seeds(seeds)
    except ValueError as error:
        raise UserError(f"--{error}") from None
    more = seed_files(folder, pipeline.files[folder], seeds)
    more = {name: values for name, values in more.items() if name not in pipeline.files}
    parsed = {name: parse_experiment(values, name) for name, values in more.items()}
    return replace(pipeline, files={**more, **pipeline.files}, experiments={**parsed, **pipeline.experiments})


def numbered(pipeline: Pipeline) -> Pipeline:
    """Assign the next index in its stages to every seed and predictor that has none."""
    path = pipeline.root / INDICES
    recorded = read_json(path) if path.is_file() else {}
    names = {
        "train_decomp": tuple(folder or "." for folder in pipeline.decomposition_folders),
        "train_predictor": pipeline.predictors,
        "evaluate_predictor": pipeline.predictor_names,
    }
    indices: Dict[str, Dict[str, int]] = {}
    for stage, wanted in names.items():
        indices[stage] = dict(recorded.get(stage, {}))
        for name in wanted:
            indices[stage].setdefault(name, len(indices[stage]))
    return replace(pipeline, indices=indices)


def shorten(path: Path) -> Path:
    """A path as written in commands: relative if it is below the current folder."""
    path = Path(path).absolute()
    here = Path.cwd()
    return path.relative_to(here) if here in path.parents else path


def _with_recipe(pipeline: Pipeline, recipe: Recipe) -> Pipeline:
    return replace(
        pipeline,
        seeds=recipe.decomposition.seeds,
        predictors=tuple(name for predictor in recipe.predictors for name in predictor.trainings),
        data=recipe.data,
        weights=recipe.weights,
        criterion=recipe.decomposition.select,
        shards=recipe.slots.shards,
        evaluation=recipe.evaluation,
    )


def _check_length(experiment: Experiment, num_frames: int, source: str) -> None:
    """ConfigError if the generated videos are shorter than the clips."""
    start = EVAL_START.get(experiment.dataset.dataset_name, 0)
    if experiment.predictor is not None:
        needed, name = experiment.prediction_params.num_frames, "num_context + num_preds"
    else:
        stages = [stage.num_frames for stage in experiment.training.curriculum]
        needed, name = max([experiment.dataset.num_frames, *stages]), "clips"
    if start + needed > num_frames:
        raise ConfigError(
            f"{source}: {name} of {needed} frames from frame {start} exceed the "
            f"recipe's data.num_frames, {num_frames}"
        )


def _seeds_below(files: Mapping[str, Any], folder: str) -> Tuple[int, ...]:
    prefix = f"{folder}/seeds/" if folder else "seeds/"
    names = [name[len(prefix) :] for name in files if name.startswith(prefix)]
    return tuple(sorted(int(name) for name in names if name.isdigit()))


def _predictor_trainings(files: Mapping[str, Any]) -> List[str]:
    trainings: List[str] = []
    for folder in files:
        if folder.startswith("predictors/") and "/seeds/" not in folder:
            name = folder[len("predictors/") :]
            trainings += [f"{name}/seeds/{seed}" for seed in _seeds_below(files, folder)] or [name]
    return trainings

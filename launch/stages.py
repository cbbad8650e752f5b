"""The stages: pure functions from a pipeline to tasks. To add one, add a function here and its command.

Only these functions define the edges of a stage's tasks, the config fields and inputs that affect their
outputs, and the files that they write. Stage ids have underscores in code and paths, hyphens on the
command line and in messages.
"""

from dataclasses import dataclass, replace
from typing import Callable, Dict, List, Mapping, Tuple

from launch.pipeline import CHECKPOINT, Pipeline, Planned, edges_to, option
from launch.state.task import ANY, OK, Task
from textocvp.config.experiment import FINAL
from textocvp.config.schema import Settings, given
from textocvp.files import UserError, nearest

CAPTIONS = "data/*_explicit.json"
WEIGHTS = "weights/*"
"""Frozen encoders in the experiment's folder."""


def make_data(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Generate the data and random frozen encoders that the recipe lists."""
    tasks = []
    if pipeline.data is not None:
        argv = ("make-data", "--out", pipeline.folder("data"), *_options(pipeline.data))
        argv += pipeline.worker_option("make_data")
        task = Task("make_data", 0, pipeline.data.dataset, argv, given(pipeline.data))
        outputs = ("data/*/*_explicit.json", "data/*/settings.json")
        tasks.append(replace(task, outputs=outputs, leftovers=("data",)))
    for index, (name, weights) in enumerate(sorted(pipeline.weights.items()), 1):
        folder = f"weights/{name}"
        argv = ("make-weights", "--out", pipeline.folder(folder), *_options(weights))
        task = Task("make_data", index, f"weights {name}", argv, given(weights))
        tasks.append(replace(task, outputs=(f"{folder}/*",), leftovers=(folder,)))
    return tasks


def _options(settings: Settings) -> Tuple[str, ...]:
    return tuple(word for name, value in given(settings).items() for word in option(name, value))


def prepare_data(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Decode every video once, for all seeds and predictors, and check the captions."""
    argv = ("prepare-data", "-d", pipeline.folder(""), *pipeline.worker_option("prepare_data"))
    folders = ("", *(f"predictors/{name}" for name in pipeline.predictors))
    tokenizers = sorted({pipeline.experiments[name].dataset.tokenizer for name in folders})
    config = {"dataset": pipeline.dataset_fields(""), "tokenizers": tokenizers}  # it checks the captions
    task = Task("prepare_data", 0, "frames", argv, config, (CAPTIONS, WEIGHTS), ("frames/*/part_*",))
    return [replace(task, leftovers=("frames",), after=edges_to(planned["make_data"]), replaceable=True)]


def train_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Train the decomposition model, once per seed."""
    tasks, after = [], edges_to(planned["prepare_data"])
    for folder in pipeline.decomposition_folders:
        index, label = pipeline.indices["train_decomp"][folder or "."], folder.replace("seeds/", "seed ")
        argv = ("train-decomp", "-d", pipeline.folder(folder))
        config = pipeline.sections(folder, "model", "loss")
        outputs, leftovers = _training_files(folder)
        task = Task("train_decomp", index, label, argv, config, (CAPTIONS, WEIGHTS), outputs)
        tasks.append(replace(task, leftovers=leftovers, after=after))
    return tasks


def select_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Keep the best seed; ignores failed seeds, so this waits for all to end, not to succeed."""
    if not pipeline.seeds or pipeline.decomp_ckpt:
        return []
    argv = ("select-decomp", "-d", pipeline.folder(""), *option("criterion", pipeline.criterion))
    config, after = {"criterion": pipeline.criterion}, edges_to(planned["train_decomp"], ANY)
    inputs, outputs = (f"seeds/*/{CHECKPOINT}",), (CHECKPOINT, "selected.json")
    task = Task("select_decomp", 0, "best seed", argv, config, inputs, outputs, after=after, replaceable=True)
    return [task]


def precompute_slots(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Write the slot store, several shards in parallel."""
    if pipeline.slots_online:
        return []
    frames = [experiment.prediction_params.num_frames for experiment in pipeline.predictor_experiments]
    config = {
        **pipeline.sections("", "model", training=False),
        "slots": pipeline.files[""].get("suite", {}).get("slots", {}),
        "num_frames": max(frames, default=None),
        "num_shards": pipeline.shards,
    }
    inputs, outputs = (pipeline.checkpoint_input, CAPTIONS), ("slots/*/part_*",)
    words = ("precompute-slots", "-d", pipeline.folder(""), *pipeline.checkpoint_option)
    tasks, after = [], pipeline.decomposition_ready(planned)
    for shard in range(pipeline.shards):
        label, share = f"shard {shard + 1} of {pipeline.shards}", (shard, pipeline.shards)
        argv = (*words, "--shard", str(shard), "--num_shards", str(pipeline.shards))
        own = {**config, "shard": shard}
        tasks.append(Task("precompute_slots", shard, label, argv, own, inputs, outputs, share, after=after))
    return tasks


def train_predictor(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Train every predictor, once per seed."""
    tasks, after = [], edges_to(planned["precompute_slots"]) or pipeline.decomposition_ready(planned)
    inputs = ("slots/*.json", pipeline.checkpoint_input, CAPTIONS, WEIGHTS)
    sections = ("predictor", "predictor_loss", "prediction_params", "suite")
    for name in pipeline.predictors:
        index, label = pipeline.indices["train_predictor"][name], name.replace("/seeds/", " seed ")
        words = ("train-predictor", "-d", pipeline.folder(""), "--name_pred_exp", name)
        argv = (*words, *pipeline.checkpoint_option)
        config = pipeline.sections(f"predictors/{name}", *sections)
        outputs, leftovers = _training_files(f"predictors/{name}")
        task = Task("train_predictor", index, label, argv, config, inputs, outputs)
        tasks.append(replace(task, leftovers=leftovers, after=after))
    return tasks


def _training_files(folder: str) -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
    """Outputs and leftovers of a training in a folder below the experiment's; "": in the experiment's own."""
    prefix = f"{folder}/" if folder else ""
    leftovers = tuple(f"{prefix}{name}" for name in ("models", "resume", "tboard_logs", "plots"))
    return (prefix + CHECKPOINT,), leftovers


def evaluate_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Evaluate the selected checkpoint and every seed on the test clips."""
    batch_size = option("batch_size", given(pipeline.evaluation).get("batch_size"))
    argv = ("evaluate-decomp", "-d", pipeline.folder(""), *pipeline.checkpoint_option, *batch_size)
    config, label = pipeline.sections("", "model", training=False), "all seeds" if pipeline.seeds else ""
    inputs = (pipeline.checkpoint_input, f"seeds/*/{CHECKPOINT}", CAPTIONS)
    outputs = ("results/decomposition.json",)
    others = planned["train_decomp"] if planned["select_decomp"] else []
    after = pipeline.decomposition_ready(planned) + edges_to(others, ANY)
    return [Task("evaluate_decomp", 0, label, argv, config, inputs, outputs, after=after, replaceable=True)]


def evaluate_predictor(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Evaluate each predictor, with all its seeds, on the test clips."""
    said = given(pipeline.evaluation)
    options = {name: said.get(name) for name in ("batch_size", "num_seed", "num_preds")}
    arguments = [word for name, value in options.items() for word in option(name, value)]
    ready, tasks = pipeline.decomposition_ready(planned), []
    trainings = dict(zip(pipeline.predictors, planned["train_predictor"]))
    for name in pipeline.predictor_names:
        own = [task for training, task in trainings.items() if training.split("/")[0] == name]
        folder, index = f"predictors/{name}", pipeline.indices["evaluate_predictor"][name]
        words = ("evaluate-predictor", "-d", pipeline.folder(""), "--name_pred_exp", name)
        argv = (*words, *pipeline.checkpoint_option, *arguments)
        config = {**pipeline.sections(folder, "predictor", "prediction_params"), **options}
        inputs = (f"{folder}/*{FINAL}", pipeline.checkpoint_input, CAPTIONS)
        outputs = (f"{folder}/results/prediction.json",)
        after = edges_to(own, OK if len(own) == 1 else ANY) + ready
        task = Task("evaluate_predictor", index, name, argv, config, inputs, outputs, after=after)
        tasks.append(replace(task, replaceable=True))
    return tasks


def figures(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Draw decompositions and the prediction of each existing predictor from a first frame."""
    number = given(pipeline.evaluation).get("num_seqs")
    argv = ("figures", "-d", pipeline.folder(""), *option("num_seqs", number))
    inputs = (pipeline.checkpoint_input, f"predictors/*{FINAL}")
    outputs = ("plots/*", "predictors/*/plots/*")
    after = pipeline.decomposition_ready(planned) + edges_to(planned["train_predictor"], ANY)
    config = {"num_seqs": number}
    return [Task("figures", 0, "", argv, config, inputs, outputs, after=after, replaceable=True)]


def report(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Collect existing results and list missing ones; waits for all tasks to end, not to succeed."""
    stages = ("evaluate_decomp", "evaluate_predictor", "figures", "select_decomp")
    after = edges_to([task for stage in stages for task in planned[stage]], ANY)
    argv, outputs = ("report", "-d", pipeline.folder("")), ("summary.json", "summary.txt")
    inputs = ("results/*", "predictors/*/results/*", "selected.*")
    return [Task("report", 0, "", argv, {}, inputs, outputs, after=after, replaceable=True)]


@dataclass(frozen=True)
class Stage:
    """A stage's id and the function that creates its tasks."""

    name: str
    plan: Callable[[Pipeline, Planned], List[Task]]
    """From the pipeline and the tasks of the stages before."""
    distributed: bool = False
    """Its tasks may run as several processes."""


STAGES: Tuple[Stage, ...] = (
    Stage("make_data", make_data),
    Stage("prepare_data", prepare_data),
    Stage("train_decomp", train_decomp, distributed=True),
    Stage("select_decomp", select_decomp),
    Stage("precompute_slots", precompute_slots),
    Stage("train_predictor", train_predictor, distributed=True),
    Stage("evaluate_decomp", evaluate_decomp),
    Stage("evaluate_predictor", evaluate_predictor),
    Stage("figures", figures),
    Stage("report", report),
)
"""In order of their edges."""
DISTRIBUTED: Mapping[str, bool] = {stage.name: stage.distributed for stage in STAGES}


def all_tasks(pipeline: Pipeline) -> List[Task]:
    """Every task of a pipeline, in dependency order."""
    planned: Dict[str, List[Task]] = {}
    for stage in STAGES:
        planned[stage.name] = stage.plan(pipeline, planned)
    return [task for tasks in planned.values() for task in tasks]


def stage_named(text: str) -> str:
    """The id of a stage given as "train-decomp"; UserError if there is none."""
    names = [stage.replace("_", "-") for stage in DISTRIBUTED]
    if text.replace("_", "-") not in names:
        raise UserError(f"--stage {text}: no such stage{nearest(text, names)}")
    return text.replace("-", "_")

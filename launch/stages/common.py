"""What the stages' tasks are put together from: config fields, inputs, edges, options of a command line."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from launch.pipeline import Pipeline
from launch.state.task import OK, Edge, Task
from textocvp.config.experiment import FINAL

Planned = Mapping[str, Sequence[Task]]
"""The tasks of the stages before."""
WATCHED = (
    "log_frequency",
    "image_log_frequency",
    "save_frequency",
    "save_every_steps",
    "save_minutes",
    "num_workers",
)
"""Fields of `training` that decide what one sees and how fast, not what comes out."""
CAPTIONS = "data/*_explicit.json"
WEIGHTS = "weights/*"
"""Frozen encoders that lie in the experiment."""
CHECKPOINT = f"models/{FINAL}"
TRAINING_LEFTOVERS = ("models", "resume", "tboard_logs", "plots")


def dataset_fields(pipeline: Pipeline, folder: str) -> Dict[str, Any]:
    """The dataset section without the folder it lies in, which decides nothing."""
    return {name: value for name, value in pipeline.files[folder]["dataset"].items() if name != "root"}


def sections(pipeline: Pipeline, folder: str, *names: str, training: bool = True) -> Dict[str, Any]:
    """The config fields of an experiment folder that decide what comes out."""
    values = pipeline.files[folder]
    config = {"dataset": dataset_fields(pipeline, folder), **{name: values.get(name) for name in names}}
    if training:
        section = values.get("training", {})
        config["training"] = {name: value for name, value in section.items() if name not in WATCHED}
    return config


def below(folder: str, name: str) -> str:
    """A path below a folder of the experiment; "" is EXP itself."""
    return f"{folder}/{name}" if folder else name


def workers(pipeline: Pipeline, stage: str) -> Tuple[str, ...]:
    """As many processes as the stage's task has cores, where the cluster's config says how many."""
    return tuple(option("workers", pipeline.workers.get(stage)))


def decomp_ckpt(pipeline: Pipeline) -> Tuple[str, ...]:
    """The option for a decomposition checkpoint that the user named."""
    return tuple(option("decomp_ckpt", pipeline.decomp_ckpt))


def option(name: str, value: Optional[Any]) -> List[str]:
    """A command line option; nothing for null."""
    if value is None:
        return []
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]


def after(tasks: Sequence[Task], mode: str = OK) -> Tuple[Edge, ...]:
    """Edges to tasks."""
    return tuple(Edge(task.stage, task.index, mode) for task in tasks)


def checkpoint_input(pipeline: Pipeline) -> str:
    """The decomposition's checkpoint, as an input."""
    name = pipeline.decomp_ckpt
    if not name:
        return CHECKPOINT
    return name if "/" in name else f"models/{name}"


def decomposition_ready(pipeline: Pipeline, planned: Planned) -> Tuple[Edge, ...]:
    """What has to succeed before the decomposition's checkpoint can be used."""
    if pipeline.decomp_ckpt:
        return after(planned["prepare_data"])
    return after(planned["select_decomp"] or planned["train_decomp"])

"""Stages that make the data and bring it into the form that training reads."""

from __future__ import annotations

from dataclasses import replace
from typing import List, Tuple

from launch.pipeline import Pipeline, Planned, edges_to, option
from launch.state.task import Task
from textocvp.config.schema import Settings, given

CAPTIONS = "data/*_explicit.json"
WEIGHTS = "weights/*"
"""Frozen encoders in the experiment's folder."""


def make_data(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Generate the data and random frozen encoders, where the recipe says which."""
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
    config = {"dataset": pipeline.dataset_fields("")}
    task = Task("prepare_data", 0, "frames", argv, config, (CAPTIONS, WEIGHTS), ("frames/*/part_*",))
    return [replace(task, leftovers=("frames",), after=edges_to(planned["make_data"]), replaceable=True)]

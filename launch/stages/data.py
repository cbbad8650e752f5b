"""Stages that make the data and bring it into the form that training reads."""

from __future__ import annotations

from typing import List

from launch.pipeline import Pipeline
from launch.stages.common import CAPTIONS, WEIGHTS, Planned, after, dataset_fields, option, workers
from launch.state.task import Task
from textocvp.config.schema import to_dict


def make_data(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Generate the data and random frozen encoders, where the recipe says which."""
    return _videos(pipeline) + _weights(pipeline)


def _weights(pipeline: Pipeline) -> List[Task]:
    tasks = []
    for index, (name, recipe) in enumerate(sorted(pipeline.weights.items()), 1):
        options = {key: value for key, value in to_dict(recipe).items() if value is not None}
        argv = ["make-weights", "--out", pipeline.folder(f"weights/{name}")]
        for key, value in options.items():
            argv += option(key, value)
        tasks.append(
            Task(
                stage="make_data",
                index=index,
                label=f"weights {name}",
                argv=tuple(argv),
                config=options,
                outputs=(f"weights/{name}/*",),
                leftovers=(f"weights/{name}",),
            )
        )
    return tasks


def _videos(pipeline: Pipeline) -> List[Task]:
    if pipeline.data is None:
        return []
    options = {name: value for name, value in to_dict(pipeline.data).items() if value is not None}
    argv = ["make-data", "--out", pipeline.folder("data")]
    for name, value in options.items():
        argv += option(name, value)
    return [
        Task(
            stage="make_data",
            index=0,
            label=pipeline.data.dataset,
            argv=tuple(argv) + workers(pipeline, "make_data"),
            config=options,
            outputs=("data/*/*_explicit.json", "data/*/settings.json"),
            leftovers=("data",),
        )
    ]


def prepare_data(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Decode every video once, for all seeds and predictors, and check the captions."""
    return [
        Task(
            stage="prepare_data",
            index=0,
            label="frames",
            argv=("prepare-data", "-d", pipeline.folder("")) + workers(pipeline, "prepare_data"),
            config={"dataset": dataset_fields(pipeline, "")},
            inputs=(CAPTIONS, WEIGHTS),
            outputs=("frames/*/part_*",),
            leftovers=("frames",),
            after=after(planned["make_data"]),
            replaceable=True,
        )
    ]

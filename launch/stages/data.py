"""Stages that make the data and bring it into the form that training reads."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

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
        config, options = _options(pipeline.data)
        tasks.append(
            Task(
                stage="make_data",
                index=0,
                label=pipeline.data.dataset,
                argv=("make-data", "--out", pipeline.folder("data"))
                + options
                + pipeline.worker_option("make_data"),
                config=config,
                outputs=("data/*/*_explicit.json", "data/*/settings.json"),
                leftovers=("data",),
            )
        )
    for index, (name, recipe) in enumerate(sorted(pipeline.weights.items()), 1):
        config, options = _options(recipe)
        tasks.append(
            Task(
                stage="make_data",
                index=index,
                label=f"weights {name}",
                argv=("make-weights", "--out", pipeline.folder(f"weights/{name}"), *options),
                config=config,
                outputs=(f"weights/{name}/*",),
                leftovers=(f"weights/{name}",),
            )
        )
    return tasks


def _options(settings: Settings) -> Tuple[Dict[str, Any], Tuple[str, ...]]:
    """What is said, as values and as options of the command."""
    said = given(settings)
    return said, tuple(word for name, value in said.items() for word in option(name, value))


def prepare_data(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Decode every video once, for all seeds and predictors, and check the captions."""
    return [
        Task(
            stage="prepare_data",
            index=0,
            label="frames",
            argv=("prepare-data", "-d", pipeline.folder("")) + pipeline.worker_option("prepare_data"),
            config={"dataset": pipeline.dataset_fields("")},
            inputs=(CAPTIONS, WEIGHTS),
            outputs=("frames/*/part_*",),
            leftovers=("frames",),
            after=edges_to(planned["make_data"]),
            replaceable=True,
        )
    ]

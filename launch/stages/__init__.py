"""The stages: each a pure function from a pipeline to its tasks. A new one: a function here and its command.

These functions alone say what a stage's tasks wait for, which config fields and inputs decide what they
write, and which files they leave. Stage ids have underscores in code and in paths, hyphens where people read
or type them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Tuple

from launch.pipeline import Pipeline, Planned
from launch.stages.data import make_data, prepare_data
from launch.stages.evaluation import evaluate_decomp, evaluate_predictor, figures, report
from launch.stages.training import precompute_slots, select_decomp, train_decomp, train_predictor
from launch.state.task import Task
from textocvp.config.errors import UserError, nearest


@dataclass(frozen=True)
class Stage:
    """A stage's id and what makes its tasks."""

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
    """Every task of a pipeline, in an order that respects the edges."""
    planned: Dict[str, List[Task]] = {}
    for stage in STAGES:
        planned[stage.name] = stage.plan(pipeline, planned)
    return [task for tasks in planned.values() for task in tasks]


def stage_named(text: str) -> str:
    """The id of the stage that a person named "train-decomp"; UserError where there is none."""
    names = [stage.replace("_", "-") for stage in DISTRIBUTED]
    if text.replace("_", "-") not in names:
        raise UserError(f"--stage {text}: no such stage{nearest(text, names)}")
    return text.replace("-", "_")

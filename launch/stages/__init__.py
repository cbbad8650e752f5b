"""The stages: each a pure function from a pipeline to its tasks. A new one: a function here and its command.

What a stage's tasks wait for, which config fields and inputs decide what they write, and which files they
leave, all stand in these functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Dict, List, Mapping, Tuple

from launch.pipeline import Pipeline
from launch.stages.common import Planned
from launch.stages.data import make_data, prepare_data
from launch.stages.decomposition import precompute_slots, select_decomp, train_decomp, train_predictor
from launch.stages.evaluation import evaluate_decomp, evaluate_predictor, figures, report
from launch.state.task import Task


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

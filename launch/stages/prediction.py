"""The stage that trains predictors."""

from __future__ import annotations

from typing import List

from launch.pipeline import Pipeline
from launch.stages.parts import (
    CAPTIONS,
    CHECKPOINT,
    TRAINING_LEFTOVERS,
    WEIGHTS,
    Planned,
    after,
    checkpoint_input,
    decomp_ckpt,
    decomposition_ready,
    sections,
)
from slurm.task import Task


def train_predictor(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Train every predictor, once per seed."""
    stored = planned["precompute_slots"]
    tasks = []
    for name in pipeline.predictors:
        folder = f"predictors/{name}"
        config = sections(pipeline, folder, "predictor", "predictor_loss", "prediction_params", "suite")
        tasks.append(
            Task(
                stage="train_predictor",
                index=pipeline.indices["train_predictor"][name],
                label=name.replace("/seeds/", " seed "),
                argv=("train-predictor", "-d", pipeline.folder(""), "--name_pred_exp", name)
                + decomp_ckpt(pipeline),
                config=config,
                inputs=("slots/*.json", checkpoint_input(pipeline), CAPTIONS, WEIGHTS),
                outputs=(f"{folder}/{CHECKPOINT}",),
                leftovers=tuple(f"{folder}/{part}" for part in TRAINING_LEFTOVERS),
                after=after(stored) or decomposition_ready(pipeline, planned),
            )
        )
    return tasks

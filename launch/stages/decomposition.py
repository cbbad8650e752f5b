"""Stages of the decomposition model: train it, keep the best seed, write its slots."""

from __future__ import annotations

from typing import List

from launch.pipeline import Pipeline
from launch.stages.common import (
    CAPTIONS,
    CHECKPOINT,
    TRAINING_LEFTOVERS,
    WEIGHTS,
    Planned,
    after,
    below,
    checkpoint_input,
    decomp_ckpt,
    decomposition_ready,
    option,
    sections,
)
from launch.state.task import ANY, Task
from textocvp.config.experiment import parse_experiment


def train_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Train the decomposition model, once per seed."""
    tasks = []
    for folder in pipeline.decomposition_folders:
        tasks.append(
            Task(
                stage="train_decomp",
                index=pipeline.indices["train_decomp"][folder or "."],
                label=folder.replace("seeds/", "seed "),
                argv=("train-decomp", "-d", pipeline.folder(folder)),
                config=sections(pipeline, folder, "model", "loss"),
                inputs=(CAPTIONS, WEIGHTS),
                outputs=(below(folder, CHECKPOINT),),
                leftovers=tuple(below(folder, name) for name in TRAINING_LEFTOVERS),
                after=after(planned["prepare_data"]),
            )
        )
    return tasks


def select_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Keep the best seed; a seed that failed is left out, so this waits for all to end, not to succeed."""
    if not pipeline.seeds or pipeline.decomp_ckpt:
        return []
    return [
        Task(
            stage="select_decomp",
            index=0,
            label="best seed",
            argv=("select-decomp", "-d", pipeline.folder(""))
            + tuple(option("criterion", pipeline.criterion)),
            config={"criterion": pipeline.criterion},
            inputs=(f"seeds/*/{CHECKPOINT}",),
            outputs=(CHECKPOINT, "selected.json"),
            after=after(planned["train_decomp"], ANY),
            replaceable=True,
        )
    ]


def precompute_slots(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Write the slot store, several shards side by side."""
    if pipeline.slots_online:
        return []
    folders = [f"predictors/{name}" for name in pipeline.predictors]
    frames = [parse_experiment(pipeline.files[name], name).prediction_params.num_frames for name in folders]
    config = {
        **sections(pipeline, "", "model", training=False),
        "slots": pipeline.files[""].get("suite", {}).get("slots", {}),
        "num_frames": max(frames, default=None),
        "num_shards": pipeline.shards,
    }
    tasks = []
    for shard in range(pipeline.shards):
        tasks.append(
            Task(
                stage="precompute_slots",
                index=shard,
                label=f"shard {shard + 1} of {pipeline.shards}",
                argv=("precompute-slots", "-d", pipeline.folder(""))
                + decomp_ckpt(pipeline)
                + ("--shard", str(shard), "--num_shards", str(pipeline.shards)),
                config=dict(config, shard=shard),
                inputs=(checkpoint_input(pipeline), CAPTIONS),
                outputs=("slots/*/part_*",),
                share=(shard, pipeline.shards),
                after=decomposition_ready(pipeline, planned),
            )
        )
    return tasks


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

"""Stages that train: the decomposition model and its best seed, its slots, the predictors."""

from __future__ import annotations

from typing import List, Tuple

from launch.pipeline import CHECKPOINT, Pipeline, Planned, edges_to, option
from launch.stages.data import CAPTIONS, WEIGHTS
from launch.state.task import ANY, Task


def train_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Train the decomposition model, once per seed."""
    return [
        Task(
            stage="train_decomp",
            index=pipeline.indices["train_decomp"][folder or "."],
            label=folder.replace("seeds/", "seed "),
            argv=("train-decomp", "-d", pipeline.folder(folder)),
            config=pipeline.sections(folder, "model", "loss"),
            inputs=(CAPTIONS, WEIGHTS),
            outputs=(_below(folder, CHECKPOINT),),
            leftovers=_training_folders(folder),
            after=edges_to(planned["prepare_data"]),
        )
        for folder in pipeline.decomposition_folders
    ]


def select_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Keep the best seed; a seed that failed is left out, so this waits for all to end, not to succeed."""
    if not pipeline.seeds or pipeline.decomp_ckpt:
        return []
    return [
        Task(
            stage="select_decomp",
            index=0,
            label="best seed",
            argv=("select-decomp", "-d", pipeline.folder("")) + option("criterion", pipeline.criterion),
            config={"criterion": pipeline.criterion},
            inputs=(f"seeds/*/{CHECKPOINT}",),
            outputs=(CHECKPOINT, "selected.json"),
            after=edges_to(planned["train_decomp"], ANY),
            replaceable=True,
        )
    ]


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
    return [
        Task(
            stage="precompute_slots",
            index=shard,
            label=f"shard {shard + 1} of {pipeline.shards}",
            argv=("precompute-slots", "-d", pipeline.folder(""))
            + pipeline.checkpoint_option
            + ("--shard", str(shard), "--num_shards", str(pipeline.shards)),
            config={**config, "shard": shard},
            inputs=(pipeline.checkpoint_input, CAPTIONS),
            outputs=("slots/*/part_*",),
            share=(shard, pipeline.shards),
            after=pipeline.decomposition_ready(planned),
        )
        for shard in range(pipeline.shards)
    ]


def train_predictor(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Train every predictor, once per seed."""
    after = edges_to(planned["precompute_slots"]) or pipeline.decomposition_ready(planned)
    return [
        Task(
            stage="train_predictor",
            index=pipeline.indices["train_predictor"][name],
            label=name.replace("/seeds/", " seed "),
            argv=("train-predictor", "-d", pipeline.folder(""), "--name_pred_exp", name)
            + pipeline.checkpoint_option,
            config=pipeline.sections(
                f"predictors/{name}", "predictor", "predictor_loss", "prediction_params", "suite"
            ),
            inputs=("slots/*.json", pipeline.checkpoint_input, CAPTIONS, WEIGHTS),
            outputs=(f"predictors/{name}/{CHECKPOINT}",),
            leftovers=_training_folders(f"predictors/{name}"),
            after=after,
        )
        for name in pipeline.predictors
    ]


def _training_folders(folder: str) -> Tuple[str, ...]:
    return tuple(_below(folder, name) for name in ("models", "resume", "tboard_logs", "plots"))


def _below(folder: str, name: str) -> str:
    """A path below a folder of the experiment; "" is EXP itself."""
    return f"{folder}/{name}" if folder else name

"""Stages that train: the decomposition model and its best seed, its slots, the predictors."""

from __future__ import annotations

from dataclasses import replace
from typing import List, Tuple

from launch.pipeline import CHECKPOINT, Pipeline, Planned, edges_to, option
from launch.stages.data import CAPTIONS, WEIGHTS
from launch.state.task import ANY, Task


def train_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Train the decomposition model, once per seed."""
    tasks, after = [], edges_to(planned["prepare_data"])
    for folder in pipeline.decomposition_folders:
        index, label = pipeline.indices["train_decomp"][folder or "."], folder.replace("seeds/", "seed ")
        argv, config = (
            ("train-decomp", "-d", pipeline.folder(folder)),
            pipeline.sections(folder, "model", "loss"),
        )
        outputs, leftovers = _training_files(folder)
        task = Task("train_decomp", index, label, argv, config, (CAPTIONS, WEIGHTS), outputs)
        tasks.append(replace(task, leftovers=leftovers, after=after))
    return tasks


def select_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Keep the best seed; a seed that failed is left out, so this waits for all to end, not to succeed."""
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
        argv, config = (
            (*words, *pipeline.checkpoint_option),
            pipeline.sections(f"predictors/{name}", *sections),
        )
        outputs, leftovers = _training_files(f"predictors/{name}")
        task = Task("train_predictor", index, label, argv, config, inputs, outputs)
        tasks.append(replace(task, leftovers=leftovers, after=after))
    return tasks


def _training_files(folder: str) -> Tuple[Tuple[str, ...], Tuple[str, ...]]:
    """Outputs and leftovers of a training in a folder below the experiment's; "": in the experiment's own."""
    prefix = f"{folder}/" if folder else ""
    leftovers = tuple(f"{prefix}{name}" for name in ("models", "resume", "tboard_logs", "plots"))
    return (prefix + CHECKPOINT,), leftovers

"""What a pipeline will leave on disk, artefact by artefact, before it runs.

Estimates by formulas whose constants were measured; no torch.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Mapping, Optional, Tuple

from launch.pipeline import Pipeline
from launch.stages.common import CHECKPOINT, below
from launch.state.manifest import TaskId
from launch.videos import Videos, find_videos
from textocvp.config.experiment import Experiment, parse_experiment
from textocvp.config.sizes import Size, model_size, predictor_size

FLOAT = 4
PART_VIDEOS = 64
"""Videos in a part file of a store."""
PART_BYTES, TEXT_PART_BYTES = 16_000, 11_000
"""Of an HDF5 file and its manifest, besides what it holds."""
VIDEO_BYTES, CAPTION_BYTES, WINDOW_BYTES = 150, 300, 150
"""What a video, a caption, a window of slots takes besides pixels and slots."""
CHECKPOINT_BYTES, TENSOR_BYTES = 5_000, 270
"""What a checkpoint takes, and each tensor in it, besides the values."""
STATES = 2
"""Resume states that are kept."""
PICTURE_CLIPS, BYTES_PER_PIXEL = 3, 1.3
"""TensorBoard: clips in a set of pictures; PNG."""
POINT_BYTES = 500
"""TensorBoard: all curves at one step."""
SEQUENCE_BYTES, TASK_BYTES = 300_000, 15_000
"""Figures of one sequence; records and logs of one task."""
FIGURES = 6
"""Sequences that are drawn where nothing is said."""


@dataclass(frozen=True)
class Artefact:
    """Something that tasks leave in the experiment's folder."""

    name: str
    paths: Tuple[str, ...]
    """Below EXP: what is there already of it."""
    bytes: Optional[int]
    """Estimate of the whole; None: not known."""
    tasks: Tuple[TaskId, ...]
    """What writes it: once all are done it needs no more."""
    meanwhile: int = 0
    """Bytes that are needed besides while it is written: a state or checkpoint before it replaces another."""


def estimate(pipeline: Pipeline, weights: Optional[Path] = None) -> List[Artefact]:
    """What the stages of a pipeline leave, in their order.

    Args:
        weights: the site's folder of pretrained encoders.
    """
    experiments = {folder: parse_experiment(values, folder) for folder, values in pipeline.files.items()}
    own, videos = experiments[""], find_videos(pipeline, experiments[""])
    predictors = {name: experiments[f"predictors/{name}"] for name in pipeline.predictors}
    found: List[Artefact] = []
    if pipeline.data is not None:
        found.append(Artefact("data", ("data",), videos.made_bytes, (("make_data", 0),)))
    prepared = (("prepare_data", 0),)
    found.append(Artefact("frames", ("frames",), _known(videos, frames_bytes, own), prepared))
    found.append(Artefact("text", ("text",), _known(videos, text_bytes, own, predictors), prepared))
    clips = videos and videos.captions["train"]
    for folder in pipeline.decomposition_folders:
        task = ("train_decomp", pipeline.indices["train_decomp"][folder or "."])
        rows = 3 + own.model.model_params.num_slots
        found.append(
            training(folder, task, experiments[folder], model_size(own), clips, rows, own.dataset.num_frames)
        )
    if pipeline.seeds and not pipeline.decomp_ckpt:
        size = model_size(own)
        whole = size and checkpoint_bytes(size, own.training.zero_stage)
        found.append(Artefact("selected checkpoint", (CHECKPOINT,), whole, (("select_decomp", 0),)))
    windows = videos and {split: split_windows(videos, own, predictors, split) for split in videos.counts}
    if not pipeline.slots_online:
        tasks = tuple(("precompute_slots", shard) for shard in range(pipeline.shards))
        found.append(Artefact("slots", ("slots",), _known(videos, slots_bytes, own, predictors), tasks))
    for name, experiment in predictors.items():
        task = ("train_predictor", pipeline.indices["train_predictor"][name])
        size = predictor_size(experiment, text_width(pipeline, experiment, weights))
        found.append(
            training(
                f"predictors/{name}",
                task,
                experiment,
                size,
                windows and windows["train"],
                4,
                experiment.prediction_params.num_frames,
            )
        )
    return [*found, _rest(pipeline)]


def _known(videos: Optional[Videos], formula: Any, *arguments: Any) -> Optional[int]:
    return None if videos is None else round(formula(videos, *arguments))


def _parts(number: int, each: int = PART_BYTES) -> int:
    return math.ceil(number / PART_VIDEOS) * each


def frames_bytes(videos: Videos, experiment: Experiment) -> float:
    """The frame store: three channels and a mask, one byte each."""
    height, width = experiment.dataset.img_size
    pixels = videos.num_frames * height * width * (3 + videos.masks)
    return sum(count * (pixels + VIDEO_BYTES) + _parts(count) for count in videos.counts.values())


def text_bytes(videos: Videos, experiment: Experiment, predictors: Mapping[str, Experiment]) -> float:
    """The token ids of all captions, once for each tokenizer."""
    params = [predictor.predictor.predictor_params for predictor in predictors.values()]
    stores = {(each.tokenizer, each.tokenizer_weights) for each in params if each.tokenizer}
    number = len(stores) if predictors else int(experiment.dataset.tokenizer == "CustomTokenizer")
    captions = videos.captions.values()
    return number * sum(count * CAPTION_BYTES + _parts(count, TEXT_PART_BYTES) for count in captions)


def split_windows(
    videos: Videos, experiment: Experiment, predictors: Mapping[str, Experiment], split: str
) -> int:
    """Windows of a split in the slot store."""
    if split != "train" or not experiment.dataset.random_start:
        per_video = 1
    else:
        slots = experiment.suite.slots if experiment.suite else None
        stride, draws = (slots.stride, slots.draws) if slots else (4, 1)
        starts = range(0, videos.num_frames - window_frames(experiment, predictors) + 1, stride)
        per_video = max(1, len(starts)) * draws
    return videos.counts[split] * per_video


def window_frames(experiment: Experiment, predictors: Mapping[str, Experiment]) -> int:
    """Frames of a window: the most that any predictor needs."""
    return max(own.prediction_params.num_frames for own in list(predictors.values()) or [experiment])


def slots_bytes(videos: Videos, experiment: Experiment, predictors: Mapping[str, Experiment]) -> float:
    """The slot store: windows of float32."""
    params = experiment.model.model_params
    window = window_frames(experiment, predictors) * params.num_slots * params.slot_dim * FLOAT + WINDOW_BYTES
    return sum(
        split_windows(videos, experiment, predictors, split) * window + count * VIDEO_BYTES + _parts(count)
        for split, count in videos.counts.items()
    )


def checkpoint_bytes(size: Size, zero_stage: int) -> int:
    """A .pth: parameters, and Adam's two moments where they are not sharded."""
    copies, tensors = (3, 4) if zero_stage == 0 else (1, 1)
    return CHECKPOINT_BYTES + copies * FLOAT * size.values + tensors * TENSOR_BYTES * size.tensors


def state_bytes(size: Size, zero_stage: int) -> int:
    """A resume state, all processes' parts together: from stage 1 on with a second copy of the parameters."""
    copies = {0: 3, 3: 3}.get(zero_stage, 4)
    return CHECKPOINT_BYTES + copies * FLOAT * size.values + 4 * TENSOR_BYTES * size.tensors


def training(
    folder: str,
    task: TaskId,
    experiment: Experiment,
    size: Optional[Size],
    clips: Optional[int],
    rows: int,
    num_frames: int,
) -> Artefact:
    """Checkpoints, resume states and curves of one training.

    Args:
        folder: below EXP.
        clips: of the training split, which make an epoch.
        rows, num_frames: of the pictures in TensorBoard.
    """
    name, paths = (
        f"training {folder}".strip(),
        tuple(below(folder, part) for part in ("models", "resume", "tboard_logs")),
    )
    if size is None or not clips:
        return Artefact(name, paths, None, (task,))
    config = experiment.training
    steps = config.num_steps or config.num_epochs * math.ceil(clips / config.batch_size)
    epochs = steps * config.batch_size // clips if config.num_steps else config.num_epochs
    checkpoint, state = (of(size, config.zero_stage) for of in (checkpoint_bytes, state_bytes))
    kept = (2 + epochs // config.save_frequency) * checkpoint + STATES * state
    height, width = experiment.dataset.img_size
    pixels = rows * (height + 2) * num_frames * (width + 2)
    pictures = math.ceil(steps / config.image_log_frequency) * PICTURE_CLIPS * pixels * BYTES_PER_PIXEL
    curves = math.ceil(steps / config.log_frequency) * POINT_BYTES
    return Artefact(name, paths, round(kept + pictures + curves), (task,), state + checkpoint)


def text_width(pipeline: Pipeline, experiment: Experiment, weights: Optional[Path]) -> Optional[int]:
    """Width of a frozen text encoder, from the recipe's weights or from the folder that it lies in."""
    name = experiment.predictor.predictor_params.tokenizer_weights
    if name is None:
        return None
    recipe = pipeline.weights.get(Path(name).name) if name.startswith("weights/") else None
    if recipe is not None and recipe.width:
        return recipe.width
    folders = [pipeline.root, pipeline.root / "weights", *([weights] if weights else [])]
    for folder in (parent / name for parent in folders):
        try:
            return int(json.loads((folder / "config.json").read_text())["d_model"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _rest(pipeline: Pipeline) -> Artefact:
    names = (
        "results",
        "plots",
        "jobs",
        *(f"predictors/{name}/{part}" for name in pipeline.predictor_names for part in ("results", "plots")),
    )
    tasks = 6 + len(pipeline.decomposition_folders) + pipeline.shards + 2 * len(pipeline.predictors)
    size = (pipeline.evaluation.num_seqs or FIGURES) * SEQUENCE_BYTES + tasks * TASK_BYTES
    return Artefact("results, plots, records", names, size, (("report", 0),))

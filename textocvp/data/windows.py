"""The windows that predictors train on, and the noise their initial slots are drawn from: pure functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterable, List, Mapping, NamedTuple, Sequence

import numpy as np
import torch

from textocvp.artifacts import experiment_root
from textocvp.config.data import SlotStoreConfig
from textocvp.config.errors import UserError
from textocvp.config.experiment import FILE_NAME, Experiment, load_predictor_experiment
from textocvp.data.order import generator_of


class Window(NamedTuple):
    """A clip of a video, and which draw of the initial noise its slots start from."""

    video_id: str
    start: int
    """First frame."""
    draw: int


def enumerate_windows(
    video_id: str,
    length: int,
    num_frames: int,
    split: str,
    config: SlotStoreConfig,
    eval_start: int,
    random_start: bool = True,
) -> List[Window]:
    """The windows of one video, for the store and for `slots: online` alike.

    Training: a start every `stride` frames (only `eval_start` without random_start), `draws` draws of each.
    Other splits: `eval_start`, draw 0.

    Raises:
        UserError: the video is too short for one window.
    """
    last = length - num_frames
    training = split == "train"
    starts = list(range(0, last + 1, config.stride)) if training and random_start else [eval_start]
    if last < (starts[0] if starts else 0):
        raise UserError(
            f"video {video_id} has {length} frames, too few for windows of {num_frames} frames "
            f"(num_context + num_preds) from frame {starts[0] if starts else 0}; "
            "lower prediction_params.num_preds of the predictors or use longer videos"
        )
    draws = config.draws if training else 1
    return [Window(video_id, start, draw) for start in starts for draw in range(draws)]


def initial_noise(seed: int, video_id: str, start: int, draw: int, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal float32 noise for the initial slots of a window: a function of the arguments alone."""
    generator = generator_of("slots", seed, video_id, start, draw)
    return torch.from_numpy(generator.standard_normal(tuple(shape), dtype=np.float32))


def window_noise(seed: int, windows: Iterable[Window], shape: Sequence[int]) -> torch.Tensor:
    """The noise of several windows, (B, *shape)."""
    return torch.stack([initial_noise(seed, *window, shape) for window in windows])


def windows_of(batch: Mapping[str, Any]) -> List[Window]:
    """The windows of a batch of clips; draw 0 where the batch does not say which."""
    starts = batch["start"].tolist()
    draws = batch["draw"].tolist() if "draw" in batch else [0] * len(starts)
    return list(map(Window, batch["video_id"], starts, draws))


def window_frames(experiment: Experiment, folder: Path) -> int:
    """Frames per window: the most that any predictor of the experiment needs (num_context + num_preds)."""
    root = experiment_root(folder)
    names = [file.parent.name for file in sorted(root.glob(f"predictors/*/{FILE_NAME}"))]
    predictors = [load_predictor_experiment(root, name) for name in names] or [experiment]
    return max(own.prediction_params.num_frames for own in predictors)


def slots_config(experiment: Experiment) -> SlotStoreConfig:
    """Section suite.slots; its defaults for an experiment of the original."""
    return experiment.suite.slots if experiment.suite else SlotStoreConfig()

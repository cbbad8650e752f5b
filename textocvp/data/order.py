"""Which clips a training step sees: a pure function of seed and step, so resuming needs only the step."""

import functools
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch

from textocvp.config.data import SlotStoreConfig
from textocvp.config.experiment import Experiment, experiment_root
from textocvp.config.training import CurriculumStage
from textocvp.data.dataset import VideoDataset, load_predictors
from textocvp.files import UserError


class Sample(NamedTuple):
    """One clip of a training batch: the key of a data set's item."""

    row: int
    """Position in the split."""
    epoch: int
    """Passes over the split before this one; random starts depend on it."""
    num_frames: Optional[int] = None
    """Frames of the clip; None: as many as the data set's clips have."""


@dataclass(frozen=True)
class TrainingOrder:
    """An endless stream of shuffled passes over the split, cut into full batches."""

    dataset_len: int
    batch_size: int
    """Clips per step over all ranks."""
    seed: int
    total_steps: int
    shuffle: bool = True
    curriculum: Tuple[CurriculumStage, ...] = ()
    """Its batch sizes replace batch_size."""

    def stages(self) -> List[Tuple[int, int, Optional[int]]]:
        """(first step after the stage, batch size, frames per clip) for each stage of the curriculum."""
        if not self.curriculum:
            return [(self.total_steps, self.batch_size, None)]
        total = self.total_steps
        return [(round(each.until * total), each.batch_size, each.num_frames) for each in self.curriculum]

    def batch_size_at(self, step: int) -> int:
        """Clips of this step over all ranks."""
        return self._stage(step)[1]

    def _stage(self, step: int) -> Tuple[int, int, Optional[int]]:
        stages = self.stages()
        return next((stage for stage in stages if step < stage[0]), stages[-1])

    def samples_before(self, step: int) -> int:
        """Clips seen by all steps before this one."""
        samples, first = 0, 0
        for end, batch_size, _ in self.stages():
            samples += batch_size * max(0, min(step, end) - first)
            first = max(first, end)
        return samples + self._stage(step)[1] * max(0, step - first)

    def epoch_at(self, step: int) -> int:
        """Complete passes over the split before this step."""
        return self.samples_before(step) // self.dataset_len

    def batch(self, step: int) -> List[Sample]:
        """The global batch of a step."""
        _, batch_size, num_frames = self._stage(step)
        first, samples = self.samples_before(step), []
        for position in range(first, first + batch_size):
            epoch, place = divmod(position, self.dataset_len)
            row = int(_permutation(self.dataset_len, self.seed, epoch)[place]) if self.shuffle else place
            samples.append(Sample(row, epoch, num_frames))
        return samples


class RankBatches:
    """This rank's part of the batches of steps first_step .. total_steps-1, as lists of Sample.

    Joined over the ranks they are the same for every world size; UserError if it does not divide the batches.
    """

    def __init__(self, order: TrainingOrder, first_step: int = 0, rank: int = 0, world: int = 1) -> None:
        for _, batch_size, _ in order.stages():
            if batch_size % world:
                raise UserError(
                    f"training.batch_size: {batch_size} clips cannot be divided evenly among {world} "
                    f"processes; use a multiple of {world}"
                )
        if order.dataset_len < 1:
            raise UserError("the training split is empty")
        self.order, self.first_step, self.rank, self.world = order, first_step, rank, world

    def __len__(self) -> int:
        return max(0, self.order.total_steps - self.first_step)

    def __iter__(self) -> Iterator[List[Sample]]:
        for step in range(self.first_step, self.order.total_steps):
            batch = self.order.batch(step)
            share = len(batch) // self.world
            yield batch[self.rank * share : (self.rank + 1) * share]


def generator_of(*parts: object) -> np.random.Generator:
    """A random generator that is a pure function of its arguments, on every machine."""
    return np.random.Generator(np.random.Philox(key=hashed(*parts)))


def hashed(*parts: object) -> int:
    """A number of 128 random bits that is a pure function of its arguments, on every machine."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16], "little")


@functools.lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return generator_of("order", seed, epoch).permutation(length)


class Window(NamedTuple):
    """A clip of a video, and which draw of the initial noise its slots start from."""

    video_id: str
    start: int
    """First frame."""
    draw: int


def enumerate_windows(
    experiment: Experiment, dataset: VideoDataset, row: int, length: int, num_frames: int
) -> List[Window]:
    """The windows of one video of a split, for the store and for `slots: online` alike.

    Training: a start every `stride` frames (only `eval_start` without random_start), `draws` draws of each.
    Other splits: `eval_start`, draw 0.

    Args:
        row: the video's position in the split; length: its frames; num_frames: those of a window.

    Raises:
        UserError: the video is too short for one window.
    """
    config, training = slots_config(experiment), dataset.split == "train"
    random_start = training and experiment.dataset.random_start
    first, last = 0 if random_start else dataset.eval_start, length - num_frames
    if last < first:
        raise UserError(
            f"video {dataset.video_ids[row]} has {length} frames, too few for windows of {num_frames} frames "
            f"(num_context + num_preds) from frame {first}; lower prediction_params.num_preds of the "
            f"predictors or use longer videos"
        )
    starts = range(0, last + 1, config.stride) if random_start else [first]
    draws = range(config.draws if training else 1)
    return [Window(dataset.video_ids[row], start, draw) for start in starts for draw in draws]


def window_noise(seed: int, windows: Iterable[Window], shape: Sequence[int]) -> torch.Tensor:
    """Noise for the initial slots of windows, (B, *shape) float32, standard normal.

    A window's noise is a pure function of the seed and the window.
    """
    generators = (generator_of("slots", seed, *window) for window in windows)
    noise = [generator.standard_normal(tuple(shape), dtype=np.float32) for generator in generators]
    return torch.from_numpy(np.stack(noise))


def windows_of(batch: Mapping[str, Any]) -> List[Window]:
    """The windows of a batch of clips; draw 0 if the batch has no `draw`."""
    starts = batch["start"].tolist()
    draws = batch["draw"].tolist() if "draw" in batch else [0] * len(starts)
    return list(map(Window, batch["video_id"], starts, draws))


def window_frames(experiment: Experiment, folder: Path) -> int:
    """Frames per window: the most that any predictor of the experiment needs (num_context + num_preds)."""
    predictors = load_predictors(experiment_root(folder)) or [experiment]
    return max(own.prediction_params.num_frames for own in predictors)


def slots_config(experiment: Experiment) -> SlotStoreConfig:
    """Section suite.slots; its defaults for an experiment of the original."""
    return experiment.suite.slots if experiment.suite else SlotStoreConfig()

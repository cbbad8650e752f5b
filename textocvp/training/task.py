"""What the training loop asks of a task, what both tasks share, and their losses and draws."""

import functools
import math
import operator
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from textocvp.config.experiment import Experiment
from textocvp.config.training import LossTerm
from textocvp.data.loaders import ClipDataset, Loader, SlotWindowDataset, evaluation_loader
from textocvp.data.order import RankBatches, TrainingOrder, hashed
from textocvp.data.videos import far_from, median_image, open_videos
from textocvp.files import UserError
from textocvp.training.deepspeed_engine import World

Batch = dict[str, Any]
Model = TypeVar("Model", bound=nn.Module)
Data = TypeVar("Data", ClipDataset, SlotWindowDataset)
PICTURE_CLIPS = 3
"""Validation clips that `pictures` shows."""


class Task(Generic[Model, Data]):
    """One thing to train: supplies data, loss, pictures and validation; the loop does the rest.

    A subclass builds the model, whose initialisation depends on training.seed alone, calls `_use_terms` and
    `_open`, and defines `loss` and `pictures`.
    """

    name: str
    """The command's name, in front of every line of progress."""
    model: Model
    """What is trained."""
    total_steps: int
    """Optimiser steps of the whole training."""

    def __init__(self, experiment: Experiment, folder: Path, world: World) -> None:
        """folder: where the training writes, inside the experiment."""
        self._experiment, self._config, self._world = experiment, experiment.training, world
        self._folder = folder

    def _use_terms(self, section: str, terms: Sequence[LossTerm], offered: Sequence[str]) -> None:
        """UserError for a term of the loss that the model does not offer."""
        for term in terms:
            if term.type not in offered:
                raise UserError(
                    f"{section}: {term.type}: not an output of this model; use {' or '.join(offered)}"
                )
        self._terms = tuple(terms)

    def _open(self, train: Data, valid: Data) -> None:
        """Fix the order of the data and the length of the training. UserError if the sizes do not fit."""
        self._train: Data = train
        self._valid: Data = valid
        config, size, shuffle = self._config, len(train), self._experiment.dataset.shuffle_train
        self.total_steps = config.num_steps or config.num_epochs * math.ceil(size / config.batch_size)
        self._order = TrainingOrder(
            size, config.batch_size, config.seed, self.total_steps, shuffle, config.curriculum
        )
        self._rank_batches(0)
        self._median: Tensor | None = None
        if any(term.needs_median for term in self._terms):
            videos = open_videos(self._experiment, self._folder, "train")
            self._median = median_image(videos, self._folder).to(self._world.device)

    def _rank_batches(self, first_step: int) -> RankBatches:
        return RankBatches(self._order, first_step, self._world.rank, self._world.size)

    def epoch_at(self, step: int) -> int:
        """Complete passes through the training split before this step."""
        return self._order.epoch_at(step)

    def batches(self, first_step: int) -> Iterator[Batch]:
        """This process's batches of the steps from `first_step` on, on its device: a function of the step."""
        loader = Loader(self._train, self._rank_batches(first_step), self._config.num_workers)
        return (to_device(batch, self._world.device) for batch in loader)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () of one batch, differentiable, and its terms by name, detached."""
        raise NotImplementedError

    def validation_batches(self) -> Iterator[tuple[Batch, int]]:
        """This process's batches of the validation split and how many clips of each count.

        Every process yields the same number of batches: parameters may be sharded over all of them.
        """
        size, config = self._order.batch_size_at(self.total_steps), self._config
        return every_item_once(self._valid, size, self._world, config.num_workers, config.validation_batches)

    def pictures(self) -> dict[str, Tensor]:
        """Sheets (3, H, W) in [0, 1] that show what the model does on a few validation clips."""
        raise NotImplementedError


def seed_of(*parts: object) -> int:
    """A seed that is a pure function of its arguments, on every machine."""
    return hashed(*parts) % 2**56  # torch's generators take less than 64 bits


def step_noise(seed: int, step: int, shape: tuple[int, ...], rank: int, world: int) -> Tensor:
    """This process's part (shape) of a standard normal draw for the whole batch of a step.

    Joined over the processes the draw is the same for every number of them.
    """
    generator = torch.Generator().manual_seed(seed_of("initial_slots", seed, step))
    whole = torch.randn(shape[0] * world, *shape[1:], generator=generator)
    return whole[rank * shape[0] : (rank + 1) * shape[0]]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on the device."""
    moved = {name: item.to(device, non_blocking=True) for name, item in batch.items() if hasattr(item, "to")}
    return {**batch, **moved}


def every_item_once(
    dataset: Any, batch_size: int, world: World, num_workers: int = 0, limit: int | None = None
) -> Iterator[tuple[Batch, int]]:
    """A data set cut into batches (over all processes every item once), and how many items of each count.

    Every process yields the same number of batches: one that runs out repeats its last, which counts 0.

    Args:
        batch_size: items over all processes.
        limit: at most this many batches.
    """
    share = max(1, batch_size // world.size)
    rank = world.rank if world.rank < len(dataset) else 0
    loader = evaluation_loader(dataset, share, num_workers, rank=rank, world=world.size)
    num_batches = math.ceil(math.ceil(len(dataset) / world.size) / share)
    batches = iter(loader)
    last: Batch = {}
    for _ in range(num_batches if limit is None else min(limit, num_batches)):
        batch = next(batches, None)
        count = 0 if batch is None or rank != world.rank else len(batch["video_id"])
        last = batch or last
        yield to_device(last, world.device), count


def frame_loss(
    frames: Tensor, target: Tensor, term: LossTerm, median: Tensor | None = None, clamp: bool = False
) -> Tensor:
    """Mean squared error of frames (B, T, 3, H, W), pixels far from the median weighted if asked.

    Args:
        median: (3, H, W), the training split's median image; needed if term.foreground_weight is above 0.
        clamp: both to [0, 1] first, as the original's decomposition losses do (no gradient outside).
    """
    if clamp:
        frames, target = frames.clamp(0, 1), target.clamp(0, 1)
    error = (frames.float() - target).square()
    if term.foreground_weight:
        far = far_from(target, _known(median), term.foreground_threshold).unsqueeze(2)  # (B, T, 1, H, W)
        error = error * (1 + term.foreground_weight * far)
    return error.mean()


def background_loss(slot_frames: Tensor, median: Tensor | None) -> Tensor:
    """Mean squared error of slot 0's pictures, of (B, T, N, 3, H, W), against the median image (3, H, W).

    Nothing says where slot 0 is visible. But once it can show the table, the other slots are the worse
    choice wherever the table is, and the masks follow. Without it, seeds fall into two kinds: those in which
    one slot takes the background, and those in which every slot takes an object and what is around it.
    """
    return (slot_frames[:, :, 0].float() - _known(median)).square().mean()


def _known(median: Tensor | None) -> Tensor:
    if median is None:
        raise ValueError("this loss needs the training split's median image")
    return median


def feature_loss(features: Tensor, target: Tensor, term: LossTerm) -> Tensor:
    """Mean squared error of patch features (B, T, L, F), clamped to [0, 1] if the term says so."""
    if term.clamp_features:
        features, target = features.clamp(0, 1), target.clamp(0, 1)
    return (features.float() - target).square().mean()


def slot_loss(slots: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of slots (B, T, N, D)."""
    return (slots.float() - target).square().mean()


def weighted_sum(terms: tuple[LossTerm, ...], values: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of all terms times their weights, and each unweighted term under its name, detached."""
    total = functools.reduce(operator.add, [t.weight * value for t, value in zip(terms, values, strict=True)])
    return total, {term.type: value.detach() for term, value in zip(terms, values, strict=True)}

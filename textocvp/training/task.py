"""What the training loop asks of a task, and the draws that both tasks share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from textocvp.data.loaders import evaluation_loader
from textocvp.data.order import hashed
from textocvp.training.deepspeed_engine import World

Batch = dict[str, Any]


class Task(Protocol):
    """One thing to train: supplies data, loss, pictures and validation; the loop does the rest."""

    name: str
    """The command's name, in front of every line of progress."""
    model: nn.Module
    """What is trained."""
    total_steps: int
    """Optimiser steps of the whole training."""

    def epoch_at(self, step: int) -> int:
        """Complete passes through the training split before this step."""

    def batches(self, first_step: int) -> Iterator[Batch]:
        """This process's batches of the steps from `first_step` on, on its device: a function of the step."""

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss () of one batch, differentiable, and its terms by name, detached."""

    def validation_batches(self) -> Iterator[tuple[Batch, int]]:
        """This process's batches of the validation split and how many clips of each count.

        Every process yields the same number of batches: parameters may be sharded over all of them.
        """

    def pictures(self) -> dict[str, Tensor]:
        """Sheets (3, H, W) in [0, 1] that show what the model does on a few validation clips."""


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
    if device.type == "cpu":
        return batch
    return {
        name: value.to(device, non_blocking=True) if hasattr(value, "to") else value
        for name, value in batch.items()
    }


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

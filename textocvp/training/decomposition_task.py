"""Training a decomposition model: reconstruct the clip through the slots."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment, load_experiment
from textocvp.config.schema import to_dict
from textocvp.config.training import LossTerm
from textocvp.data.loaders import ClipDataset, collate, open_videos, training_batches, training_loader
from textocvp.data.median_image import median_image
from textocvp.data.order import window_noise, windows_of
from textocvp.decomposition import Rendering, build_model
from textocvp.training.deepspeed_engine import World
from textocvp.training.recorder import segmentation, sheet
from textocvp.training.session import run_training
from textocvp.training.task import (
    Batch,
    background_loss,
    every_item_once,
    feature_loss,
    frame_loss,
    step_noise,
    to_device,
    weighted_sum,
)

PICTURE_CLIPS = 3


def train_decomposition(folder: Path, checkpoint: str | None, resume_training: bool) -> int:
    """Train the decomposition model of the experiment in `folder`; returns the exit code."""
    experiment = load_experiment(folder)
    return run_training(
        folder,
        experiment,
        lambda world: DecompositionTask(experiment, folder, world),
        {"model": to_dict(experiment.model)},
        checkpoint,
        resume_training,
    )


class DecompositionTask:
    """See `textocvp.training.task.Task`. The model's initialisation depends on training.seed alone."""

    name = "train-decomp"

    def __init__(self, experiment: Experiment, folder: Path, world: World) -> None:
        """folder: the experiment's folder. UserError where data or losses do not fit."""
        self._experiment, self._config, self._world = experiment, experiment.training, world
        self._terms = experiment.loss
        self._compute = {
            "mse": self._frame_loss,
            "background_mse": self._background_loss,
            "pred_feature_mse": self._feature_loss,
        }
        torch.manual_seed(self._config.seed)
        self.model = build_model(experiment, folder)
        for term in self._terms:
            if term.type not in self.model.losses:
                raise UserError(
                    f"loss: {term.type}: {experiment.model.model_name} has no such output; "
                    f"use {' or '.join(self.model.losses)}"
                )
        self._open_data(folder)

    def _open_data(self, folder: Path) -> None:
        dataset, config = self._experiment.dataset, self._config
        videos = open_videos(self._experiment, folder, "train")
        longest = max((stage.num_frames for stage in config.curriculum), default=dataset.num_frames)
        self._train = ClipDataset(videos, longest, config.seed, dataset.random_start)
        self._valid = ClipDataset(open_videos(self._experiment, folder, "valid"), dataset.num_frames)
        epoch_steps = -(-len(videos) // config.batch_size)
        self.total_steps = config.num_steps or config.num_epochs * epoch_steps
        self._order = self._batches_from(0).order
        compared = any(term.needs_median for term in self._terms)
        self._median = median_image(videos, folder).to(self._world.device) if compared else None

    def _batches_from(self, first_step: int):  # noqa: ANN202 (RankBatches)
        config, dataset, world = self._config, self._experiment.dataset, self._world
        return training_batches(
            len(self._train),
            config.batch_size,
            config.seed,
            first_step,
            self.total_steps,
            world.rank,
            world.size,
            config.curriculum,
            dataset.shuffle_train,
        )

    def epoch_at(self, step: int) -> int:
        """Complete passes through the training split before this step."""
        return self._order.epoch_at(step)

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Clips, and the noise that the initial slots are made from."""
        loader = training_loader(self._train, self._batches_from(first_step), self._config.num_workers)
        for step, batch in zip(count(first_step), loader):
            shape = (len(batch["video"]), self.model.num_slots, self.model.slot_dim)
            batch["noise"] = step_noise(self._config.seed, step, shape, self._world.rank, self._world.size)
            yield to_device(batch, self._world.device)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction losses of the clips; the terms by name."""
        _, rendering = self._reconstruct(batch)
        values = [self._compute[term.type](rendering, batch["video"], term) for term in self._terms]
        return weighted_sum(self._terms, values)

    def _frame_loss(self, rendering: Rendering, video: Tensor, term: LossTerm) -> Tensor:
        return frame_loss(rendering.frames, video, term, self._median, clamp=True)

    def _background_loss(self, rendering: Rendering, video: Tensor, term: LossTerm) -> Tensor:
        return background_loss(rendering.slot_frames, self._median)

    def _feature_loss(self, rendering: Rendering, video: Tensor, term: LossTerm) -> Tensor:
        return feature_loss(rendering.features, rendering.target_features, term)

    def validation_batches(self) -> Iterator[tuple[Batch, int]]:
        """The validation clips from their fixed start, each with noise of its own."""
        size, config = self._order.batch_size_at(self.total_steps), self._config
        for batch, num_clips in every_item_once(
            self._valid, size, self._world, config.num_workers, config.validation_batches
        ):
            yield self._with_fixed_noise(batch), num_clips

    def pictures(self) -> dict[str, Tensor]:
        """Per clip: video, reconstruction, strongest slot of each pixel, each slot's masked picture."""
        items = [self._valid[index] for index in range(min(PICTURE_CLIPS, len(self._valid)))]
        batch = self._with_fixed_noise(to_device(collate(items), self._world.device))
        _, rendering = self._reconstruct(batch)
        return {f"clip_{i}": decomposition_sheet(batch["video"][i], rendering, i) for i in range(len(items))}

    def _reconstruct(self, batch: Batch) -> tuple[Tensor, Rendering]:
        initial_slots = self.model.initial_slots(len(batch["video"]), noise=batch["noise"])
        return self.model(batch["video"], initial_slots)

    def _with_fixed_noise(self, batch: Batch) -> Batch:
        shape = (self.model.num_slots, self.model.slot_dim)
        noise = window_noise(self._config.seed, windows_of(batch), shape)
        return {**batch, "noise": noise.to(self._world.device)}


def decomposition_sheet(video: Tensor, rendering: Rendering, clip: int) -> Tensor:
    """A sheet of one clip: video (T, 3, H, W) and its rendering, a row each, then a row per slot."""
    masks = rendering.masks[clip]  # (T, N, 1, H, W)
    slots = rendering.slot_frames[clip] * masks + (1 - masks)
    rows = [video, rendering.frames[clip], segmentation(masks), *slots.unbind(1)]
    return sheet(rows)

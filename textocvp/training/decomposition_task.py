"""Training a decomposition model: reconstruct the clip through the slots."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor

from textocvp.config.experiment import Experiment
from textocvp.config.training import LossTerm
from textocvp.data.loaders import ClipDataset, collate
from textocvp.data.order import window_noise, windows_of
from textocvp.data.videos import open_videos
from textocvp.decomposition import Rendering, SlotDecomposition, build_model
from textocvp.training.deepspeed_engine import World
from textocvp.training.recorder import segmentation, sheet
from textocvp.training.task import (
    PICTURE_CLIPS,
    Batch,
    Task,
    background_loss,
    feature_loss,
    frame_loss,
    step_noise,
    to_device,
    weighted_sum,
)


class DecompositionTask(Task[SlotDecomposition, ClipDataset]):
    """Clips in, reconstructions out; every clip's initial slots have noise of their own."""

    name = "train-decomp"

    def __init__(self, experiment: Experiment, folder: Path, world: World) -> None:
        """folder: the experiment's folder. UserError if data or losses do not fit."""
        super().__init__(experiment, folder, world)
        torch.manual_seed(self._config.seed)
        self.model = build_model(experiment, folder)
        self._use_terms("loss", experiment.loss, self.model.losses)
        dataset, config = experiment.dataset, self._config
        longest = max((stage.num_frames for stage in config.curriculum), default=dataset.num_frames)
        train, valid = (open_videos(experiment, folder, split) for split in ("train", "valid"))
        clips = ClipDataset(train, longest, config.seed, dataset.random_start)
        self._open(clips, ClipDataset(valid, dataset.num_frames))

    def batches(self, first_step: int) -> Iterator[Batch]:
        """Clips, and the noise that their initial slots are made from."""
        for step, batch in zip(count(first_step), super().batches(first_step)):
            shape = (len(batch["video"]), self.model.num_slots, self.model.slot_dim)
            noise = step_noise(self._config.seed, step, shape, self._world.rank, self._world.size)
            yield {**batch, "noise": noise.to(self._world.device)}

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Reconstruction losses of the clips; the terms by name."""
        rendering, video = self._reconstruct(batch), batch["video"]
        return weighted_sum(self._terms, [self._term_loss(term, rendering, video) for term in self._terms])

    def _term_loss(self, term: LossTerm, rendering: Rendering, video: Tensor) -> Tensor:
        if term.type == "background_mse":
            return background_loss(rendering.slot_frames, self._median)
        if term.type == "pred_feature_mse":
            assert rendering.features is not None and rendering.target_features is not None
            return feature_loss(rendering.features, rendering.target_features, term)
        return frame_loss(rendering.frames, video, term, self._median, clamp=True)

    def validation_batches(self) -> Iterator[tuple[Batch, int]]:
        """The validation clips from their fixed start, each with noise of its own."""
        for batch, num_clips in super().validation_batches():
            yield self._with_fixed_noise(batch), num_clips

    def pictures(self) -> dict[str, Tensor]:
        """Per clip: video, reconstruction, strongest slot of each pixel, each slot's masked picture."""
        items = [self._valid[index] for index in range(min(PICTURE_CLIPS, len(self._valid)))]
        batch = self._with_fixed_noise(to_device(collate(items), self._world.device))
        rendering = self._reconstruct(batch)
        sheets = {}
        for i, video in enumerate(batch["video"]):
            masks = rendering.masks[i]  # (T, N, 1, H, W)
            slots = rendering.slot_frames[i] * masks + (1 - masks)
            sheets[f"clip_{i}"] = sheet([video, rendering.frames[i], segmentation(masks), *slots.unbind(1)])
        return sheets

    def _reconstruct(self, batch: Batch) -> Rendering:
        initial_slots = self.model.initial_slots(len(batch["video"]), noise=batch["noise"])
        _, rendering = self.model(batch["video"], initial_slots)
        return rendering

    def _with_fixed_noise(self, batch: Batch) -> Batch:
        shape = (self.model.num_slots, self.model.slot_dim)
        noise = window_noise(self._config.seed, windows_of(batch), shape)
        return {**batch, "noise": noise.to(self._world.device)}

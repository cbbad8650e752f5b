"""Clips as evaluation sees them: from the reader's start, encoded with the noise that the slot store has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from textocvp.config.experiment import Experiment
from textocvp.data.loaders import ClipDataset, evaluation_loader
from textocvp.data.order import window_noise, windows_of
from textocvp.data.tokenizers import Text, Tokenizer, tokenize
from textocvp.data.videos import median_image, open_videos
from textocvp.decomposition import Rendering
from textocvp.evaluation.metrics import PredictionScores
from textocvp.terminal import Progress

DECODED_AT_ONCE = 256
"""Slots that are decoded in one call."""


def best_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def clip_loader(
    experiment: Experiment,
    folder: Path,
    split: str,
    num_frames: int,
    batch_size: int,
    with_masks: bool = False,
    limit: int | None = None,
) -> DataLoader:
    """Batches of the clips of a split, from the frame where evaluation starts; shuffled with shuffle_eval.

    Args:
        with_masks: add `masks` (B, T, H, W) where the data has them.
        limit: only the first clips.
    Raises:
        UserError: no such data, or videos too short.
    """
    videos = open_videos(experiment, folder, split)
    with_masks = with_masks and videos.masks(0) is not None
    dataset = ClipDataset(videos, num_frames, with_masks=with_masks)
    if limit is not None and limit < len(dataset):
        dataset = Subset(dataset, range(limit))
    return evaluation_loader(dataset, batch_size, shuffle=experiment.dataset.shuffle_eval)


def training_median(experiment: Experiment, folder: Path) -> Tensor:
    """The training split's median image (3, H, W) in [0, 1]: the background of a camera that stands still."""
    return median_image(open_videos(experiment, folder, "train"), folder)


def initial_slots(model: nn.Module, batch: Mapping[str, Any], seed: int) -> Tensor:
    """Initial slots (B, N, D) of a batch: each clip's own, whatever batch it is in."""
    noise = window_noise(seed, windows_of(batch), (model.num_slots, model.slot_dim))
    return model.initial_slots(len(noise), noise=noise)


def watched(clips: DataLoader, progress: Progress, first: int = 0) -> Iterator[Mapping[str, Any]]:
    """The batches; each counts as done, after `first` clips of earlier passes, when the next is asked for."""
    done = first
    for batch in clips:
        yield batch
        done += len(batch["video_id"])
        progress.update(done)


@torch.inference_mode()
def encode_clips(model: nn.Module, batch: Mapping[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Video (B, T, 3, H, W) on the model's device, and its slots (B, T, N, D)."""
    slots = initial_slots(model, batch, seed)
    video = batch["video"].to(slots.device)
    return video, model.encode(video, slots)


@torch.inference_mode()
def decode_slots(model: nn.Module, slots: Tensor) -> Rendering:
    """Pictures and masks of slots (B, T, N, D), a few frames at a time: a decoder's inner maps are large."""
    frames = slots.flatten(0, 1).unsqueeze(1)  # (B * T, 1, N, D)
    parts = [model.decode(part) for part in frames.split(max(1, DECODED_AT_ONCE // slots.shape[2]))]

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts]).squeeze(1).unflatten(0, slots.shape[:2])

    return Rendering(joined("frames"), joined("slot_frames"), joined("masks"))


REFERENCES = ("copy_frame", "copy_slots", "ceiling")


@dataclass(frozen=True)
class Scene:
    """A batch of clips cut into context and future, with what every predictor is compared to."""

    slots: Tensor
    """(B, C + P, N, D) of all frames."""
    context: Tensor
    """(B, C, 3, H, W)."""
    targets: Tensor
    """(B, P, 3, H, W)."""
    references: dict[str, Tensor]
    """(B, P, 3, H, W) each: copy_frame repeats the last context frame, copy_slots what its slots decode to;
    ceiling decodes the true future slots."""


@torch.inference_mode()
def encode_scene(model: nn.Module, batch: Mapping[str, Any], num_context: int, seed: int) -> Scene:
    """Cut and encode a batch of clips of C + P frames; `seed` is that of the initial slots' noise."""
    video, slots = encode_clips(model, batch, seed)
    context, targets = video[:, :num_context], video[:, num_context:]
    decoded = decode_slots(model, slots[:, num_context - 1 :]).frames
    return Scene(
        slots,
        context,
        targets,
        {
            "copy_frame": context[:, -1:].expand_as(targets),
            "copy_slots": decoded[:, :1].expand_as(targets),
            "ceiling": decoded[:, 1:],
        },
    )


@torch.inference_mode()
def forecast_frames(model: nn.Module, forecaster: nn.Module, scene: Scene, text: Text | None) -> Tensor:
    """What a predictor sees coming: (B, P, 3, H, W), not clamped."""
    num_context, num_preds = scene.context.shape[1], scene.targets.shape[1]
    slots = forecaster(scene.slots[:, :num_context], text, num_context, num_preds)
    return decode_slots(model, slots).frames


def caption_text(tokenizer: Tokenizer | None, captions: Sequence[str], device: torch.device) -> Text | None:
    """The captions as a predictor reads them; None for one without text."""
    return tokenizer and tokenize(tokenizer, captions).to(device)


def score_forecasters(
    model: nn.Module,
    forecasters: Mapping[str, nn.Module],
    clips: Iterable[Mapping[str, Any]],
    num_context: int,
    seed: int,
    tokenizer: Tokenizer | None,
) -> dict[str, dict[str, Any]]:
    """Figures of each forecaster by its name, and of the REFERENCES, from one pass over the clips.

    Args:
        model: decomposition model in eval mode; forecasters: on its device, in eval mode.
        clips: batches of clips of C + P frames, from `clip_loader`.
        tokenizer: of the forecasters, from `open_tokenizer`.
    """
    scores = {name: PredictionScores() for name in (*forecasters, *REFERENCES)}
    for batch in clips:
        scene = encode_scene(model, batch, num_context, seed)
        frames = dict(scene.references)
        text = caption_text(tokenizer, batch["caption"], scene.slots.device)
        for name, forecaster in forecasters.items():
            frames[name] = forecast_frames(model, forecaster, scene, text)
        for name, predicted in frames.items():
            scores[name].update(predicted, scene.targets, scene.context[:, -1])
    return {name: score.result() for name, score in scores.items()}

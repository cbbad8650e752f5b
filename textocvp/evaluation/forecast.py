"""Clips as evaluation sees them: from the reader's start, encoded with the noise that the slot store has."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from textocvp.config.experiment import Experiment, load_predictor_experiment
from textocvp.data.dataset import open_dataset
from textocvp.data.loaders import ClipDataset, evaluation_loader
from textocvp.data.order import windows_of
from textocvp.data.tokenizers import Text, Tokenizer, open_tokenizer, tokenize
from textocvp.data.videos import median_image, open_videos
from textocvp.decomposition import Rendering, SlotDecomposition
from textocvp.evaluation import Seeds, find_seeds, seed_checkpoint
from textocvp.evaluation.metrics import PredictionScores
from textocvp.files import UserError
from textocvp.predictors import SlotForecaster
from textocvp.terminal import Progress
from textocvp.training.checkpoint import find_checkpoint, load_forecaster
from textocvp.training.slot_encoding import encode_windows

DECODED_AT_ONCE = 256
"""Slots that are decoded in one call."""
SPLIT = "test"
REFERENCES = ("copy_frame", "copy_slots", "ceiling")
SINGLE = ""
"""Instead of a seed: the one run of a predictor that was trained without seeds."""


log = logging.getLogger(__name__)


def best_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Clips:
    """Batches of clips, which can be gone through again and again."""

    loader: DataLoader
    number: int
    """Clips in all batches together."""

    def watched(self, progress: Progress, first: int = 0) -> Iterator[Mapping[str, Any]]:
        """The batches; each counts as done, after `first` earlier clips, when the next one is asked for."""
        for batch in self.loader:
            yield batch
            first += len(batch["video_id"])
            progress.update(first)


def clip_loader(
    experiment: Experiment,
    folder: Path,
    split: str,
    num_frames: int,
    batch_size: int,
    with_masks: bool = False,
    limit: int | None = None,
) -> Clips:
    """The clips of a split, from the frame where evaluation starts; shuffled with shuffle_eval.

    Args:
        with_masks: add `masks` (B, T, H, W) if the data has them.
        limit: only the first clips.
    Raises:
        UserError: no such data, or videos too short.
    """
    videos = open_videos(experiment, folder, split)
    with_masks = with_masks and videos.masks(0) is not None
    dataset = ClipDataset(videos, num_frames, with_masks=with_masks)
    shown = Subset(dataset, range(len(dataset))[:limit])
    return Clips(evaluation_loader(shown, batch_size, shuffle=experiment.dataset.shuffle_eval), len(shown))


def training_median(experiment: Experiment, folder: Path) -> Tensor:
    """The training split's median image (3, H, W) in [0, 1]: the background of a static camera."""
    return median_image(open_videos(experiment, folder, "train"), folder)


@torch.inference_mode()
def encode_clips(model: SlotDecomposition, batch: Mapping[str, Any], seed: int) -> tuple[Tensor, Tensor]:
    """Video (B, T, 3, H, W) on the model's device, and its slots (B, T, N, D).

    Each clip's initial slots are its own (`seed` is that of their noise), whatever batch it is in.
    """
    video = batch["video"].to(next(model.parameters()).device)
    return video, encode_windows(model, video, windows_of(batch), seed)


@torch.inference_mode()
def decode_slots(model: SlotDecomposition, slots: Tensor) -> Rendering:
    """Pictures and masks of slots (B, T, N, D), a few frames at a time: a decoder's inner maps are large."""
    frames = slots.flatten(0, 1).unsqueeze(1)  # (B * T, 1, N, D)
    parts = [model.decode(part) for part in frames.split(max(1, DECODED_AT_ONCE // slots.shape[2]))]

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts]).squeeze(1).unflatten(0, slots.shape[:2])

    return Rendering(joined("frames"), joined("slot_frames"), joined("masks"))


@dataclass(frozen=True)
class Predictor:
    """A trained predictor, and what it is to forecast."""

    name: str
    forecasters: dict[str, SlotForecaster]
    """By seed; the only one of a training without seeds under SINGLE."""
    missing_seeds: list[str]
    tokenizer: Tokenizer | None
    """Of its captions; None: it reads none."""
    num_context: int
    num_preds: int

    @property
    def num_frames(self) -> int:
        """Frames of its clips."""
        return self.num_context + self.num_preds


def load_predictor(
    exp_directory: Path,
    name: str,
    checkpoint: str,
    num_context: int | None = None,
    num_preds: int | None = None,
) -> Predictor:
    """All seeds of a predictor that have this checkpoint.

    Args:
        num_context, num_preds: other numbers of frames than it was trained for.
    Raises:
        UserError: no such predictor or checkpoint, or it cannot forecast so many frames.
    """
    experiment, folder = load_predictor_experiment(exp_directory, name), exp_directory / "predictors" / name
    params = experiment.prediction_params
    num_context = params.num_context if num_context is None else num_context
    num_preds = params.num_preds if num_preds is None else num_preds
    if min(num_context, num_preds) < 1:
        raise UserError(f"--num_seed {num_context}, --num_preds {num_preds}: expected at least 1 of each")
    buffer_size = params.input_buffer_size or params.num_frames
    if num_context > buffer_size:
        raise UserError(
            f"--num_seed {num_context}: the predictor's buffer holds {buffer_size} "
            f"frames (prediction_params.input_buffer_size)"
        )
    seeds = find_seeds(folder, checkpoint)
    warn_missing(folder, seeds)
    paths = {seed: seed_checkpoint(folder, seed, checkpoint) for seed in seeds.finished}
    paths = paths or {SINGLE: find_checkpoint(folder, checkpoint)}
    forecasters = {seed: load_forecaster(experiment, path).to(best_device()) for seed, path in paths.items()}
    tokenizer = open_tokenizer(experiment, folder, open_dataset(experiment, folder, SPLIT))
    return Predictor(name, forecasters, seeds.missing, tokenizer, num_context, num_preds)


def warn_missing(folder: Path, seeds: Seeds) -> None:
    """Log which seeds are left out."""
    if seeds.missing:
        log.warning("%s: left out, not finished: seed %s", folder, ", ".join(seeds.missing))


@torch.inference_mode()
def forecast_scene(
    model: SlotDecomposition, predictor: Predictor, batch: Mapping[str, Any], seed: int
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Cut, encode and forecast a batch of clips of C + P frames; see `score_forecasters`.

    Returns:
        context (B, C, 3, H, W), targets (B, P, 3, H, W), and what is to be compared with the targets, (B, P,
        3, H, W) each, not clamped: the forecasts by seed, and the REFERENCES. copy_frame repeats the last
        context frame, copy_slots what its slots decode to; ceiling decodes the true future slots.
    """
    num_context, num_preds = predictor.num_context, predictor.num_preds
    video, slots = encode_clips(model, batch, seed)
    context, targets = video[:, :num_context], video[:, num_context:]
    decoded = decode_slots(model, slots[:, num_context - 1 :]).frames
    frames = {
        "copy_frame": context[:, -1:].expand_as(targets),
        "copy_slots": decoded[:, :1].expand_as(targets),
        "ceiling": decoded[:, 1:],
    }
    text = caption_text(predictor.tokenizer, batch["caption"], slots.device)
    for name, forecaster in predictor.forecasters.items():
        predicted = forecaster(slots[:, :num_context], text, num_context, num_preds)
        frames[name] = decode_slots(model, predicted).frames
    return context, targets, frames


def caption_text(tokenizer: Tokenizer | None, captions: Sequence[str], device: torch.device) -> Text | None:
    """The captions as a predictor reads them; None for one without text."""
    return None if tokenizer is None else tokenize(tokenizer, captions).to(device)


def score_forecasters(
    model: SlotDecomposition, predictor: Predictor, clips: Iterable[Mapping[str, Any]], seed: int
) -> dict[str, dict[str, Any]]:
    """Figures of a predictor by seed, and of the REFERENCES, from one pass over the clips.

    Args:
        model: decomposition model; it and the forecasters on one device, in eval mode.
        clips: batches of clips of C + P frames, from `clip_loader`.
        seed: of the initial slots' noise.
    """
    scores: dict[str, PredictionScores] = defaultdict(PredictionScores)
    for batch in clips:
        context, targets, frames = forecast_scene(model, predictor, batch, seed)
        for name, predicted in frames.items():
            scores[name].update(predicted, targets, context[:, -1])
    return {name: score.result() for name, score in scores.items()}

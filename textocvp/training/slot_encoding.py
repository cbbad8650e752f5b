"""Slots of windows: for the slot store and for training without one alike."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from textocvp import stopping
from textocvp.config.data import SPLITS
from textocvp.config.experiment import load_experiment
from textocvp.config.schema import to_dict
from textocvp.data.loaders import to_float
from textocvp.data.order import Window, slots_config, window_frames, window_noise
from textocvp.data.slot_store import Batch, SlotPart, plan_slot_parts
from textocvp.data.videos import Videos, open_videos
from textocvp.decomposition import SlotDecomposition
from textocvp.files import sha256_file
from textocvp.terminal import Progress
from textocvp.training.checkpoint import find_checkpoint, load_decomposition

WINDOW_BATCH = 16
"""Windows tracked together for the store. Always as many (copies of the last one fill up): results depend on
the shape in their last bits."""

log = logging.getLogger(__name__)


@torch.no_grad()
def encode_windows(model: SlotDecomposition, video: Tensor, windows: Sequence[Window], seed: int) -> Tensor:
    """Slots (B, T, N, D), float32, of windows whose frames are video (B, T, 3, H, W).

    The initial slots are drawn from noise that is a function of seed and window.
    """
    with torch.autocast(video.device.type, enabled=False):
        return track_windows(model, model.features(video), windows, seed)


@torch.no_grad()
def track_windows(model: SlotDecomposition, features: Tensor, windows: Sequence[Window], seed: int) -> Tensor:
    """Slots (B, T, N, D) of windows whose image features are (B, T, L, F)."""
    noise = window_noise(seed, windows, (model.num_slots, model.slot_dim))
    return model.track(features, model.initial_slots(len(windows), noise=noise.to(features.device)))


@torch.no_grad()
def encode_videos(
    model: SlotDecomposition, videos: Iterable[tuple[Tensor, Sequence[Window]]], num_frames: int, seed: int
) -> Iterator[tuple[list[Window], Tensor]]:
    """Slots of the windows of whole videos; each frame's features are computed once and serve all windows.

    Args:
        videos: (frames (1, T, 3, H, W) on the model's device, windows) of each video.
        num_frames: frames per window.
    Yields:
        at most WINDOW_BATCH windows, in order, and their slots (B, num_frames, N, D) on the CPU.
    """

    def each() -> Iterator[tuple[Window, Tensor]]:
        for frames, windows in videos:
            features = model.features(frames)[0]  # (T, L, F)
            yield from ((window, features[window.start : window.start + num_frames]) for window in windows)

    waiting = each()
    while batch := list(islice(waiting, WINDOW_BATCH)):
        filled = batch + batch[-1:] * (WINDOW_BATCH - len(batch))
        features = torch.stack([features for _, features in filled])
        slots = track_windows(model, features, [window for window, _ in filled], seed)
        yield [window for window, _ in batch], slots[: len(batch)].cpu()


class _Stopped(Exception):  # noqa: N818 (not an error: the way out of a half-written part)
    """A signal asked to stop; the part in hand is dropped, finished ones stay."""


class SlotWriter:
    """Encodes the windows of all splits of an experiment with one checkpoint."""

    def __init__(self, folder: Path, decomp_ckpt: str) -> None:
        """UserError: no such experiment or checkpoint."""
        self.folder = folder
        self.experiment = load_experiment(folder)
        self.checkpoint = find_checkpoint(folder, decomp_ckpt)
        self.num_frames = window_frames(self.experiment, folder)
        self.seed = slots_config(self.experiment).seed
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.backends.cudnn.deterministic = True
        self.model = load_decomposition(self.experiment, self.checkpoint).to(self._device)

    def write(self, shard: int, num_shards: int) -> bool:
        """Write what is missing of this shard's parts; False if a signal asked to stop before all was done.

        UserError: data are missing, or a part was created from other data.
        """
        # an experiment of the original validates on its test split: by split, so that it is stored once
        opened = (open_videos(self.experiment, self.folder, split) for split in SPLITS)
        sources = {videos.dataset.split: videos for videos in opened}
        plan = partial(plan_slot_parts, self.experiment, self.folder)
        request = sha256_file(self.checkpoint), self.num_frames, shard, num_shards
        parts = [(part, videos) for videos in sources.values() for part in plan(videos, *request)]
        missing = [(part, videos) for part, videos in parts if not part.is_finished()]
        total = sum(len(part.windows) for part, _ in missing)
        log.info(
            "precompute-slots: %d parts, %d already there; %d windows of %d frames to encode",
            len(parts), len(parts) - len(missing), total, self.num_frames,
        )  # fmt: skip
        done = 0
        with Progress("precompute-slots", total, unit="window") as progress, suppress(_Stopped):
            for part, videos in missing:
                part.write(self._batches(part, videos, progress, done), to_dict(self.experiment))
                done += len(part.windows)
        return done == total

    def _batches(self, part: SlotPart, videos: Videos, progress: Progress, done: int) -> Iterator[Batch]:
        frames = (
            (to_float(videos.frames(row))[None].to(self._device), windows) for row, windows in part.videos
        )
        for windows, slots in encode_videos(self.model, frames, self.num_frames, self.seed):
            yield windows, slots.numpy()
            done += len(windows)
            progress.update(done)
            if stopping.requested():
                raise _Stopped

"""Slots of windows: for the slot store and for training without one alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from textocvp.data.windows import Window, window_noise

WindowFeatures = tuple[Window, Tensor]
"""A window and the image features (T, L, F) of its frames."""
WINDOW_BATCH = 16
"""Windows tracked together for the store. Always as many: results depend on the shape in their last bits."""


@torch.no_grad()
def encode_windows(model: nn.Module, video: Tensor, windows: Sequence[Window], seed: int) -> Tensor:
    """Slots (B, T, N, D), float32, of windows whose frames are video (B, T, 3, H, W).

    The initial slots are drawn from noise that is a function of seed and window.
    """
    with torch.autocast(video.device.type, enabled=False):
        return track_windows(model, model.features(video), windows, seed)


@torch.no_grad()
def track_windows(model: nn.Module, features: Tensor, windows: Sequence[Window], seed: int) -> Tensor:
    """Slots (B, T, N, D) of windows whose image features are (B, T, L, F)."""
    noise = window_noise(seed, windows, (model.num_slots, model.slot_dim))
    return model.track(features, model.initial_slots(len(windows), noise=noise.to(features.device)))


@torch.no_grad()
def encode_videos(
    model: nn.Module, videos: Iterable[tuple[Tensor, Sequence[Window]]], num_frames: int, seed: int
) -> Iterator[tuple[list[Window], Tensor]]:
    """Slots of the windows of whole videos; each frame's features are computed once and serve all windows.

    Args:
        videos: (frames (1, T, 3, H, W) on the model's device, windows) of each video.
        num_frames: frames per window.
    Yields:
        at most WINDOW_BATCH windows, in order, and their slots (B, num_frames, N, D) on the CPU.
    """
    waiting: list[WindowFeatures] = []
    for frames, windows in videos:
        features = model.features(frames)[0]  # (T, L, F)
        waiting += [(window, features[window.start : window.start + num_frames]) for window in windows]
        while len(waiting) >= WINDOW_BATCH:
            yield _track_batch(model, waiting[:WINDOW_BATCH], seed)
            waiting = waiting[WINDOW_BATCH:]
    if waiting:
        yield _track_batch(model, waiting, seed)


def _track_batch(model: nn.Module, batch: list[WindowFeatures], seed: int) -> tuple[list[Window], Tensor]:
    """The batch is filled up with copies of its last window to WINDOW_BATCH."""
    filled = batch + batch[-1:] * (WINDOW_BATCH - len(batch))
    features = torch.stack([features for _, features in filled])
    slots = track_windows(model, features, [window for window, _ in filled], seed)
    return [window for window, _ in batch], slots[: len(batch)].cpu()

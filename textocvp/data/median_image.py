"""The median image of a training split: what a static camera sees where nothing moves."""

from __future__ import annotations

from pathlib import Path
from typing import Union

import numpy as np
import torch
from PIL import Image

from textocvp.config.errors import UserError
from textocvp.config.experiment import experiment_root
from textocvp.data.frame_store import frames_key
from textocvp.data.videos import DecodedVideos, StoredVideos
from textocvp.files import atomic_path, sha256_json

FAR = 0.06
"""Difference from which a pixel counts as another one: above the renderer's and the codec's noise."""
MAX_VIDEOS = 512
FRAMES_PER_VIDEO = 4


def median_image(videos: Union[StoredVideos, DecodedVideos], folder: Path) -> torch.Tensor:
    """Median of each pixel and channel over frames spread evenly through the split: (3, H, W) in [0, 1].

    Computed once and kept as EXP/median_image_KEY.png, KEY naming data set and size.

    Args:
        folder: the experiment's folder, or that of one of its seeds or predictors.
    """
    height, width = videos.frames(0, 0, 1).shape[-2:]
    key = sha256_json(frames_key(videos.dataset, (height, width)))[:12]
    path = experiment_root(folder) / f"median_image_{key}.png"
    if not path.is_file():
        with atomic_path(path) as temporary:
            Image.fromarray(_compute(videos)).save(temporary, format="PNG")
    return torch.from_numpy(_read(path)).permute(2, 0, 1).float().div_(255)


def far_from(frames: torch.Tensor, reference: torch.Tensor, threshold: float = FAR) -> torch.Tensor:
    """Pixels (..., H, W) bool of frames (..., 3, H, W) where some channel differs by more than `threshold`.

    Args:
        reference: broadcastable to frames, for example the median image (3, H, W).
    """
    return (frames - reference).abs().amax(dim=-3) > threshold


def _read(path: Path) -> np.ndarray:
    """(H, W, 3) uint8; UserError where the file is damaged."""
    try:
        return np.array(Image.open(path))
    except (OSError, SyntaxError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it, and it is computed anew") from None


def _compute(videos: Union[StoredVideos, DecodedVideos]) -> np.ndarray:
    """(H, W, 3) uint8."""
    rows = np.unique(np.linspace(0, len(videos) - 1, MAX_VIDEOS).round().astype(int))
    frames = np.concatenate([_spread(videos, int(row)) for row in rows])  # (frames, 3, H, W)
    lines = [np.median(frames[:, :, line], axis=0) for line in range(frames.shape[2])]
    return np.stack(lines).round().astype(np.uint8).transpose(0, 2, 1)


def _spread(videos: Union[StoredVideos, DecodedVideos], row: int) -> np.ndarray:
    frames = videos.frames(row)
    return frames[np.linspace(0, len(frames) - 1, FRAMES_PER_VIDEO).round().astype(int)]

"""Scores of a decomposition model over the clips of a split, and of the two baselines that learn nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Optional

import numpy as np
import torch
from torch import Tensor, nn

from textocvp.evaluation.baselines import colour_kmeans, tiling
from textocvp.evaluation.clips import decode_slots, encode_clips
from textocvp.evaluation.metrics import psnr
from textocvp.evaluation.segmentation import SegmentationScores

Scores = dict[str, Optional[float]]
Clips = Iterable[Mapping[str, Any]]


@torch.inference_mode()
def score_model(model: nn.Module, clips: Clips, seed: int) -> Scores:
    """Segmentation METRICS by the largest mask (None without masks in the data), PSNR of the reconstruction.

    Args:
        model: in eval mode.
        clips: batches from `clip_loader`.
        seed: of the initial slots' noise.
    """
    segmentation, quality = SegmentationScores(), []
    for batch in clips:
        video, slots = encode_clips(model, batch, seed)
        rendering = decode_slots(model, slots)
        quality.append(psnr(rendering.frames.clamp(0, 1), video).flatten().cpu())
        _add_clips(segmentation, batch, rendering.masks.squeeze(3).argmax(dim=2).cpu().numpy())
    return {**segmentation.result(), "psnr": float(torch.cat(quality).mean())}


def score_baselines(clips: Clips, num_slots: int, median: Tensor) -> dict[str, Scores]:
    """Segmentation METRICS of a tiling with as many cells as slots and of k-means on colour.

    Args:
        median: (3, H, W), the training split's median image; k-means groups what is far from it.
    """
    tiles, colours = SegmentationScores(), SegmentationScores()
    for batch in clips:
        if "masks" not in batch:
            break
        cells = tiling(num_slots, *batch["video"].shape[-2:])
        _add_clips(tiles, batch, np.broadcast_to(cells, batch["masks"].shape))
        groups = [
            colour_kmeans(video, median, num_objects(masks))
            for video, masks in zip(batch["video"], batch["masks"].numpy(), strict=True)
        ]
        _add_clips(colours, batch, np.stack(groups))
    return {"tiling": tiles.result(), "colour_kmeans": colours.result()}


def num_objects(masks: np.ndarray) -> int:
    """How many objects are seen in a clip's masks (T, H, W), 0 = background."""
    return int((np.unique(masks) > 0).sum())


def _add_clips(scores: SegmentationScores, batch: Mapping[str, Any], labels: np.ndarray) -> None:
    if "masks" in batch:
        for true, predicted in zip(batch["masks"].numpy(), labels, strict=True):
            scores.update(true, predicted)

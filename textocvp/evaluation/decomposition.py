"""Segmentations that learn nothing: a tiling of the image, and k-means on colour. What slots have to beat.

FG-ARI alone misleads: a tiling scores about 0.5. Objects of different colours are easy for k-means, which is
also given the true number of objects, and the fact that the camera is static.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Optional

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from textocvp.data.videos import far_from
from textocvp.decomposition import SlotDecomposition
from textocvp.evaluation.forecast import decode_slots, encode_clips
from textocvp.evaluation.metrics import SegmentationScores, psnr

COLOUR_KMEANS_STARTS = 4
"""Initialisations of k-means, of which the best is kept."""


def tiling(num_cells: int, height: int, width: int) -> np.ndarray:
    """Labels (height, width) of a nearly square tiling: 4 cells: 2 x 2, 5 cells: rows of 2 and 3."""
    num_rows = max(1, int(np.sqrt(num_cells)))
    row_of = np.arange(height) * num_rows // height
    labels = np.empty((height, width), dtype=np.int64)
    first = 0
    for row in range(num_rows):
        cells = (num_cells * (row + 1)) // num_rows - (num_cells * row) // num_rows
        labels[row_of == row] = first + np.arange(width) * cells // width
        first += cells
    return labels


def colour_kmeans(video: Tensor, median: Tensor, num_objects: int, seed: int = 0) -> np.ndarray:
    """Group a clip's foreground pixels by colour.

    Args:
        video: (T, 3, H, W) in [0, 1].
        median: (3, H, W) median image of the training split.
        num_objects: how many groups.
        seed: of k-means' initialisation.
    Returns:
        (T, H, W) integers: 0 for pixels near the median image, else 1 + the group.
    """
    inside = far_from(video, median).numpy()
    labels = np.zeros(inside.shape, dtype=np.int64)
    colours = video.permute(0, 2, 3, 1).numpy()[inside]
    num_groups = min(num_objects, len(colours))
    if num_groups > 0:
        kmeans = KMeans(num_groups, n_init=COLOUR_KMEANS_STARTS, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer colours than objects: fewer groups
            labels[inside] = 1 + kmeans.fit_predict(colours)
    return labels


Scores = dict[str, Optional[float]]
Clips = Iterable[Mapping[str, Any]]


@torch.inference_mode()
def score_model(model: SlotDecomposition, clips: Clips, seed: int) -> Scores:
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

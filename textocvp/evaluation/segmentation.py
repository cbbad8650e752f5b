"""How well slots separate objects: IoU after matching, adjusted Rand index. Label 0 is the background.

Everything is a function of a clip's contingency table: how many of its pixels, over all frames, have true
label i and predicted label j. A label means the same slot throughout: slots that swap objects lose.
"""

from __future__ import annotations

from typing import Optional

import numpy as np
from scipy.optimize import linear_sum_assignment

METRICS = ("object_miou", "background_iou", "ari", "fg_ari")


def contingency(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Joint counts (I, J) of integer labels of equal shape; row i is true label i, row 0 the background."""
    num_true, num_predicted = int(true.max()) + 1, int(predicted.max()) + 1
    joint = true.astype(np.int64).ravel() * num_predicted + predicted.astype(np.int64).ravel()
    return np.bincount(joint, minlength=num_true * num_predicted).reshape(num_true, num_predicted)


def adjusted_rand_index(table: np.ndarray) -> Optional[float]:
    """Adjusted Rand index (Hubert and Arabie 1985) of a contingency table; None for a table without pixels.

    Equal to scikit-learn's adjusted_rand_score, without sorting pixels. 1 where both labellings agree, among
    them the case of one single segment in both; around 0 for labels that say nothing about each other.
    """
    total = int(table.sum())
    if total == 0:
        return None
    pairs, rows, columns = (float(_pairs(counts)) for counts in (table, table.sum(1), table.sum(0)))
    if pairs == rows == columns:
        return 1.0
    expected = rows * columns / max(_pairs(np.array([total])), 1.0)
    return (pairs - expected) / ((rows + columns) / 2 - expected)


def _pairs(counts: np.ndarray) -> float:
    """Number of unordered pairs within each group."""
    counts = counts.astype(np.float64)
    return float((counts * (counts - 1) / 2).sum())


def matched_ious(table: np.ndarray) -> np.ndarray:
    """Intersection over union (I,) of each true segment with the predicted one that it is matched to.

    Background and objects are matched together, one to one, so that the IoUs' sum is largest (Hungarian
    algorithm). A segment that is left without partner has 0, an absent one (no pixel) is nan.
    """
    true_sizes, predicted_sizes = table.sum(1), table.sum(0)
    union = true_sizes[:, None] + predicted_sizes[None] - table
    iou = table / np.maximum(union, 1)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched = np.zeros(len(table))
    matched[rows] = iou[rows, columns]
    return np.where(true_sizes > 0, matched, np.nan)


def segmentation_scores(true: np.ndarray, predicted: np.ndarray) -> dict[str, Optional[float]]:
    """METRICS of one clip.

    Args:
        true: (T, H, W) integers, 0 is the background.
        predicted: (T, H, W) integers, e.g. the slot with the largest mask.
    Returns:
        object_miou: mean IoU of the objects that are seen; background_iou; ari: over all pixels; fg_ari: over
        the objects' pixels, blind to a slot that also covers the background. None: nothing to be measured.
    """
    table = contingency(true, predicted)
    ious = matched_ious(table)
    objects = ious[1:][~np.isnan(ious[1:])]
    return {
        "object_miou": float(objects.mean()) if objects.size else None,
        "background_iou": None if np.isnan(ious[0]) else float(ious[0]),
        "ari": adjusted_rand_index(table),
        "fg_ari": adjusted_rand_index(table[1:]),
    }


class SegmentationScores:
    """Mean of each metric over clips, leaving out the clips in which it cannot be measured."""

    def __init__(self) -> None:
        self._values: dict[str, list[float]] = {name: [] for name in METRICS}

    def update(self, true: np.ndarray, predicted: np.ndarray) -> None:
        """Add one clip: labels (T, H, W), as for `segmentation_scores`."""
        for name, value in segmentation_scores(true, predicted).items():
            if value is not None:
                self._values[name].append(value)

    def result(self) -> dict[str, Optional[float]]:
        """METRICS; None where no clip could be measured."""
        return {name: float(np.mean(values)) if values else None for name, values in self._values.items()}

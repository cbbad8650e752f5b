"""Quality of predicted frames (PSNR, SSIM, PSNR over the pixels that move) and of segmentations.

The settings are the original's. torchmetrics' SSIM is not used: it averages over the reflected border too,
which moves single values by up to 0.02.
"""

import math
from collections.abc import Iterable
from typing import Optional

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from textocvp.data.videos import far_from
from textocvp.files import UserError

PSNR_EPSILON = 1e-8
"""Added to the mean squared error: identical images score exactly 80 dB."""
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
"""Taps and standard deviation (pixels) of SSIM's Gaussian window."""
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def decibels(mse: float) -> float:
    """PSNR (dB) of a mean squared error of values in [0, 1]."""
    return 10.0 * math.log10(1.0 / (mse + PSNR_EPSILON))


def psnr(predicted: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (dB) of each image, over its channels and pixels.

    Args:
        predicted, target: (..., C, H, W) in [0, 1].
    Returns:
        (...), 10 log10(1 / (mse + 1e-8)).
    """
    mse = (predicted - target).square().mean(dim=(-3, -2, -1))
    return 10.0 * torch.log10(1.0 / (mse + PSNR_EPSILON))


def gaussian_window(dtype: torch.dtype = torch.float32) -> Tensor:
    """SSIM's window along one axis, (11,), summing to 1."""
    taps = torch.arange(SSIM_WINDOW, dtype=dtype) - SSIM_WINDOW // 2
    window = torch.exp(-taps.square() / (2 * SSIM_SIGMA**2))
    return window / window.sum()


def ssim(predicted: Tensor, target: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004) of each image, averaged over channels and positions.

    The window is separable and is not padded (32 pixels leave 22 positions); variances are biased; values are
    not clipped at 0.

    Args:
        predicted, target: (..., C, H, W) in [0, 1].
    Returns:
        (...).
    Raises:
        UserError: an image is smaller than the window.
    """
    height, width = target.shape[-2:]
    if min(height, width) < SSIM_WINDOW:
        raise UserError(
            f"SSIM needs images of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels, these have "
            f"{height} x {width}; set a larger dataset.img_size"
        )
    x, y = predicted.reshape(-1, 1, height, width), target.reshape(-1, 1, height, width)
    window, images = gaussian_window(x.dtype).to(x.device), torch.cat([x, y, x * x, y * y, x * y])
    means = F.conv2d(F.conv2d(images, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = means.chunk(5)  # (M, 1, H - 10, W - 10) each
    variances = mean_xx - mean_x.square() + mean_yy - mean_y.square()
    covariance = mean_xy - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x.square() + mean_y.square() + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
    return (luminance * structure).reshape(*target.shape[:-2], -1).mean(dim=(-2, -1))


def moving_pixels(context: Tensor, targets: Tensor) -> Tensor:
    """Which pixels of each clip move: those that some target frame shows far from the context frame.

    Args:
        context: (B, C, H, W) last frame that the predictor saw.
        targets: (B, P, C, H, W) frames that it must forecast.
    Returns:
        (B, H, W) bool.
    """
    return far_from(targets, context.unsqueeze(1)).any(dim=1)


class PredictionScores:
    """Adds up the quality of predicted frames over batches; every clip weighs the same."""

    def __init__(self) -> None:
        self._psnr: list[Tensor] = []
        self._ssim: list[Tensor] = []
        self._moving_error, self._moving_values = 0.0, 0

    def update(self, predicted: Tensor, targets: Tensor, context: Tensor) -> None:
        """Add a batch.

        Args:
            predicted, targets: (B, P, C, H, W); predictions are clamped to [0, 1].
            context: (B, C, H, W) last context frame.
        """
        predicted = predicted.clamp(0, 1)
        self._psnr.append(psnr(predicted, targets).cpu())
        self._ssim.append(ssim(predicted, targets).cpu())
        moving = moving_pixels(context, targets)[:, None, None].expand_as(targets)
        self._moving_error += float(((predicted - targets)[moving]).double().square().sum())
        self._moving_values += int(moving.sum())

    def result(self) -> dict[str, object]:
        """Figures of all batches: psnr (dB) and ssim over all frames, on the last and per frame; psnr_moving
        from the squared error pooled over the moving pixels of all clips, None if nothing moves."""
        psnr_frames, ssim_frames = torch.cat(self._psnr), torch.cat(self._ssim)
        moving = decibels(self._moving_error / self._moving_values) if self._moving_values else None
        return {
            "psnr": float(psnr_frames.mean()),
            "psnr_last": float(psnr_frames[:, -1].mean()),
            "psnr_moving": moving,
            "ssim": float(ssim_frames.mean()),
            "ssim_last": float(ssim_frames[:, -1].mean()),
            "psnr_per_frame": psnr_frames.mean(0).tolist(),
            "ssim_per_frame": ssim_frames.mean(0).tolist(),
        }


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

    def update(self, true: Iterable[np.ndarray], predicted: Iterable[np.ndarray]) -> None:
        """Add clips: labels (T, H, W) of each, as for `segmentation_scores`."""
        for labels in zip(true, predicted, strict=True):
            for name, value in segmentation_scores(*labels).items():
                if value is not None:
                    self._values[name].append(value)

    def result(self) -> dict[str, Optional[float]]:
        """METRICS; None if no clip could be measured."""
        return {name: float(np.mean(values)) if values else None for name, values in self._values.items()}

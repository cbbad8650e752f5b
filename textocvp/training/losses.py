"""The losses, and the weight that lets moving things count more than the static scene."""

from __future__ import annotations

from torch import Tensor

from textocvp.config.training import LossTerm
from textocvp.data.median_image import far_from


def frame_loss(
    frames: Tensor, target: Tensor, term: LossTerm, median: Tensor | None = None, clamp: bool = False
) -> Tensor:
    """Mean squared error of frames (B, T, 3, H, W), foreground weighted where the term asks for it.

    Args:
        median: (3, H, W), the training split's median image; needed where term.foreground_weight is above 0.
        clamp: both to [0, 1] first, as the original's decomposition losses do (no gradient outside).
    """
    if clamp:
        frames, target = frames.clamp(0, 1), target.clamp(0, 1)
    error = (frames.float() - target).square()
    if term.foreground_weight:
        error = error * foreground_weights(target, median, term)
    return error.mean()


def foreground_weights(target: Tensor, median: Tensor | None, term: LossTerm) -> Tensor:
    """1 + w where a pixel of target (B, T, 3, H, W) is far from the median image, else 1: (B, T, 1, H, W)."""
    if median is None:
        raise ValueError("foreground_weight needs the training split's median image")
    return 1 + term.foreground_weight * far_from(target, median, term.foreground_threshold).unsqueeze(2)


def background_loss(slot_frames: Tensor, median: Tensor) -> Tensor:
    """Mean squared error of slot 0's pictures, of (B, T, N, 3, H, W), against the median image (3, H, W).

    Nothing says where slot 0 is to be seen. But once it can show the table, the other slots are the worse
    choice wherever the table is, and the masks follow. Without it, seeds fall into two kinds: those in which
    one slot takes the background, and those in which every slot takes an object with its surroundings.
    """
    return (slot_frames[:, :, 0].float() - median).square().mean()


def feature_loss(features: Tensor, target: Tensor, term: LossTerm) -> Tensor:
    """Mean squared error of patch features (B, T, L, F), clamped to [0, 1] where the term asks for it."""
    if term.clamp_features:
        features, target = features.clamp(0, 1), target.clamp(0, 1)
    return (features.float() - target).square().mean()


def slot_loss(slots: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of slots (B, T, N, D)."""
    return (slots.float() - target).square().mean()


def weighted_sum(terms: tuple[LossTerm, ...], values: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of all terms times their weights, and each unweighted term under its name, detached."""
    total = sum(term.weight * value for term, value in zip(terms, values, strict=True))
    return total, {term.type: value.detach() for term, value in zip(terms, values, strict=True)}

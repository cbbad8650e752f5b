"""Criteria that rank the seeds of a decomposition model without labels.

SAVi's seeds are bimodal: in good ones one slot takes the background and the others an object each, in bad
ones several slots share the background. A criterion is a pure function of what a model makes of some clips.
Those that ask for the background assume a camera that stands still: what is near the training split's median
image is background.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from textocvp.config.errors import UserError, nearest
from textocvp.data.median_image import far_from


@dataclass(frozen=True)
class Observation:
    """What a model makes of a batch of clips."""

    video: Tensor
    """(B, T, 3, H, W) in [0, 1]."""
    masks: Tensor
    """(B, T, N, H, W), softmax over the slots."""
    losses: Tensor
    """(B,), the training loss of each clip."""
    median: Tensor
    """(3, H, W), the training split's median image."""

    @cached_property
    def background(self) -> Tensor:
        """(B, T, H, W) bool: pixels near the median image."""
        return ~far_from(self.video, self.median)

    @cached_property
    def labels(self) -> Tensor:
        """(B, T, H, W): the slot with the largest mask."""
        return self.masks.argmax(dim=2)

    @cached_property
    def largest_slot(self) -> Tensor:
        """(B,): the slot that is the label of most pixels of the clip."""
        sizes = torch.nn.functional.one_hot(self.labels, self.masks.shape[2]).sum(dim=(1, 2, 3))
        return sizes.argmax(dim=1)

    @cached_property
    def largest_mask(self) -> Tensor:
        """(B, T, H, W): the mask of the largest slot."""
        return self.masks[torch.arange(len(self.masks)), :, self.largest_slot]


def validation_loss(seen: Observation) -> Tensor:
    """The training loss, per clip."""
    return seen.losses


def background_agreement(seen: Observation) -> Tensor:
    """IoU of the largest slot's pixels with the pixels near the median image, over the whole clip."""
    largest = seen.labels == seen.largest_slot[:, None, None, None]
    both, either = largest & seen.background, largest | seen.background
    return both.sum(dim=(1, 2, 3)) / either.sum(dim=(1, 2, 3)).clamp(min=1)


def background_mass(seen: Observation) -> Tensor:
    """Mean mask of the largest slot over the pixels near the median image: one slot, and a confident one."""
    return _mean_where(seen.largest_mask, seen.background)


def foreground_release(seen: Observation) -> Tensor:
    """1 - mean mask of the largest slot over the pixels far from the median image: no object stays in it."""
    return 1 - _mean_where(seen.largest_mask, ~seen.background)


def separation(seen: Observation) -> Tensor:
    """background_mass + foreground_release - 1: how far the largest slot's mask tells the two kinds apart."""
    return background_mass(seen) + foreground_release(seen) - 1


def object_sharing(seen: Observation) -> Tensor:
    """How evenly the other slots share the pixels far from the median image: entropy over its maximum."""
    weights = seen.masks * ~seen.background.unsqueeze(2)
    shares = weights.sum(dim=(1, 3, 4))  # (B, N)
    shares = shares.scatter(1, seen.largest_slot[:, None], 0.0)
    shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-9)
    most = torch.tensor(float(max(shares.shape[1] - 1, 2))).log()
    return torch.special.entr(shares).sum(dim=1) / most


def mask_confidence(seen: Observation) -> Tensor:
    """Mean over all pixels of the largest mask."""
    return seen.masks.amax(dim=2).mean(dim=(1, 2, 3))


def mask_entropy(seen: Observation) -> Tensor:
    """Mean over all pixels of the masks' entropy (nats)."""
    return torch.special.entr(seen.masks).sum(dim=2).mean(dim=(1, 2, 3))


def steadiness(seen: Observation) -> Tensor:
    """1 - share of each pixel's mask that changes its slot from frame to frame, where the picture stays."""
    if seen.masks.shape[1] < 2:
        return torch.ones(len(seen.masks))
    changed = (seen.masks[:, 1:] - seen.masks[:, :-1]).abs().sum(dim=2) / 2
    still = ~far_from(seen.video[:, 1:], seen.video[:, :-1])
    return 1 - _mean_where(changed, still)


def _mean_where(values: Tensor, where: Tensor) -> Tensor:
    """Mean (B,) of values (B, T, H, W) over the pixels where; 0 without such pixels."""
    return (values * where).sum(dim=(1, 2, 3)) / where.sum(dim=(1, 2, 3)).clamp(min=1)


@dataclass(frozen=True)
class Criterion:
    """A function (Observation) -> (B,) scores, and which scores are better."""

    score: Callable[[Observation], Tensor]
    lower_is_better: bool = False

    @property
    def sign(self) -> int:
        """Factor that makes larger better."""
        return -1 if self.lower_is_better else 1


CRITERIA = {
    "validation_loss": Criterion(validation_loss, lower_is_better=True),
    "background_agreement": Criterion(background_agreement),
    "background_mass": Criterion(background_mass),
    "foreground_release": Criterion(foreground_release),
    "separation": Criterion(separation),
    "object_sharing": Criterion(object_sharing),
    "mask_confidence": Criterion(mask_confidence),
    "mask_entropy": Criterion(mask_entropy, lower_is_better=True),
    "steadiness": Criterion(steadiness),
}
DEFAULT_CRITERION = "background_agreement"


def find_criterion(name: str) -> Criterion:
    """The criterion of that name; UserError with the nearest name where there is none."""
    if name not in CRITERIA:
        raise UserError(f"unknown criterion {name!r}{nearest(name, CRITERIA)}")
    return CRITERIA[name]


def score_all(seen: Observation) -> dict[str, Tensor]:
    """Every criterion's scores (B,) of a batch."""
    return {name: criterion.score(seen) for name, criterion in CRITERIA.items()}

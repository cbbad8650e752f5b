"""Decomposition models: video to slots and back.

A model offers `encode(video, initial_slots=None) -> slots`, `decode(slots) -> Rendering`,
`initial_slots(batch, generator=None, noise=None)` and is built from its registered name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from textocvp.config import registry

if TYPE_CHECKING:
    from textocvp.config.experiment import Experiment


@dataclass(frozen=True)
class Rendering:
    """Slots decoded to pictures. Values are not clamped."""

    frames: Tensor
    """(B, T, 3, H, W): slot_frames weighted by masks."""
    slot_frames: Tensor
    """(B, T, N, 3, H, W): each slot's picture, not multiplied by its mask."""
    masks: Tensor
    """(B, T, N, 1, H, W): softmax over the slots."""


def build_model(experiment: Experiment) -> nn.Module:
    """The experiment's decomposition model, freshly initialised, on the CPU (UserError: unknown name)."""
    section = experiment.model
    model_class = registry.MODELS.get(section.model_name).load()
    return model_class(section.model_params, experiment.dataset.img_size)

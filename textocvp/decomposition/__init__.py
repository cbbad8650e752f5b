"""Decomposition models: video to slots and back.

A model offers `encode(video, initial_slots=None) -> slots`, `decode(slots) -> Rendering`,
`initial_slots(batch, generator=None, noise=None)` and is built from its registered name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
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
    """(B, T, N, 3, H, W): each slot's picture, not multiplied by its mask; where slots have no pictures of
    their own, `frames` for each."""
    masks: Tensor
    """(B, T, N, 1, H, W): softmax over the slots."""
    features: Tensor | None = None
    """(B, T, L, F): reconstructed patch features, of models that reconstruct them."""
    patch_masks: Tensor | None = None
    """(B, T, N, L): the masks of these features; `masks` shows them at the frames' size."""
    target_features: Tensor | None = None
    """(B, T, L, F): the encoder's features; only a whole forward knows them."""


def build_model(experiment: Experiment, folder: Path | None = None, pretrained: bool = True) -> nn.Module:
    """The experiment's decomposition model, freshly initialised, on the CPU.

    Args:
        folder: the experiment's folder, for a frozen encoder's weights that lie in it.
        pretrained: False does not read them: a state dict is to bring them.

    Raises:
        UserError: an unknown name, sizes that do not fit each other, weights that are missing.
    """
    section = experiment.model
    model_class = registry.MODELS.get(section.model_name).load()
    weights = (folder, pretrained) if model_class.reads_weights else ()
    return model_class(section.model_params, experiment.dataset.img_size, *weights)

"""Transition modules: from the slots of one frame to the initial slots of the next.

Constructor: (slot_dim, config: TransitionConfig). Method `scale_output(factor)`.
"""

from __future__ import annotations

import torch

from textocvp.config.models import TransitionConfig
from textocvp.modules.attention import TransformerBlock


class TransformerTransition(TransformerBlock):
    """One transformer block over the slots of a frame."""

    def __init__(self, slot_dim: int, config: TransitionConfig) -> None:
        super().__init__(slot_dim, config.num_heads, config.mlp_size, config.pre_norm)

    @torch.no_grad()
    def scale_output(self, factor: float) -> None:
        """Scale the two output layers' weights; a small factor starts a pre-norm block near the identity."""
        self.attention.out.weight.mul_(factor)
        self.mlp[-1].weight.mul_(factor)

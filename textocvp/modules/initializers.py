"""Where the slots of the first frame come from.

Every initializer maps standard normal noise (B, N, D) to slots (B, N, D); the ones that draw nothing read
only its batch size. Constructor: (num_slots, slot_dim).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Learned(nn.Module):
    """One learned vector per slot; draws nothing."""

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(1, num_slots, slot_dim))

    def forward(self, noise: Tensor) -> Tensor:
        return self.slots.expand(noise.shape[0], -1, -1)


class LearnedRandom(nn.Module):
    """All slots drawn from one Gaussian with learned mean and standard deviation (Locatello et al. 2020)."""

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(1, 1, slot_dim))
        self.std = nn.Parameter(torch.randn(1, 1, slot_dim))

    def forward(self, noise: Tensor) -> Tensor:
        return self.mean + self.std * noise


class BackgroundRandom(LearnedRandom):
    """Slot 0 has a learned vector of its own, so that it can become the background; the others are drawn."""

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__(num_slots, slot_dim)
        self.background = nn.Parameter(torch.randn(1, 1, slot_dim))

    def forward(self, noise: Tensor) -> Tensor:
        drawn = super().forward(noise[:, 1:])
        return torch.cat([self.background.expand(noise.shape[0], -1, -1), drawn], dim=1)

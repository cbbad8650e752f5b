"""Position embeddings: of pixels in an image, of slots in time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def coordinate_grid(resolution: tuple[int, int]) -> Tensor:
    """Coordinates of the cells of an (H, W) grid: (1, 4, H, W) float.

    Channels: y and x in [-1, 1], then 1 - y and 1 - x in [0, 2] (the original's complementary channels).
    """
    height, width = resolution
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([y, x, 1 - y, 1 - x])[None]


class SoftPositionEmbedding(nn.Module):
    """A linear projection of the cells' coordinates (Locatello et al. 2020, App. E.2)."""

    def __init__(self, dim: int, resolution: tuple[int, int]) -> None:
        super().__init__()
        self.projection = nn.Conv2d(4, dim, kernel_size=1)
        self.register_buffer("grid", coordinate_grid(resolution), persistent=False)

    def forward(self) -> Tensor:
        """(1, dim, H, W), to be added to feature maps."""
        return self.projection(self.grid)

    @torch.no_grad()
    def scale_projection(self, gain: float) -> None:
        """Scale the initial weights; call once, after initialisation."""
        self.projection.weight.mul_(gain)


class SinusoidalTimeEmbedding(nn.Module):
    """Fixed sines and cosines (Vaswani et al. 2017); the oldest frame of a window gets row 0."""

    table: Tensor

    def __init__(self, dim: int, max_frames: int) -> None:
        super().__init__()
        position = torch.arange(max_frames)[:, None]
        frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
        table = torch.zeros(max_frames, dim)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency)[:, : dim // 2]
        self.register_buffer("table", table, persistent=False)

    def forward(self, num_frames: int) -> Tensor:
        """(num_frames, 1, dim), to be added to slots (B, T, N, dim)"""
        return self.table[:num_frames, None]


class LearnedTimeEmbedding(nn.Module):
    """A learned vector per frame of a window, counted backwards: the newest frame gets row 0."""

    def __init__(self, dim: int, max_frames: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(1, max_frames, 1, dim))

    def forward(self, num_frames: int) -> Tensor:
        """(1, num_frames, 1, dim), to be added to slots (B, T, N, dim)"""
        return self.table[:, :num_frames].flip(1)

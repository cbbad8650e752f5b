"""Slot decoders: slots (M, D) -> RGB and mask logit (M, channels + 1, H, W).

Constructor: (config, slot_dim, out_channels). A decoder never builds the broadcast of a slot over its
grid: the first convolution works on the slot itself (SpatialBroadcastConv).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textocvp.config.models import ConvDecoderConfig, TransposedConvDecoderConfig
from textocvp.modules.positional import SoftPositionEmbedding


def _taps_inside(resolution: tuple[int, int], kernel_size: int) -> Tensor:
    """(H * W, k * k) float: 1 where a kernel's tap at this cell lies on the grid, 0 in the padding."""
    ones = torch.ones(1, 1, *resolution)
    return F.unfold(ones, kernel_size, padding=kernel_size // 2)[0].T.contiguous()


class SpatialBroadcastConv(nn.Conv2d):
    """Broadcast slots over a grid, add a position embedding, convolve (Watters et al. 2019).

    Convolution is linear, so nothing is broadcast: the embedding is convolved once for all slots, and a slot
    adds the sum of the kernel's taps that lie on the grid, times the slot.
    """

    def __init__(
        self, slot_dim: int, out_channels: int, kernel_size: int, resolution: tuple[int, int]
    ) -> None:
        super().__init__(slot_dim, out_channels, kernel_size, padding=kernel_size // 2)
        self.resolution = resolution
        self.register_buffer("taps_inside", _taps_inside(resolution, kernel_size), persistent=False)

    def forward(self, slots: Tensor, position: Tensor) -> Tensor:
        """Slots (M, D), embedding (1, D, H, W) -> (M, out_channels, H, W), channels last in memory."""
        kernel = self.weight.permute(1, 2, 3, 0).reshape(self.in_channels, -1)  # (D, k * k * C)
        taps = (slots @ kernel).view(len(slots), -1, self.out_channels)  # (M, k * k, C)
        broadcast = self.taps_inside @ taps  # (M, H * W, C)
        broadcast = broadcast.view(len(slots), *self.resolution, self.out_channels).permute(0, 3, 1, 2)
        return broadcast + super().forward(position)


class ConvDecoder(nn.Module):
    """The original's decoder: convolutions of stride 1 with nearest-neighbour upsampling in between."""

    def __init__(self, config: ConvDecoderConfig, slot_dim: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = config.upsample or 1
        channels = config.num_channels[::-1]  # the config lists them from the last to the first
        self.position = SoftPositionEmbedding(slot_dim, config.resolution)
        self.broadcast = SpatialBroadcastConv(slot_dim, channels[0], config.kernel_size, config.resolution)
        self.convs = nn.ModuleList(
            nn.Conv2d(channels[i], channels[i + 1], config.kernel_size, padding=config.kernel_size // 2)
            for i in range(len(channels) - 1)
        )
        self.output = nn.Conv2d(channels[-1], out_channels + 1, kernel_size=3, padding=1)

    def forward(self, slots: Tensor) -> Tensor:
        """(M, D) -> (M, out_channels + 1, H, W)"""
        hidden = F.relu(self.broadcast(slots, self.position()))
        for conv in self.convs:
            if self.upsample > 1:
                hidden = F.interpolate(hidden, scale_factor=self.upsample, mode="nearest")
            hidden = F.relu(conv(hidden))
        return self.output(hidden)


class TransposedConvDecoder(nn.Module):
    """A coarse broadcast, one convolution, then transposed convolutions that double the resolution."""

    def __init__(self, config: TransposedConvDecoderConfig, slot_dim: int, out_channels: int) -> None:
        super().__init__()
        channels = (*config.num_channels, out_channels + 1)
        kernel_size = config.upsample_kernel_size
        self.position = SoftPositionEmbedding(slot_dim, config.resolution)
        self.broadcast = SpatialBroadcastConv(slot_dim, channels[0], config.kernel_size, config.resolution)
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(
                channels[i], channels[i + 1], kernel_size, stride=2, padding=kernel_size // 2 - 1
            )
            for i in range(len(channels) - 1)
        )

    def forward(self, slots: Tensor) -> Tensor:
        """(M, D) -> (M, out_channels + 1, H, W)"""
        hidden = self.broadcast(slots, self.position())
        for conv in self.convs:
            hidden = conv(F.relu(hidden))
        return hidden

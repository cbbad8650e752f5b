"""Image encoders: frames (M, C, H, W) -> feature maps (M, F, h, w).

Constructor: (config, in_channels). Attribute `out_channels`; method `out_resolution(img_size)`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from textocvp.config.errors import ConfigError
from textocvp.config.models import ConvEncoderConfig, per_layer


class ConvEncoder(nn.Module):
    """Convolutions, each followed by a ReLU."""

    def __init__(self, config: ConvEncoderConfig, in_channels: int) -> None:
        super().__init__()
        self.resolution = config.resolution
        num_layers = len(config.num_channels)
        self.strides = per_layer(config.strides, num_layers, "strides")
        kernels = per_layer(config.kernel_size, num_layers, "kernel_size")
        inputs = (in_channels, *config.num_channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs[i], config.num_channels[i], kernels[i], self.strides[i], padding=kernels[i] // 2)
            for i in range(num_layers)
        )
        self.out_channels = config.num_channels[-1]

    def out_resolution(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the feature map of img_size frames (ConfigError where the config disagrees)."""
        if self.resolution is not None and tuple(self.resolution) != tuple(img_size):
            raise ConfigError(
                f"model_params.encoder.encoder_params.resolution is {list(self.resolution)}, but "
                f"dataset.img_size is {list(img_size)}: make them equal, or resolution null"
            )
        height, width = img_size
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
        return height, width

    def forward(self, frames: Tensor) -> Tensor:
        """(M, C, H, W) -> (M, out_channels, h, w)"""
        for conv in self.convs:
            frames = F.relu(conv(frames))
        return frames

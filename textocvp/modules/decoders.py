"""Slot decoders: convolutions on broadcast slots (ConvDecoder, TransposedConvDecoder), an MLP on patches.

ConvDecoder(config, slot_dim, out_channels): slots (M, D) -> RGB and mask logit (M, channels + 1, H, W)
MLPPatchDecoder(config, img_size): slots (B, T, N, D) -> features, masks and frames
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textocvp.config.models import ConvDecoderConfig, MLPPatchDecoderConfig, TransposedConvDecoderConfig
from textocvp.modules.attention import SoftPositionEmbedding


class SpatialBroadcastConv(nn.Module):
    """Broadcast slots over a grid, add a position embedding, convolve (Watters et al. 2019).

    Convolution is linear, so nothing is broadcast: the embedding is convolved once for all slots, and a slot
    adds the sum of the kernel's taps that are on the grid, times the slot.
    """

    taps_inside: Tensor
    """(H * W, k * k) float: 1 where a kernel's tap at this cell is on the grid, 0 in the padding."""

    def __init__(
        self, slot_dim: int, out_channels: int, kernel_size: int, resolution: tuple[int, int]
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(slot_dim, out_channels, kernel_size)
        self.weight, self.bias = conv.weight, conv.bias
        self.out_channels, self.padding, self.resolution = out_channels, kernel_size // 2, resolution
        taps = F.unfold(torch.ones(1, 1, *resolution), kernel_size, padding=self.padding)[0].T.contiguous()
        self.register_buffer("taps_inside", taps, persistent=False)

    def forward(self, slots: Tensor, position: Tensor) -> Tensor:
        """Slots (M, D), embedding (1, D, H, W) -> (M, out_channels, H, W), channels last in memory."""
        kernel = self.weight.permute(1, 2, 3, 0).reshape(slots.shape[1], -1)  # (D, k * k * C)
        taps = (slots @ kernel).view(len(slots), -1, self.out_channels)  # (M, k * k, C)
        broadcast = self.taps_inside @ taps  # (M, H * W, C)
        broadcast = broadcast.view(len(slots), *self.resolution, self.out_channels).permute(0, 3, 1, 2)
        return broadcast + F.conv2d(position, self.weight, self.bias, padding=self.padding)


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
        channels, size = (*config.num_channels, out_channels + 1), config.upsample_kernel_size
        self.position = SoftPositionEmbedding(slot_dim, config.resolution)
        self.broadcast = SpatialBroadcastConv(slot_dim, channels[0], config.kernel_size, config.resolution)
        self.convs = nn.ModuleList(
            nn.ConvTranspose2d(channels[i], channels[i + 1], size, stride=2, padding=size // 2 - 1)
            for i in range(len(channels) - 1)
        )

    def forward(self, slots: Tensor) -> Tensor:
        """(M, D) -> (M, out_channels + 1, H, W)"""
        hidden = self.broadcast(slots, self.position())
        for conv in self.convs:
            hidden = conv(F.relu(hidden))
        return hidden


class MLPPatchDecoder(nn.Module):
    """An MLP on slot plus patch position (Seitzer et al. 2023, App. E.4), then convolutions."""

    def __init__(self, config: MLPPatchDecoderConfig, img_size: int) -> None:
        super().__init__()
        self.img_size = img_size
        self.grid_size = round(config.num_patches**0.5)
        position = torch.randn(1, 1, config.num_patches, config.in_dim) / config.in_dim**0.5
        self.position = nn.Parameter(position)
        self.norm = nn.LayerNorm(config.in_dim) if config.initial_layer_norm else nn.Identity()
        widths = [config.in_dim, *[config.hidden_dim] * (config.num_layers - 1), config.out_dim]
        layers: list[nn.Module] = []
        for width, next_width in zip(widths, widths[1:]):
            layers += [nn.Linear(width, next_width), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.image_decoder = _image_decoder(config, img_size)

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode slots (B, T, N, D).

        Returns:
            features (B, T, L, F), masks (B, T, N, L) that sum to one over the slots, frames (B, T, 3, H, W).
        """
        tokens = self.norm(slots.flatten(0, 1)[:, :, None] + self.position)  # (B * T, N, L, D)
        features, logits = self.mlp(tokens).tensor_split([-1], dim=-1)
        masks = torch.softmax(logits, dim=1)
        mixed = (features * masks).sum(dim=1).unflatten(0, slots.shape[:2])
        return mixed, masks[..., 0].unflatten(0, slots.shape[:2]), self._frames(mixed)

    def _frames(self, features: Tensor) -> Tensor:
        """Pictures of features (B, T, L, F).

        While training, frame by frame: batch normalisation takes its statistics over the clips of one frame.
        """
        maps = features.transpose(2, 3).unflatten(3, (self.grid_size, self.grid_size))  # (B, T, F, h, w)
        if self.training:
            return torch.stack([self._resize(self.image_decoder(frame)) for frame in maps.unbind(1)], dim=1)
        return self._resize(self.image_decoder(maps.flatten(0, 1))).unflatten(0, features.shape[:2])

    def _resize(self, frames: Tensor) -> Tensor:
        if frames.shape[-1] == self.img_size:
            return frames
        return F.interpolate(frames, (self.img_size, self.img_size), mode="bilinear", align_corners=False)


def _image_decoder(config: MLPPatchDecoderConfig, img_size: int) -> nn.Sequential:
    """Convolutions with batch normalisation; the resolution doubles until the picture's is reached.

    It stops doubling earlier where patches are small, by the original's rule on the number of layers.
    """
    size = round(config.num_patches**0.5)
    channels, width = config.out_dim - 1, config.hidden_dim
    layers: list[nn.Module] = []
    for i in range(config.num_layers_cnn):
        doubles = 2 * (i + 1) < config.patch_size and size < img_size
        if i > 0 and doubles:
            width //= 2
        layers += [ConvBlock(channels, width)]
        if doubles:
            layers += [nn.Upsample(scale_factor=2)]
            size *= 2
        channels = width
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, kernel_size=3, padding=1))


class ConvBlock(nn.Module):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1)
        self.block = nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())

    def forward(self, maps: Tensor) -> Tensor:
        """(M, C, h, w) -> (M, out_channels, h, w)"""
        return self.block(maps)

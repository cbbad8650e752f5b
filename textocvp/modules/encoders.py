"""Image encoders: convolutions that are trained, and frozen, pretrained vision transformers.

ConvEncoder(config, in_channels): frames (M, C, H, W) -> feature maps (M, F, h, w)
ViTEncoder(name, config, img_size, folder): frames (M, 3, H, W) -> patch features (M, L, F)
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Dinov2Config, Dinov2Model, PreTrainedModel, ViTConfig, ViTModel

from textocvp.config.models import ConvEncoderConfig, ViTEncoderConfig, per_layer, vit_patch_size
from textocvp.files import ConfigError, UserError
from textocvp.pretrained import FrozenEncoder, find_weights, read, read_model


class ConvEncoder(nn.Module):
    """Convolutions, each followed by a ReLU."""

    def __init__(self, config: ConvEncoderConfig, in_channels: int) -> None:
        super().__init__()
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
        """Height and width of the feature maps of img_size frames."""
        height, width = img_size
        for stride in self.strides:
            height, width = -(-height // stride), -(-width // stride)
        return height, width

    def forward(self, frames: Tensor) -> Tensor:
        """(M, C, H, W) -> (M, out_channels, h, w)"""
        for conv in self.convs:
            frames = F.relu(conv(frames))
        return frames


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
POSITIONS = "embeddings.position_embeddings"


class Architecture(NamedTuple):
    """The pretrained model behind a name like vit_base_patch14_dinov2."""

    hub_name: str
    width: int
    num_heads: int
    dino_v2: bool


ARCHITECTURES = {
    "vit_small_patch14_dinov2": Architecture("facebook/dinov2-small", 384, 6, True),
    "vit_base_patch14_dinov2": Architecture("facebook/dinov2-base", 768, 12, True),
    "vit_small_patch8_224_dino": Architecture("facebook/dino-vits8", 384, 6, False),
    "vit_small_patch16_224_dino": Architecture("facebook/dino-vits16", 384, 6, False),
    "vit_base_patch8_224_dino": Architecture("facebook/dino-vitb8", 768, 12, False),
    "vit_base_patch16_224_dino": Architecture("facebook/dino-vitb16", 768, 12, False),
}


class ViTEncoder(FrozenEncoder):
    """Patch features of the last block, without the final normalisation and without the class token.

    They carry no gradient.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, name: str, config: ViTEncoderConfig, img_size: int, folder: Path | None, pretrained: bool = True
    ) -> None:
        """
        Args:
            name: in the registry VIT_ENCODERS.
            img_size: height and width (pixels) of the frames; position embeddings are resampled to it.
            folder: the experiment's folder, which may hold the weights.
            pretrained: False leaves random values, for a state dict that brings all of them.

        Raises:
            ConfigError, UserError: weights are missing, damaged or of another patch size.
        """
        super().__init__()
        self.vit, blocks = _build(name, config, img_size, folder)
        self._blocks = (blocks,)  # a tuple, because they are registered as parts of `vit` already
        if pretrained:
            _load_pretrained(self.vit, weights_name(name, config), folder)
        mean = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
        std = mean if config.normalization == "mean" else torch.tensor(IMAGENET_STD).view(1, 3, 1, 1)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std.clone(), persistent=False)
        self.out_channels: int = self.vit.config.hidden_size
        self.requires_grad_(False).eval()

    @property
    def transformer(self) -> PreTrainedModel:
        """What transformers saves and reads."""
        return self.vit

    def normalize(self, frames: Tensor) -> Tensor:
        """Frames (M, 3, H, W) in [0, 1] as the transformer expects them."""
        return (frames - self.mean) / self.std

    @torch.no_grad()
    def forward(self, frames: Tensor) -> Tensor:
        """(M, 3, H, W) in [0, 1] -> (M, L, F), patches row by row."""
        tokens = self.vit.embeddings(self.normalize(frames))
        for block in self._blocks[0]:
            tokens = block(tokens)
        return tokens[:, 1:]


def weights_name(name: str, config: ViTEncoderConfig) -> str:
    """Folder or hub name of the weights of the registered transformer `name`."""
    return config.weights or ARCHITECTURES[name].hub_name


def _build(
    name: str, config: ViTEncoderConfig, img_size: int, folder: Path | None
) -> tuple[Dinov2Model | ViTModel, nn.ModuleList]:
    """The transformer for frames of this size, with random values, and its blocks that are used."""
    architecture, patch_size = _architecture(name, config, folder), vit_patch_size(name)
    if architecture.patch_size != patch_size:
        raise ConfigError(
            f"model_params.encoder: the patches of {weights_name(name, config)} have "
            f"{architecture.patch_size} pixels, those of {name} {patch_size}"
        )
    architecture.image_size = img_size
    vit: Dinov2Model | ViTModel
    if isinstance(architecture, Dinov2Config):
        vit = Dinov2Model(architecture)
        blocks = vit.encoder.layer
    else:
        vit = ViTModel(architecture, add_pooling_layer=False)
        blocks = vit.layers
    if config.num_blocks is not None and config.num_blocks > len(blocks):
        raise ConfigError(
            f"model_params.encoder.encoder_params.num_blocks: expected at most {len(blocks)}, the blocks of "
            f"{config.weights or name}, got {config.num_blocks}"
        )
    del blocks[config.num_blocks or len(blocks) :]
    return vit, blocks


def _architecture(name: str, settings: ViTEncoderConfig, folder: Path | None) -> Dinov2Config | ViTConfig:
    """The transformers config; the published architectures need no file."""
    known, weights = ARCHITECTURES[name], weights_name(name, settings)
    config_class = Dinov2Config if known.dino_v2 else ViTConfig
    if settings.weights is None and find_weights(weights, folder) is None:
        config = config_class(
            hidden_size=known.width, num_attention_heads=known.num_heads, patch_size=vit_patch_size(name)
        )
        if isinstance(config, ViTConfig):
            config.intermediate_size = 4 * known.width
    else:
        config = read(config_class, weights, folder)
    config.layer_norm_eps = 1e-6  # as the original's timm models
    config.use_mask_token = False
    return config


def _load_pretrained(vit: Dinov2Model | ViTModel, weights: str, folder: Path | None) -> None:
    """Load weights into a transformer that may have fewer blocks and another number of patches.

    Position embeddings are resampled as timm does it for the original: bicubic with antialiasing.
    """
    extra = {} if isinstance(vit, Dinov2Model) else {"add_pooling_layer": False}
    source, expected = read_model(type(vit), weights, folder, **extra).state_dict(), vit.state_dict()
    state = {name: value for name, value in source.items() if name in expected}
    state[POSITIONS] = _resample(state[POSITIONS], expected[POSITIONS].shape[1] - 1)
    wrong = [name for name, value in expected.items() if value.shape != state[name].shape]
    if wrong:
        raise UserError(
            f"weights {weights!r}: {wrong[0]} has shape {list(state[wrong[0]].shape)}, expected "
            f"{list(expected[wrong[0]].shape)}; they are those of another architecture"
        )
    vit.load_state_dict(state)


def _resample(positions: Tensor, num_patches: int) -> Tensor:
    """Position embeddings (1, 1 + L, F) of a square of patches -> (1, 1 + num_patches, F)."""
    grid, new_grid = round((positions.shape[1] - 1) ** 0.5), round(num_patches**0.5)
    if grid == new_grid:
        return positions
    patches = positions[:, 1:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2)  # (1, F, h, w)
    patches = F.interpolate(patches, (new_grid, new_grid), mode="bicubic", antialias=True)
    return torch.cat([positions[:, :1], patches.flatten(2).transpose(1, 2)], dim=1)

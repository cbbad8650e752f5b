"""Settings of the decomposition models (section `model` of experiment_params.json).

Sections that name a class (`encoder`, `decoder`) hold that class's own settings under `*_params`; the
registry says which dataclass they are. Standard library only.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar, Mapping, Optional, Tuple, Union

from textocvp.config.registry import INITIALIZERS, TRANSITIONS

PerLayer = Union[int, Tuple[int, ...]]


def per_layer(value: PerLayer, num_layers: int, name: str) -> Tuple[int, ...]:
    """One value for every layer, or the given tuple checked against the number of layers (ValueError)."""
    values = (value,) * num_layers if isinstance(value, int) else tuple(value)
    if len(values) != num_layers:
        raise ValueError(f"{name}: has {len(values)} entries, but num_channels has {num_layers}")
    if min(values) < 1:
        raise ValueError(f"{name}: entries must be at least 1, found {min(values)}")
    return values


def _check_channels(num_channels: Tuple[int, ...]) -> None:
    if not num_channels or min(num_channels) < 1:
        raise ValueError("num_channels: needs one positive number of channels per layer")


def _check_odd(sizes: Tuple[int, ...], name: str) -> None:
    if any(size % 2 == 0 for size in sizes):
        raise ValueError(f"{name}: must be odd (the input is padded by half of it), found {list(sizes)}")


@dataclass(frozen=True)
class ConvEncoderConfig:
    """Convolutions with ReLU over single frames (Kipf et al. 2022)."""

    num_channels: Tuple[int, ...] = (32, 32, 32, 32)
    """Output channels of each convolution, in order of use."""
    kernel_size: PerLayer = 5
    """Kernel size (pixels, odd); one number for all layers or one per layer."""
    strides: PerLayer = 1
    """Stride (pixels); one number for all layers or one per layer. [2, 1, 1, 1] quarters the locations."""
    resolution: Optional[Tuple[int, int]] = None
    """Height and width (pixels) of the frames the encoder is made for. Only checked against
    dataset.img_size; null: whatever dataset.img_size says."""
    downsample_encoder: bool = False
    """Without effect, here as in the original, which reads it and drops it. Use `strides`."""
    downsample: int = field(default=2, metadata={"min": 1})
    """Without effect, here as in the original. Use `strides`."""

    def __post_init__(self) -> None:
        _check_channels(self.num_channels)
        _check_odd(per_layer(self.kernel_size, len(self.num_channels), "kernel_size"), "kernel_size")
        per_layer(self.strides, len(self.num_channels), "strides")
        if self.downsample_encoder:
            warnings.warn(
                "downsample_encoder has no effect (nor had it in the original); use strides", stacklevel=2
            )


@dataclass(frozen=True)
class ConvDecoderConfig:
    """Spatial broadcast decoder with plain convolutions (Watters et al. 2019)."""

    num_channels: Tuple[int, ...] = (64, 64, 64, 64)
    """Output channels of the hidden convolutions, from the last to the first, as in the original."""
    kernel_size: int = field(default=5, metadata={"min": 1})
    """Kernel size (pixels, odd) of the hidden convolutions; the output convolution is 3x3."""
    resolution: Tuple[int, int] = (64, 64)
    """Height and width (cells) of the grid a slot is broadcast to."""
    upsample: Optional[int] = field(default=1, metadata={"min": 1})
    """Factor of the nearest-neighbour upsampling after every hidden convolution but the last; null: 1."""
    downsample_decoder: bool = False
    """Without effect, here as in the original."""
    position_gain: float = 1.0
    """Factor on the initial weights of the position projection. 4 shortens the early plateau of training."""

    def out_resolution(self) -> Tuple[int, int]:
        """Height and width of the decoded frames."""
        factor = (self.upsample or 1) ** (len(self.num_channels) - 1)
        return self.resolution[0] * factor, self.resolution[1] * factor

    def __post_init__(self) -> None:
        _check_channels(self.num_channels)
        _check_odd((self.kernel_size,), "kernel_size")
        if self.downsample_decoder:
            warnings.warn("downsample_decoder has no effect (nor had it in the original)", stacklevel=2)


@dataclass(frozen=True)
class TransposedConvDecoderConfig:
    """Spatial broadcast to a coarse grid, one convolution, then transposed convolutions of stride 2.

    A fraction of ConvDecoder's cost: each entry of `num_channels` doubles the resolution.
    """

    num_channels: Tuple[int, ...] = (32, 32)
    """Channels after the first convolution, then after each transposed one but the last, in order of use;
    the last transposed convolution ends in RGB and mask."""
    kernel_size: int = field(default=3, metadata={"min": 1})
    """Kernel size (cells, odd) of the first convolution."""
    upsample_kernel_size: int = field(default=4, metadata={"min": 2})
    """Kernel size (cells, even) of the transposed convolutions."""
    resolution: Tuple[int, int] = (8, 8)
    """Height and width (cells) of the grid a slot is broadcast to."""
    position_gain: float = 1.0
    """Factor on the initial weights of the position projection. 4 shortens the early plateau of training."""

    def out_resolution(self) -> Tuple[int, int]:
        """Height and width of the decoded frames."""
        factor = 2 ** len(self.num_channels)
        return self.resolution[0] * factor, self.resolution[1] * factor

    def __post_init__(self) -> None:
        _check_channels(self.num_channels)
        _check_odd((self.kernel_size,), "kernel_size")
        if self.upsample_kernel_size % 2:
            raise ValueError(f"upsample_kernel_size: must be even, found {self.upsample_kernel_size}")


@dataclass(frozen=True)
class TransitionConfig:
    """The module that carries slots from one frame to the next (the `predictor` of Kipf et al. 2022)."""

    model_name: str = field(default="TransformerBlock", metadata={"choices": tuple(TRANSITIONS)})
    """Which transition (registry TRANSITIONS)."""
    num_heads: int = field(default=4, metadata={"min": 1})
    """Attention heads; slot_dim must be divisible by it."""
    mlp_size: int = field(default=512, metadata={"min": 1})
    """Hidden units of the feed-forward part."""
    pre_norm: bool = False
    """Normalise before attention and MLP instead of after the residual sums (the original: after)."""
    output_scale: float = 1.0
    """Factor on the two output layers' initial weights; with pre_norm, 0.05 starts near the identity."""


@dataclass(frozen=True)
class EncoderSection:
    """Which image encoder, and its settings."""

    encoder_name: str = "ConvEncoder"
    """Name in the registry ENCODERS."""
    encoder_params: Any = field(
        default_factory=ConvEncoderConfig, metadata={"registry": "ENCODERS", "named_by": "encoder_name"}
    )
    """Settings of that encoder: its registered dataclass."""


@dataclass(frozen=True)
class DecoderSection:
    """Which decoder, and its settings."""

    decoder_name: str = "ConvDecoder"
    """Name in the registry DECODERS."""
    decoder_params: Any = field(
        default_factory=ConvDecoderConfig, metadata={"registry": "DECODERS", "named_by": "decoder_name"}
    )
    """Settings of that decoder: its registered dataclass."""


class DecompositionConfig:
    """What every decomposition model's settings answer."""

    original: ClassVar[Mapping[str, Any]] = {}
    """What experiments that the original created mean where they do not say it: dotted path -> value."""
    losses: ClassVar[Tuple[str, ...]] = ("mse",)
    """Loss terms of a new experiment, each with weight 1."""


@dataclass(frozen=True)
class SAViConfig(DecompositionConfig):
    """Slot Attention for Video (Kipf et al. 2022)."""

    num_slots: int = field(default=8, metadata={"min": 1})
    """Slots per frame: objects that can be told apart, background included."""
    slot_dim: int = field(default=128, metadata={"min": 1})
    """Length of a slot vector."""
    num_iterations_first: int = field(default=3, metadata={"min": 1})
    """Slot attention iterations on the first frame."""
    num_iterations: int = field(default=1, metadata={"min": 1})
    """Slot attention iterations on every later frame."""
    in_channels: int = field(default=3, metadata={"min": 1})
    """Channels of a frame."""
    mlp_hidden: int = field(default=256, metadata={"min": 1})
    """Hidden units of slot attention's MLP."""
    mlp_encoder_dim: int = field(default=128, metadata={"min": 1})
    """Hidden and output units of the MLP on the image features."""
    initializer: str = field(default="LearnedRandom", metadata={"choices": tuple(INITIALIZERS)})
    """Where the first frame's slots come from: LearnedRandom draws them from one learned Gaussian, Learned
    keeps one vector per slot, BackgroundRandom gives slot 0 its own vector and draws the others."""
    transition_module: TransitionConfig = field(default_factory=TransitionConfig)
    """From the slots of one frame to the initial slots of the next."""
    encoder: EncoderSection = field(default_factory=EncoderSection)
    """Image encoder."""
    decoder: DecoderSection = field(default_factory=DecoderSection)
    """Slot decoder."""
    input_offset: float = 0.0
    """Subtracted from the frames (which lie in [0, 1]) before the encoder."""
    input_scale: float = 1.0
    """Multiplies the frames after the offset; offset 0.5 and scale 4 speed up training."""

    def __post_init__(self) -> None:
        if self.slot_dim % self.transition_module.num_heads:
            raise ValueError(
                f"transition_module.num_heads: {self.transition_module.num_heads} "
                f"does not divide slot_dim {self.slot_dim}"
            )


@dataclass(frozen=True)
class ViTEncoderConfig:
    """A frozen vision transformer, pretrained with DINO (Caron et al. 2021) or DINOv2 (Oquab et al. 2023)."""

    weights: Optional[str] = None
    """Folder of the weights as transformers saves them (in the experiment, in $TEXTOCVP_WEIGHTS or a path),
    or a name on the hub; null: the hub's name that belongs to encoder_name. A folder may hold any width."""
    normalization: str = field(default="imagenet", metadata={"choices": ("imagenet", "mean")})
    """How frames are normalised: imagenet: (x - mean) / std; mean: (x - mean) / mean, as the original does,
    whose checkpoints rely on it."""
    num_blocks: Optional[int] = field(default=None, metadata={"min": 1})
    """Use the first blocks only; null: all."""
    encoder_num_blocks: int = field(default=12, metadata={"min": 1})
    """Without effect, here as in the original, whose default files hold it. Use `num_blocks`."""


@dataclass(frozen=True)
class MLPPatchDecoderConfig:
    """Slots to patch features and masks with an MLP, then features to a picture with convolutions."""

    patch_size: int = field(default=14, metadata={"min": 1})
    """Height and width (pixels) of the encoder's patches."""
    num_patches: int = field(default=576, metadata={"min": 1})
    """Patches of a frame: (img_size / patch_size) squared."""
    in_dim: int = field(default=128, metadata={"min": 1})
    """Length of a slot vector, equal to slot_dim."""
    hidden_dim: int = field(default=1024, metadata={"min": 1})
    """Hidden units of the MLP, and channels of the first convolution; they halve with every upsampling."""
    out_dim: int = field(default=769, metadata={"min": 2})
    """Width of the encoder's features and one for the mask."""
    num_layers: int = field(default=4, metadata={"min": 1})
    """Linear layers of the MLP."""
    initial_layer_norm: bool = True
    """Normalise slot plus position before the MLP."""
    reconstruct_images: bool = True
    """Must be true: evaluation, figures and the predictors' losses need pictures."""
    num_layers_cnn: int = field(default=4, metadata={"min": 1})
    """Convolutions before the last one; each doubles the resolution until the picture's is reached."""

    def __post_init__(self) -> None:
        if round(self.num_patches**0.5) ** 2 != self.num_patches:
            raise ValueError(f"num_patches: {self.num_patches} is no square; frames are square here")
        if not self.reconstruct_images:
            raise ValueError("reconstruct_images: must be true, there would be no pictures to evaluate")


@dataclass(frozen=True)
class ViTSection:
    """Which vision transformer, and its settings."""

    encoder_name: str = "vit_base_patch14_dinov2"
    """Name in the registry VIT_ENCODERS."""
    encoder_params: Any = field(
        default_factory=ViTEncoderConfig, metadata={"registry": "VIT_ENCODERS", "named_by": "encoder_name"}
    )
    """Settings of that encoder."""


@dataclass(frozen=True)
class PatchDecoderSection:
    """Which decoder of patch features, and its settings."""

    decoder_name: str = "MLPPatchDecoder"
    """Name in the registry PATCH_DECODERS."""
    decoder_params: Any = field(
        default_factory=MLPPatchDecoderConfig,
        metadata={"registry": "PATCH_DECODERS", "named_by": "decoder_name"},
    )
    """Settings of that decoder."""


@dataclass(frozen=True)
class ExtendedDINOSAURConfig(DecompositionConfig):
    """DINOSAUR (Seitzer et al. 2023) for video, which also reconstructs the frames."""

    original: ClassVar[Mapping[str, Any]] = {"encoder.encoder_params.normalization": "mean"}
    losses: ClassVar[Tuple[str, ...]] = ("mse", "pred_feature_mse")

    img_size: int = field(default=336, metadata={"min": 1})
    """Height and width (pixels) of the frames, equal to dataset.img_size."""
    num_slots: int = field(default=10, metadata={"min": 1})
    """Slots per frame: objects that can be told apart, background included."""
    slot_dim: int = field(default=128, metadata={"min": 1})
    """Length of a slot vector."""
    num_iterations_first: int = field(default=3, metadata={"min": 1})
    """Slot attention iterations on the first frame."""
    num_iterations: int = field(default=1, metadata={"min": 1})
    """Slot attention iterations on every later frame."""
    in_channels: int = field(default=3, metadata={"min": 3, "max": 3})
    """Channels of a frame."""
    mlp_hidden: int = field(default=512, metadata={"min": 1})
    """Hidden units of slot attention's MLP."""
    mlp_encoder_dim: int = field(default=768, metadata={"min": 1})
    """Width of the encoder's features."""
    initializer: str = field(default="LearnedRandom", metadata={"choices": tuple(INITIALIZERS)})
    """Where the first frame's slots come from (see SAViConfig)."""
    transition_module: TransitionConfig = field(default_factory=TransitionConfig)
    """From the slots of one frame to the initial slots of the next."""
    encoder: ViTSection = field(default_factory=ViTSection)
    """Frozen image encoder."""
    decoder: PatchDecoderSection = field(default_factory=PatchDecoderSection)
    """Slot decoder."""

    def __post_init__(self) -> None:
        decoder, patch_size = self.decoder.decoder_params, vit_patch_size(self.encoder.encoder_name)
        _check_equal(
            "decoder.decoder_params.patch_size",
            decoder.patch_size,
            patch_size,
            f"the patches of {self.encoder.encoder_name}",
        )
        if self.img_size % patch_size:
            raise ValueError(f"img_size: {self.img_size} is no multiple of the patch size {patch_size}")
        _check_equal(
            "decoder.decoder_params.num_patches",
            decoder.num_patches,
            (self.img_size // patch_size) ** 2,
            "(img_size / patch_size) squared",
        )
        _check_equal("decoder.decoder_params.in_dim", decoder.in_dim, self.slot_dim, "slot_dim")
        _check_equal(
            "decoder.decoder_params.out_dim", decoder.out_dim, self.mlp_encoder_dim + 1, "mlp_encoder_dim + 1"
        )
        if self.slot_dim % self.transition_module.num_heads:
            raise ValueError(
                f"transition_module.num_heads: {self.transition_module.num_heads} "
                f"does not divide slot_dim {self.slot_dim}"
            )


def vit_patch_size(encoder_name: str) -> int:
    """Patch size (pixels) that the name of a vision transformer tells."""
    return int(encoder_name.split("patch")[1].split("_")[0])


def _check_equal(name: str, value: int, expected: int, what: str) -> None:
    if value != expected:
        raise ValueError(f"{name}: {value}, but {what} is {expected}: make them equal")

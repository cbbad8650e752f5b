"""Settings of the decomposition models (section `model` of experiment_params.json).

Sections that name a class (`encoder`, `decoder`) have that class's own settings under `*_params`; the
registry knows their class.
"""

from typing import Any, ClassVar, Literal, Mapping, Optional, Tuple, Union

from pydantic import Field, PositiveInt
from typing_extensions import Annotated

from textocvp.config import registry
from textocvp.config.schema import Settings, require

PerLayer = Union[int, Tuple[int, ...]]


def per_layer(value: PerLayer, num_layers: int, name: str) -> Tuple[int, ...]:
    """One value for every layer, or the given tuple checked against the number of layers (ValueError)."""
    values = (value,) * num_layers if isinstance(value, int) else tuple(value)
    count, expected = len(values), f"{num_layers} values, one per entry of num_channels"
    require(count == num_layers, name, expected, count)
    require(min(values) >= 1, name, "values >= 1", min(values))
    return values


def _check_channels(num_channels: Tuple[int, ...]) -> None:
    positive = bool(num_channels) and min(num_channels) >= 1
    require(positive, "num_channels", "one integer >= 1 per layer", list(num_channels))


def _check_odd(sizes: Tuple[int, ...], name: str) -> None:
    odd = all(size % 2 for size in sizes)
    require(odd, name, "odd values (the input is padded by half of them)", list(sizes))


class ConvEncoderConfig(Settings):
    """Convolutions with ReLU over single frames (Kipf et al. 2022)."""

    dropped: ClassVar[Tuple[str, ...]] = ("downsample_encoder", "downsample")

    num_channels: Tuple[int, ...] = (32, 32, 32, 32)
    """Output channels of each convolution, in order of use."""
    kernel_size: PerLayer = 5
    """Kernel size (pixels, odd); one number for all layers or one per layer."""
    strides: PerLayer = 1
    """Stride (pixels); one number for all layers or one per layer. [2, 1, 1, 1] quarters the locations."""
    resolution: Optional[Tuple[int, int]] = None
    """Height and width (pixels) of the frames the encoder is made for. Only checked against
    dataset.img_size; null: any."""

    def check(self) -> None:
        _check_channels(self.num_channels)
        _check_odd(per_layer(self.kernel_size, len(self.num_channels), "kernel_size"), "kernel_size")
        per_layer(self.strides, len(self.num_channels), "strides")


class BroadcastDecoderConfig(Settings):
    """What the settings of every decoder of broadcast slots have."""

    num_channels: Tuple[int, ...]
    kernel_size: PositiveInt
    position_gain: float = 1.0
    """Factor on the initial weights of the position projection. 4 shortens the early plateau of training."""

    def check(self) -> None:
        _check_channels(self.num_channels)
        _check_odd((self.kernel_size,), "kernel_size")


class ConvDecoderConfig(BroadcastDecoderConfig):
    """Spatial broadcast decoder with plain convolutions (Watters et al. 2019)."""

    dropped: ClassVar[Tuple[str, ...]] = ("downsample_decoder",)

    num_channels: Tuple[int, ...] = (64, 64, 64, 64)
    """Output channels of the hidden convolutions, from the last to the first, as in the original."""
    kernel_size: PositiveInt = 5
    """Kernel size (pixels, odd) of the hidden convolutions; the output convolution is 3x3."""
    resolution: Tuple[int, int] = (64, 64)
    """Height and width (cells) of the grid a slot is broadcast to."""
    upsample: Optional[PositiveInt] = 1
    """Factor of the nearest-neighbour upsampling after every hidden convolution but the last; null: 1."""

    def out_resolution(self) -> Tuple[int, int]:
        """Height and width of the decoded frames."""
        factor = (self.upsample or 1) ** (len(self.num_channels) - 1)
        return self.resolution[0] * factor, self.resolution[1] * factor


class TransposedConvDecoderConfig(BroadcastDecoderConfig):
    """Spatial broadcast to a coarse grid, one convolution, then transposed convolutions of stride 2.

    A fraction of ConvDecoder's cost: each entry of `num_channels` doubles the resolution.
    """

    num_channels: Tuple[int, ...] = (32, 32)
    """Channels after the first convolution, then after each transposed one but the last, in order of use;
    the last transposed convolution ends in RGB and mask."""
    kernel_size: PositiveInt = 3
    """Kernel size (cells, odd) of the first convolution."""
    upsample_kernel_size: int = Field(4, ge=2)
    """Kernel size (cells, even) of the transposed convolutions."""
    resolution: Tuple[int, int] = (8, 8)
    """Height and width (cells) of the grid a slot is broadcast to."""

    def out_resolution(self) -> Tuple[int, int]:
        """Height and width of the decoded frames."""
        factor = 2 ** len(self.num_channels)
        return self.resolution[0] * factor, self.resolution[1] * factor

    def check(self) -> None:
        super().check()
        size = self.upsample_kernel_size
        require(size % 2 == 0, "upsample_kernel_size", "an even value", size)


class TransitionConfig(Settings):
    """The module that carries slots from one frame to the next (the `predictor` of Kipf et al. 2022)."""

    model_name: Annotated[str, registry.TRANSITIONS.name] = "TransformerBlock"
    """Which transition (registry TRANSITIONS)."""
    num_heads: PositiveInt = 4
    """Attention heads; slot_dim must be divisible by it."""
    mlp_size: PositiveInt = 512
    """Hidden units of the feed-forward part."""
    pre_norm: bool = False
    """Normalise before attention and MLP instead of after the residual sums (the original: after)."""
    output_scale: float = 1.0
    """Factor on the two output layers' initial weights; with pre_norm, 0.05 starts near the identity."""


class EncoderSection(Settings):
    """Which image encoder (registry ENCODERS), and its settings."""

    encoder_name: Annotated[str, registry.ENCODERS.name] = "ConvEncoder"
    encoder_params: Annotated[Any, registry.ENCODERS.parameters_of("encoder_name")] = {}


class DecoderSection(Settings):
    """Which decoder (registry DECODERS), and its settings."""

    decoder_name: Annotated[str, registry.DECODERS.name] = "ConvDecoder"
    decoder_params: Annotated[Any, registry.DECODERS.parameters_of("decoder_name")] = {}


class DecompositionConfig(Settings):
    """Common settings of all decomposition models."""

    losses: ClassVar[Tuple[str, ...]] = ("mse",)
    """Loss terms of a new experiment, each with weight 1."""

    num_slots: PositiveInt = 8
    """Slots per frame: the objects and the background."""
    slot_dim: PositiveInt = 128
    """Length of a slot vector."""
    num_iterations_first: PositiveInt = 3
    """Slot attention iterations on the first frame."""
    num_iterations: PositiveInt = 1
    """Slot attention iterations on every later frame."""
    in_channels: PositiveInt = 3
    """Channels of a frame."""
    mlp_hidden: PositiveInt = 256
    """Hidden units of slot attention's MLP."""
    initializer: Annotated[str, registry.INITIALIZERS.name] = "LearnedRandom"
    """Initial slots of the first frame: LearnedRandom draws them from one learned Gaussian, Learned
    keeps one vector per slot, BackgroundRandom gives slot 0 its own vector and draws the others."""
    transition_module: TransitionConfig = TransitionConfig()
    """From the slots of one frame to the initial slots of the next."""

    def check(self) -> None:
        heads, width = self.transition_module.num_heads, self.slot_dim
        require(width % heads == 0, "transition_module.num_heads", f"a divisor of slot_dim {width}", heads)

    def check_img_size(self, img_size: Tuple[int, int]) -> None:
        """Raise ValueError("field: why") if the model cannot work on frames of this height and width."""


class SAViConfig(DecompositionConfig):
    """Slot Attention for Video (Kipf et al. 2022)."""

    new: ClassVar[Mapping[str, Any]] = {"encoder": {"encoder_params": {"resolution": [64, 64]}}}

    mlp_encoder_dim: PositiveInt = 128
    """Hidden and output units of the MLP on the image features."""
    encoder: EncoderSection = EncoderSection()
    """Image encoder."""
    decoder: DecoderSection = DecoderSection()
    """Slot decoder."""
    input_offset: float = 0.0
    """Subtracted from the frames, whose values are in [0, 1], before the encoder."""
    input_scale: float = 1.0
    """Multiplies the frames after the offset; offset 0.5 and scale 4 speed up training."""

    def check_img_size(self, img_size: Tuple[int, int]) -> None:
        """The frame sizes of decoder and encoder must equal the data set's."""
        made, made_for = self.decoder.decoder_params.out_resolution(), self.encoder.encoder_params.resolution
        expected = f"dataset.img_size {list(img_size)}"
        require(made == img_size, "decoder", f"frames of {expected} (resolution times upsampling)", made)
        fits = made_for in (None, img_size)
        require(fits, "encoder.encoder_params.resolution", f"{expected} or null", made_for)


class ViTEncoderConfig(Settings):
    """A frozen vision transformer, pretrained with DINO (Caron et al. 2021) or DINOv2 (Oquab et al. 2023)."""

    dropped: ClassVar[Tuple[str, ...]] = ("encoder_num_blocks",)

    weights: Optional[str] = None
    """Folder of the weights as transformers saves them (in the experiment, in $TEXTOCVP_WEIGHTS or a path),
    or a name on the hub; null: the hub's name that belongs to encoder_name. The folder decides the width."""
    normalization: Literal["imagenet", "mean"] = "imagenet"
    """How frames are normalised: imagenet: (x - mean) / std; mean: (x - mean) / mean, as the original does,
    whose checkpoints rely on it."""
    num_blocks: Optional[PositiveInt] = None
    """Use the first blocks only; null: all."""


class MLPPatchDecoderConfig(Settings):
    """Slots to patch features and masks with an MLP, then features to a picture with convolutions."""

    patch_size: PositiveInt = 14
    """Height and width (pixels) of the encoder's patches."""
    num_patches: PositiveInt = 576
    """Patches of a frame: (img_size / patch_size) squared."""
    in_dim: PositiveInt = 128
    """Length of a slot vector, equal to slot_dim."""
    hidden_dim: PositiveInt = 1024
    """Hidden units of the MLP, and channels of the first convolution; they halve with every upsampling."""
    out_dim: int = Field(769, ge=2)
    """Width of the encoder's features and one for the mask."""
    num_layers: PositiveInt = 4
    """Linear layers of the MLP."""
    initial_layer_norm: bool = True
    """Normalise slot plus position before the MLP."""
    reconstruct_images: bool = True
    """Must be true: evaluation, figures and the predictors' losses need pictures."""
    num_layers_cnn: PositiveInt = 4
    """Convolutions before the last one; each doubles the resolution until the picture's is reached."""

    def check(self) -> None:
        square = round(self.num_patches**0.5) ** 2 == self.num_patches
        require(square, "num_patches", "a square number (frames are square)", self.num_patches)
        require(self.reconstruct_images, "reconstruct_images", "true (evaluation needs pictures)", False)


class ViTSection(Settings):
    """Which vision transformer (registry VIT_ENCODERS), and its settings."""

    encoder_name: Annotated[str, registry.VIT_ENCODERS.name] = "vit_base_patch14_dinov2"
    encoder_params: Annotated[Any, registry.VIT_ENCODERS.parameters_of("encoder_name")] = {}


class PatchDecoderSection(Settings):
    """Which decoder of patch features (registry PATCH_DECODERS), and its settings."""

    decoder_name: Annotated[str, registry.PATCH_DECODERS.name] = "MLPPatchDecoder"
    decoder_params: Annotated[Any, registry.PATCH_DECODERS.parameters_of("decoder_name")] = {}


class ExtendedDINOSAURConfig(DecompositionConfig):
    """DINOSAUR (Seitzer et al. 2023) for video, which also reconstructs the frames."""

    original: ClassVar[Mapping[str, Any]] = {"encoder": {"encoder_params": {"normalization": "mean"}}}
    losses: ClassVar[Tuple[str, ...]] = ("mse", "pred_feature_mse")

    img_size: PositiveInt = 336
    """Height and width (pixels) of the frames, equal to dataset.img_size."""
    num_slots: PositiveInt = 10
    """Slots per frame: the objects and the background."""
    in_channels: Literal[3] = 3
    """Channels of a frame."""
    mlp_hidden: PositiveInt = 512
    """Hidden units of slot attention's MLP."""
    mlp_encoder_dim: PositiveInt = 768
    """Width of the encoder's features."""
    encoder: ViTSection = ViTSection()
    """Frozen image encoder."""
    decoder: PatchDecoderSection = PatchDecoderSection()
    """Slot decoder."""

    def check(self) -> None:
        super().check()
        decoder, patch_size = self.decoder.decoder_params, vit_patch_size(self.encoder.encoder_name)
        size = self.img_size
        require(size % patch_size == 0, "img_size", f"a multiple of the patch size {patch_size}", size)
        for name, expected, why in (
            ("patch_size", patch_size, f"the patch size of {self.encoder.encoder_name}"),
            ("num_patches", (size // patch_size) ** 2, "(img_size / patch_size) squared"),
            ("in_dim", self.slot_dim, "slot_dim"),
            ("out_dim", self.mlp_encoder_dim + 1, "mlp_encoder_dim + 1"),
        ):
            found = getattr(decoder, name)
            require(found == expected, f"decoder.decoder_params.{name}", f"{expected}, {why}", found)

    def check_img_size(self, img_size: Tuple[int, int]) -> None:
        """Frames are squares of `img_size`."""
        fits = (self.img_size, self.img_size) == img_size
        require(fits, "img_size", f"dataset.img_size {list(img_size)} (frames are square)", self.img_size)


def vit_patch_size(encoder_name: str) -> int:
    """Patch size (pixels) in the name of a vision transformer."""
    return int(encoder_name.split("patch")[1].split("_")[0])

"""How many values a model trains, from its configuration alone: what checkpoints weigh before any exists.

Each class of settings has its own formula. Frozen encoders do not count, they are not saved. Standard library
only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import singledispatch
from typing import Any, Optional

from textocvp.config.experiment import Experiment
from textocvp.config.models import (
    ConvDecoderConfig,
    ConvEncoderConfig,
    ExtendedDINOSAURConfig,
    MLPPatchDecoderConfig,
    SAViConfig,
    TransitionConfig,
    TransposedConvDecoderConfig,
    per_layer,
)
from textocvp.config.predictors import (
    FusionConfig,
    OCVPSeqConfig,
    T5EncoderConfig,
    TextOCVPConfig,
    TextOCVPT5Config,
    TextTransformerConfig,
    TransformerConfig,
    VanillaTransformerConfig,
)

T5_SMALL_WIDTH = 512


@dataclass(frozen=True)
class Size:
    """Values that are trained, and the tensors they lie in."""

    values: int = 0
    tensors: int = 0

    def __add__(self, other: Size) -> Size:
        return Size(self.values + other.values, self.tensors + other.tensors)

    def times(self, number: int) -> Size:
        """This many of the same."""
        return Size(number * self.values, number * self.tensors)


class UnknownSize(LookupError):  # noqa: N818 (no error of the user's)
    """There is no formula for this class of settings."""


def model_size(experiment: Experiment) -> Optional[Size]:
    """What the decomposition model trains; None where its class has no formula."""
    try:
        return decomposition(experiment.model.model_params)
    except UnknownSize:
        return None


def predictor_size(experiment: Experiment, text_width: Optional[int] = None) -> Optional[Size]:
    """What the predictor trains; None where its class has no formula.

    Args:
        text_width: width of the frozen text encoder, where it is known to be another than t5-small's.
    """
    prediction = experiment.prediction_params
    buffer_size = prediction.input_buffer_size or prediction.num_frames
    try:
        return predictor(
            experiment.predictor.predictor_params,
            experiment.model.model_params.slot_dim,
            buffer_size,
            text_width or T5_SMALL_WIDTH,
        )
    except UnknownSize:
        return None


def linear(inputs: int, outputs: int, bias: bool = True, kernel: int = 1) -> Size:
    """A linear layer, or a convolution with a kernel of kernel x kernel."""
    return Size(kernel * kernel * inputs * outputs + bias * outputs, 1 + bias)


def norm(width: int) -> Size:
    """A layer or batch normalisation."""
    return Size(2 * width, 2)


def mlp(*widths: int) -> Size:
    """Linear layers one after the other."""
    return sum((linear(*pair) for pair in zip(widths, widths[1:])), Size())


def attention(width: int, inner: int, out_bias: bool) -> Size:
    """Queries, keys and values without bias, and the output."""
    return linear(width, inner, bias=False).times(3) + linear(inner, width, out_bias)


def block(width: int, mlp_size: int) -> Size:
    """modules.attention.TransformerBlock"""
    return attention(width, width, False) + norm(width).times(2) + mlp(width, mlp_size, width)


def encoder_layer(width: int, mlp_size: int) -> Size:
    """modules.encoder_layer.EncoderLayer"""
    projections = linear(width, 3 * width) + linear(width, width)
    return projections + norm(width).times(2) + mlp(width, mlp_size, width)


def _unknown(params: Any) -> UnknownSize:
    return UnknownSize(type(params).__name__)


@singledispatch
def decomposition(params: Any) -> Size:
    """A decomposition model."""
    raise _unknown(params)


@singledispatch
def predictor(params: Any, slot_dim: int, buffer_size: int, text_width: int) -> Size:
    """A predictor."""
    raise _unknown(params)


@singledispatch
def part(params: Any, width: int, out_width: int = 0) -> Size:
    """A part of a model that reads `width` channels or dimensions."""
    raise _unknown(params)


@decomposition.register(SAViConfig)
def _savi(params: SAViConfig) -> Size:
    encoder, width = params.encoder.encoder_params, params.mlp_encoder_dim
    channels = encoder.num_channels[-1]
    features = norm(channels) + mlp(channels, width, width)
    return (
        part(encoder, params.in_channels)
        + linear(4, channels)
        + features
        + _recurrence(params, width)
        + part(params.decoder.decoder_params, params.slot_dim, params.in_channels + 1)
    )


@decomposition.register(ExtendedDINOSAURConfig)
def _extended_dinosaur(params: ExtendedDINOSAURConfig) -> Size:
    width, slot_dim = params.mlp_encoder_dim, params.slot_dim
    return (
        norm(width)
        + mlp(width, width, slot_dim)
        + _recurrence(params, slot_dim)
        + part(params.decoder.decoder_params, slot_dim)
    )


def _recurrence(params: Any, width: int) -> Size:
    """Initializer (of whatever kind: it is small), slot attention over features, transition."""
    slot_dim = params.slot_dim
    gru = Size(6 * slot_dim * (slot_dim + 1), 4)
    projections = linear(slot_dim, slot_dim) + linear(width, slot_dim).times(2)
    slot_attention = (
        norm(width) + norm(slot_dim).times(2) + projections + gru + mlp(slot_dim, params.mlp_hidden, slot_dim)
    )
    return Size(2 * slot_dim, 2) + slot_attention + part(params.transition_module, slot_dim)


@part.register(TransitionConfig)
def _transition(params: TransitionConfig, width: int, out_width: int = 0) -> Size:
    return block(width, params.mlp_size)


@part.register(ConvEncoderConfig)
def _conv_encoder(params: ConvEncoderConfig, width: int, out_width: int = 0) -> Size:
    kernels = per_layer(params.kernel_size, len(params.num_channels), "kernel_size")
    inputs = (width, *params.num_channels)
    return sum((linear(*sizes[:2], kernel=sizes[2]) for sizes in zip(inputs, inputs[1:], kernels)), Size())


@part.register(ConvDecoderConfig)
def _conv_decoder(params: ConvDecoderConfig, width: int, out_width: int = 0) -> Size:
    channels = (width, *params.num_channels[::-1])
    hidden = (linear(*pair, kernel=params.kernel_size) for pair in zip(channels, channels[1:]))
    return linear(4, width) + sum(hidden, Size()) + linear(channels[-1], out_width, kernel=3)


@part.register(TransposedConvDecoderConfig)
def _transposed_decoder(params: TransposedConvDecoderConfig, width: int, out_width: int = 0) -> Size:
    channels = (*params.num_channels, out_width)
    convs = (linear(*pair, kernel=params.upsample_kernel_size) for pair in zip(channels, channels[1:]))
    return linear(4, width) + linear(width, channels[0], kernel=params.kernel_size) + sum(convs, Size())


@part.register(MLPPatchDecoderConfig)
def _patch_decoder(params: MLPPatchDecoderConfig, width: int, out_width: int = 0) -> Size:
    hidden = [params.hidden_dim] * (params.num_layers - 1)
    total = Size(params.num_patches * width, 1) + norm(width) + mlp(width, *hidden, params.out_dim)
    channels, made = params.out_dim - 1, params.hidden_dim
    for i in range(params.num_layers_cnn):
        # as modules.patch_decoder, but for pictures that are smaller than the doubled patches
        if i > 0 and 2 * (i + 1) < params.patch_size:
            made //= 2
        total += linear(channels, made, kernel=3) + norm(made)
        channels = made
    return total + linear(channels, 3, kernel=3)


@predictor.register(VanillaTransformerConfig)
def _vanilla(params: VanillaTransformerConfig, slot_dim: int, buffer_size: int, text_width: int) -> Size:
    width = params.token_dim
    layers = encoder_layer(width, params.hidden_dim).times(params.num_layers)
    return linear(slot_dim, width) + layers + linear(width, slot_dim)


@predictor.register(OCVPSeqConfig)
def _ocvp_seq(params: OCVPSeqConfig, slot_dim: int, buffer_size: int, text_width: int) -> Size:
    more = encoder_layer(params.token_dim, params.hidden_dim).times(params.num_layers)
    return _vanilla(params, slot_dim, buffer_size, text_width) + more


@predictor.register(TextOCVPConfig)
@predictor.register(TextOCVPT5Config)
def _textocvp(params: Any, slot_dim: int, buffer_size: int, text_width: int) -> Size:
    transformer: TransformerConfig = params.predictor_params
    width = transformer.token_dim
    layer = block(width, transformer.hidden_dim) + part(params.fusion_params, width)
    return (
        linear(slot_dim, width)
        + Size((buffer_size + 1) * width, 1)
        + layer.times(transformer.num_layers)
        + linear(width, slot_dim)
        + part(params.text_encoder_params, text_width, width)
    )


@part.register(FusionConfig)
def _fusion(params: FusionConfig, width: int, out_width: int = 0) -> Size:
    inner = params.num_heads * params.head_dim
    return norm(width).times(3) + attention(width, inner, True) + mlp(width, params.mlp_size, width)


@part.register(TextTransformerConfig)
def _text_transformer(params: TextTransformerConfig, width: int, out_width: int = 0) -> Size:
    own = params.input_dim
    embeddings = Size((params.vocab_size + params.context_length) * own, 2) + norm(own)
    layers = encoder_layer(own, 4 * own).times(params.num_layers)
    return embeddings + layers + norm(own) + linear(own, out_width)


@part.register(T5EncoderConfig)
def _t5(params: T5EncoderConfig, width: int, out_width: int = 0) -> Size:
    return Size() if width == out_width else linear(width, out_width)

"""Settings of the predictors (section `predictor` of experiment_params.json)."""

from typing import Any, ClassVar, Mapping, Optional

from pydantic import Field, PositiveInt

from textocvp.config.schema import Settings, require


class PredictorConfig(Settings):
    """Common properties of all predictors' settings."""

    tokenizer: ClassVar[Optional[str]] = None
    """The tokenizer of the predictor's text; None: it needs no text."""

    @property
    def tokenizer_weights(self) -> Optional[str]:
        """Name or folder of the pretrained weights that the tokenizer belongs to; None: it needs none."""
        return None


class TransformerConfig(Settings):
    """The transformer of TextOCVP."""

    token_dim: PositiveInt = 512
    """Width of the transformer; slots and text are projected to it."""
    n_heads: PositiveInt = 8
    """Heads of the self-attention over slots; token_dim must be divisible by it."""
    hidden_dim: PositiveInt = 2048
    """Hidden units of a layer's MLP."""
    num_layers: PositiveInt = 8
    """Layers."""
    residual: bool = True
    """Predict the change from the latest slots instead of the slots."""
    output_scale: float = 1.0
    """Factor on the output layer's initial values; with `residual`, 0.05 starts by copying the slots."""

    def check(self) -> None:
        heads, width = self.n_heads, self.token_dim
        require(width % heads == 0, "n_heads", f"a divisor of token_dim {width}", heads)


class VanillaTransformerConfig(TransformerConfig, PredictorConfig):
    """Transformer over all slots of all frames in the buffer; sees no text."""

    token_dim: PositiveInt = 128
    """Width of the transformer; slots are projected to it."""
    n_heads: PositiveInt = 4
    """Attention heads; token_dim must be divisible by it."""
    hidden_dim: PositiveInt = 256
    """Hidden units of the feed-forward part."""
    num_layers: PositiveInt = 2
    """Layers."""
    dropout: float = Field(0.1, ge=0, le=1)
    """Dropout in the layers and after the position embedding (the original's fixed 0.1)."""


class OCVPSeqConfig(VanillaTransformerConfig):
    """OCVP-Seq (Villar-Corrales et al. 2023): attention over a frame's slots, then over a slot's history."""


class FusionConfig(Settings):
    """Cross-attention from slots to text, in every layer."""

    num_heads: PositiveInt = 8
    """Heads of the cross-attention."""
    head_dim: PositiveInt = 64
    """Width of one head."""
    mlp_size: PositiveInt = 2048
    """Hidden units of the MLP after the cross-attention."""
    mask_padding: bool = True
    """Padding of shorter captions is not attended. The original attends it, so that there a prediction
    depends on the longest caption of its batch; false reproduces that."""


class TextTransformerConfig(Settings):
    """The text encoder that is trained with the predictor."""

    input_dim: PositiveInt = 128
    """Width of the text transformer; its feed-forward part is four times as wide."""
    num_layers: PositiveInt = 2
    """Layers."""
    num_heads: PositiveInt = 4
    """Attention heads; input_dim must be divisible by it."""
    vocab_size: PositiveInt = 50
    """Token ids the embedding has rows for: at least the vocabulary's size."""
    context_length: PositiveInt = 50
    """Longest caption (token ids, [CLS] and [SEP] included); fixed in the original."""
    dropout: float = Field(0.1, ge=0, le=1)
    """Dropout after the embedding and in the layers (the original's fixed 0.1)."""

    def check(self) -> None:
        heads, width = self.num_heads, self.input_dim
        require(width % heads == 0, "num_heads", f"a divisor of input_dim {width}", heads)


class T5EncoderConfig(Settings):
    """A frozen, pretrained T5 encoder (Raffel et al. 2020), of any width."""

    weights: str = "google-t5/t5-small"
    """Folder of weights and tokenizer as transformers saves them (in the experiment, in $TEXTOCVP_WEIGHTS or
    a path), or a name on the hub. Where its width is not token_dim, a learned projection follows."""


class TextGuidedConfig(PredictorConfig):
    """TextOCVP (Villar-Corrales, Plepi, Behnke 2025), whatever its text encoder."""

    original: ClassVar[Mapping[str, Any]] = {"fusion_params": {"mask_padding": False}}

    predictor_params: TransformerConfig = TransformerConfig()
    """Transformer over the slots of all frames in the buffer."""
    fusion_params: FusionConfig = FusionConfig()
    """How the text reaches the slots."""


class TextOCVPConfig(TextGuidedConfig):
    """TextOCVP with its own text transformer."""

    tokenizer: ClassVar[Optional[str]] = "CustomTokenizer"

    text_encoder_params: TextTransformerConfig = TextTransformerConfig()
    """Text encoder."""


class TextOCVPT5Config(TextGuidedConfig):
    """TextOCVP with a frozen T5."""

    tokenizer: ClassVar[Optional[str]] = "T5"

    text_encoder_params: T5EncoderConfig = T5EncoderConfig()
    """Text encoder."""

    @property
    def tokenizer_weights(self) -> Optional[str]:
        """The encoder's: its tokenizer is in the same folder."""
        return self.text_encoder_params.weights

"""Text: token ids to embeddings (TextTransformer, T5TextEncoder); slots that read them (TextGuidedBlock)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from textocvp.config.predictors import FusionConfig, T5EncoderConfig, TextTransformerConfig, TransformerConfig
from textocvp.files import UserError
from textocvp.modules import xavier_
from textocvp.modules.attention import AttentionAndMLP, EncoderLayer, MultiHeadAttention
from textocvp.pretrained import FrozenEncoder, find_weights, read, read_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TextTransformer(nn.Module):
    """Word and position embeddings, a post-norm transformer, a projection to the predictor's width."""

    norm_eps = 1e-8

    def __init__(self, config: TextTransformerConfig, out_dim: int) -> None:
        super().__init__()
        width = config.input_dim
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.position_embedding = nn.Embedding(config.context_length, width)
        self.norm = nn.LayerNorm(width, eps=self.norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(width, config.num_heads, 4 * width, config.dropout, False, activation=nn.GELU)
            for _ in range(config.num_layers)
        )
        self.projection = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, out_dim))
        self.apply(_small_normal_)
        nn.init.normal_(self.position_embedding.weight, std=0.01)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Embed token ids.

        Args:
            tokens: (B, S) int64.
            mask: (B, S) bool, True = a real token.
        Returns:
            (B, S, out_dim); rows of padding are meaningless.
        Raises:
            UserError: a caption is longer than context_length.
        """
        length, longest = tokens.shape[1], self.position_embedding.num_embeddings
        if length > longest:
            raise UserError(
                f"a caption has {length} tokens, but text_encoder_params.context_length is {longest}"
            )
        positions = torch.arange(length, device=tokens.device)
        embedded = self.token_embedding(tokens) + self.position_embedding(positions)
        embedded = self.dropout(self.norm(embedded)) * mask[..., None]
        for layer in self.layers:
            embedded = layer(embedded, mask=mask)
        return self.projection(embedded)


def _small_normal_(module: nn.Module) -> None:
    """Initialise as text transformers are: weights from N(0, 0.02), biases zero."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


class FrozenT5(FrozenEncoder):
    """A pretrained T5 encoder; it carries no gradient."""

    def __init__(self, config: T5EncoderConfig, folder: Path | None, pretrained: bool) -> None:
        super().__init__()
        from transformers import T5Config, T5EncoderModel  # seconds to import

        if pretrained:
            self.model = read_model(T5EncoderModel, config.weights, folder)
        elif config.weights == T5EncoderConfig().weights and find_weights(config.weights, folder) is None:
            self.model = T5EncoderModel(T5Config())  # t5-small: transformers' own default
        else:
            self.model = T5EncoderModel(read(T5Config, config.weights, folder))
        self.requires_grad_(False).eval()

    @property
    def transformer(self) -> "PreTrainedModel":
        """What transformers saves and reads."""
        return self.model

    @torch.no_grad()
    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, S) int64 and (B, S) bool -> (B, S, out_dim); padding is not attended."""
        return self.model(input_ids=tokens, attention_mask=mask.long()).last_hidden_state


class T5TextEncoder(nn.Module):
    """A frozen T5, and a projection where its width is not the predictor's."""

    def __init__(self, config: T5EncoderConfig, out_dim: int, folder: Path | None, pretrained: bool) -> None:
        super().__init__()
        self.t5 = FrozenT5(config, folder, pretrained)
        width: int = self.t5.transformer.config.d_model
        self.projection = nn.Identity() if width == out_dim else nn.Linear(width, out_dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token ids (B, S) int64, mask (B, S) bool -> (B, S, out_dim); rows of padding are meaningless."""
        return self.projection(self.t5(tokens, mask))


class TextCrossAttention(nn.Module):
    """Cross-attention from slots to text and an MLP, both pre-norm with residual connections."""

    norm_eps = 1e-6

    def __init__(self, dim: int, config: FusionConfig) -> None:
        super().__init__()
        self.norm_slots = nn.LayerNorm(dim, eps=self.norm_eps)
        self.norm_text = nn.LayerNorm(dim, eps=self.norm_eps)
        self.attention = MultiHeadAttention(dim, config.num_heads, config.head_dim, out_bias=True)
        self.norm_mlp = nn.LayerNorm(dim, eps=self.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(dim, config.mlp_size), nn.ReLU(), nn.Linear(config.mlp_size, dim))

    def keys_values(self, text: Tensor) -> tuple[Tensor, Tensor]:
        """Project text (B, S, dim) to keys and values (B, heads, S, head_dim): once for a whole rollout."""
        return self.attention.keys_values(self.norm_text(text))

    def forward(self, tokens: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Slot tokens (B, L, dim) -> (B, L, dim); mask (B, S) bool, True: may be attended."""
        tokens = tokens + self.attention.attend(self.norm_slots(tokens), keys, values, mask)
        return tokens + self.mlp(self.norm_mlp(tokens))


class TextGuidedBlock(AttentionAndMLP):
    """Self-attention over slots, then text, then an MLP.

    What the slots read from the text reaches the residual stream through the MLP alone, as in the original.
    """

    def __init__(self, config: TransformerConfig, fusion: FusionConfig) -> None:
        super().__init__(config.token_dim, config.n_heads, config.hidden_dim)
        xavier_(self)
        self.text_attention = TextCrossAttention(config.token_dim, fusion)

    def forward(
        self, tokens: Tensor, num_queries: int, keys: Tensor, values: Tensor, text_mask: Tensor | None
    ) -> Tensor:
        """Update the last `num_queries` of the tokens (B, L, dim): (B, num_queries, dim).

        keys, values, text_mask: of the text, as TextCrossAttention takes them.
        """
        tokens_norm = self.norm_attention(tokens)
        queries, queries_norm = tokens[:, -num_queries:], tokens_norm[:, -num_queries:]
        slots = queries + self.attention(queries_norm, tokens_norm)
        guided = self.text_attention(slots, keys, values, text_mask)
        return slots + self.mlp(self.norm_mlp(guided))

"""Slots that read text: the layers of TextOCVP (Villar-Corrales, Plepi, Behnke 2025)."""

from __future__ import annotations

from torch import Tensor, nn

from textocvp.config.predictors import FusionConfig, TransformerConfig
from textocvp.modules.attention import MultiHeadAttention, TransformerBlock
from textocvp.modules.weights import xavier_


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


class TextGuidedBlock(TransformerBlock):
    """Self-attention over slots, then text, then an MLP.

    What the slots read from the text reaches the residual stream through the MLP alone, as in the original.
    """

    def __init__(self, config: TransformerConfig, fusion: FusionConfig) -> None:
        super().__init__(config.token_dim, config.n_heads, config.hidden_dim, pre_norm=True)
        xavier_(self)
        self.text_attention = TextCrossAttention(config.token_dim, fusion)

    def forward(
        self,
        tokens: Tensor,
        num_queries: int,
        text_keys: Tensor,
        text_values: Tensor,
        text_mask: Tensor | None,
    ) -> Tensor:
        """Update the last `num_queries` of the tokens (B, L, dim): (B, num_queries, dim)."""
        tokens_norm = self.norm_attention(tokens)
        queries, queries_norm = tokens[:, -num_queries:], tokens_norm[:, -num_queries:]
        slots = queries + self.attention(queries_norm, tokens_norm)
        guided = self.text_attention(slots, text_keys, text_values, text_mask)
        return slots + self.mlp(self.norm_mlp(guided))

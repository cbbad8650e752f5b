"""The transformer encoder layer of Vaswani et al. 2017, with PyTorch's parametrisation and dropout.

Not nn.TransformerEncoderLayer: that one reads its submodules' parameters without calling them, which ZeRO
stage 3 cannot see, and always updates every token.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class PackedSelfAttention(nn.Module):
    """Multi-head self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.in_projection = nn.Linear(dim, 3 * dim)
        self.out_projection = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_projection.weight)
        nn.init.zeros_(self.in_projection.bias)
        nn.init.zeros_(self.out_projection.bias)

    def forward(self, tokens: Tensor, num_queries: int, mask: Tensor | None = None) -> Tensor:
        """The last `num_queries` of the tokens (B, L, E) attend all of them: (B, num_queries, E).

        mask: (B, L) bool, True where a token may be attended; None: everywhere.
        """
        heads = self.in_projection(tokens).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)  # each (B, heads, L, E / heads)
        attended = F.scaled_dot_product_attention(
            queries[:, :, -num_queries:],
            keys,
            values,
            None if mask is None else mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_projection(attended.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Self-attention and an MLP, each with dropout and a residual connection."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_size: int,
        dropout: float,
        pre_norm: bool,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.pre_norm = pre_norm
        self.attention = PackedSelfAttention(dim, num_heads, dropout)
        self.norm_attention = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, mlp_size), activation(), nn.Dropout(dropout), nn.Linear(mlp_size, dim)
        )
        self.norm_mlp = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, num_queries: int | None = None, mask: Tensor | None = None) -> Tensor:
        """Update the last `num_queries` (None: all) of the tokens (B, L, E): (B, num_queries, E).

        mask: (B, L) bool, True where a token may be attended; None: everywhere.
        """
        num_queries = num_queries or tokens.shape[1]
        queries = tokens[:, -num_queries:]
        if self.pre_norm:
            queries = queries + self.dropout(self.attention(self.norm_attention(tokens), num_queries, mask))
            return queries + self.dropout(self.mlp(self.norm_mlp(queries)))
        queries = self.norm_attention(queries + self.dropout(self.attention(tokens, num_queries, mask)))
        return self.norm_mlp(queries + self.dropout(self.mlp(queries)))

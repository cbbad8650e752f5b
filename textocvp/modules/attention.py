"""Transformer layers: the original's own blocks (TransformerBlock), PyTorch's (EncoderLayer), positions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention over several heads (Vaswani et al. 2017).

    Queries, keys and values are projected without bias, as in the original TextOCVP.
    """

    def __init__(self, dim: int, num_heads: int, head_dim: int | None = None, out_bias: bool = False) -> None:
        """head_dim: width of a head; None: dim / num_heads."""
        super().__init__()
        self.head_dim = head_dim or dim // num_heads
        inner_dim = self.head_dim * num_heads
        self.q = nn.Linear(dim, inner_dim, bias=False)
        self.k = nn.Linear(dim, inner_dim, bias=False)
        self.v = nn.Linear(dim, inner_dim, bias=False)
        self.out = nn.Linear(inner_dim, dim, bias=out_bias)

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Project what is attended, (B, K, dim), to keys and values (B, heads, K, head_dim)."""
        return self._split(self.k(context)), self._split(self.v(context))

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attend from queries (B, Q, dim) to keys and values of `keys_values`: (B, Q, dim).

        mask: (B, K) bool, True where the context may be attended; None: everywhere.
        """
        allowed = None if mask is None else mask[:, None, None, :]
        queries = self._split(self.q(queries))
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=allowed)
        return self.out(attended.transpose(1, 2).flatten(2))

    def forward(self, queries: Tensor, context: Tensor) -> Tensor:
        """Attend from queries (B, Q, dim) to context (B, K, dim): (B, Q, dim)."""
        return self.attend(queries, *self.keys_values(context))

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, L, heads * head_dim) -> (B, heads, L, head_dim)"""
        return tokens.unflatten(2, (-1, self.head_dim)).transpose(1, 2)


class AttentionAndMLP(nn.Module):
    """The layers of a transformer block; a subclass says how they are connected."""

    norm_eps = 1e-6

    def __init__(self, dim: int, num_heads: int, mlp_size: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(dim, num_heads)
        self.norm_attention = nn.LayerNorm(dim, eps=self.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(dim, mlp_size), nn.ReLU(), nn.Linear(mlp_size, dim))
        self.norm_mlp = nn.LayerNorm(dim, eps=self.norm_eps)


class TransformerBlock(AttentionAndMLP):
    """Self-attention and an MLP, each with a residual connection, normalised before or after."""

    def __init__(self, dim: int, num_heads: int, mlp_size: int, pre_norm: bool) -> None:
        super().__init__(dim, num_heads, mlp_size)
        self.pre_norm = pre_norm

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, L, dim) -> (B, L, dim)"""
        if self.pre_norm:
            tokens_norm = self.norm_attention(tokens)
            tokens = tokens + self.attention(tokens_norm, tokens_norm)
            return tokens + self.mlp(self.norm_mlp(tokens))
        tokens = self.norm_attention(tokens + self.attention(tokens, tokens))
        return self.norm_mlp(tokens + self.mlp(tokens))


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
        allowed, dropout = (
            None if mask is None else mask[:, None, None],
            self.dropout if self.training else 0.0,
        )
        queries = queries[:, :, -num_queries:]
        attended = F.scaled_dot_product_attention(queries, keys, values, allowed, dropout_p=dropout)
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


def coordinate_grid(resolution: tuple[int, int]) -> Tensor:
    """Coordinates of the cells of an (H, W) grid: (1, 4, H, W) float.

    Channels: y and x in [-1, 1], then 1 - y and 1 - x in [0, 2] (the original's complementary channels).
    """
    height, width = resolution
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    return torch.stack([y, x, 1 - y, 1 - x])[None]


class SoftPositionEmbedding(nn.Module):
    """A linear projection of the cells' coordinates (Locatello et al. 2020, App. E.2)."""

    def __init__(self, dim: int, resolution: tuple[int, int]) -> None:
        super().__init__()
        self.projection = nn.Conv2d(4, dim, kernel_size=1)
        self.register_buffer("grid", coordinate_grid(resolution), persistent=False)

    def forward(self) -> Tensor:
        """(1, dim, H, W), to be added to feature maps."""
        return self.projection(self.grid)

    @torch.no_grad()
    def scale_projection(self, gain: float) -> None:
        """Scale the initial weights; call once, after initialisation."""
        self.projection.weight.mul_(gain)


class SinusoidalTimeEmbedding(nn.Module):
    """Fixed sines and cosines (Vaswani et al. 2017); the oldest frame of a window gets row 0."""

    table: Tensor

    def __init__(self, dim: int, max_frames: int) -> None:
        super().__init__()
        position = torch.arange(max_frames)[:, None]
        frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10000.0) / dim))
        table = torch.zeros(max_frames, dim)
        table[:, 0::2] = torch.sin(position * frequency)
        table[:, 1::2] = torch.cos(position * frequency)[:, : dim // 2]
        self.register_buffer("table", table, persistent=False)

    def forward(self, num_frames: int) -> Tensor:
        """(num_frames, 1, dim), to be added to slots (B, T, N, dim)"""
        return self.table[:num_frames, None]


class LearnedTimeEmbedding(nn.Module):
    """A learned vector per frame of a window, counted backwards: the newest frame gets row 0."""

    def __init__(self, dim: int, max_frames: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.02 * torch.randn(1, max_frames, 1, dim))

    def forward(self, num_frames: int) -> Tensor:
        """(1, num_frames, 1, dim), to be added to slots (B, T, N, dim)"""
        return self.table[:, :num_frames].flip(1)

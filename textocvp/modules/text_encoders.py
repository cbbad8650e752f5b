"""Text encoders: token ids to embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textocvp.config.errors import UserError
from textocvp.config.predictors import TextTransformerConfig
from textocvp.modules.encoder_layer import EncoderLayer


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
            EncoderLayer(
                width, config.num_heads, 4 * width, config.dropout, pre_norm=False, activation=nn.GELU
            )
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

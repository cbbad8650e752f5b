"""VanillaTransformer: the predictor without text, with joint attention over all slots and frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textocvp.config.predictors import VanillaTransformerConfig
from textocvp.modules.attention import EncoderLayer
from textocvp.modules.positional import SinusoidalTimeEmbedding
from textocvp.predictors.rollout import SlotPredictor, TextEmbedding


class VanillaTransformer(SlotPredictor):
    """Pre-norm transformer encoder over the slots of all frames (Villar-Corrales et al. 2023, baseline)."""

    tokenizer = VanillaTransformerConfig.tokenizer
    reads_weights = False

    def __init__(self, config: VanillaTransformerConfig, slot_dim: int, buffer_size: int) -> None:
        super().__init__()
        self.residual = config.residual
        self.input_projection = nn.Linear(slot_dim, config.token_dim)
        self.time_embedding = SinusoidalTimeEmbedding(config.token_dim, buffer_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(self._build_layer(config) for _ in range(config.num_layers))
        self.output_projection = nn.Linear(config.token_dim, slot_dim)
        self._initialise(config.output_scale)

    def _build_layer(self, config: VanillaTransformerConfig) -> nn.Module:
        return predictor_layer(config)

    @torch.no_grad()
    def _initialise(self, output_scale: float) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        self.output_projection.weight.mul_(output_scale)

    def forward(self, slots: Tensor, text: TextEmbedding | None = None) -> Tensor:
        """Slots (B, T', N, D) of past frames, oldest first -> next slots (B, N, D); text is not read."""
        tokens = self.dropout(self.input_projection(slots) + self.time_embedding(slots.shape[1]))
        change = self.output_projection(self._attend(tokens))
        return slots[:, -1] + change if self.residual else change

    def _attend(self, tokens: Tensor) -> Tensor:
        """Every slot of every frame attends all others: (B, T', N, E) -> the newest frame's (B, N, E)."""
        num_slots, sequence = tokens.shape[2], tokens.flatten(1, 2)
        for layer in self.layers[:-1]:
            sequence = layer(sequence)
        return self.layers[-1](sequence, num_queries=num_slots)


def predictor_layer(config: VanillaTransformerConfig) -> EncoderLayer:
    """One pre-norm transformer layer."""
    return EncoderLayer(config.token_dim, config.n_heads, config.hidden_dim, config.dropout, pre_norm=True)

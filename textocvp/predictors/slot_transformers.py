"""Predictors without text: VanillaTransformer, and OCVPSeq, which attends to objects and to time in turn."""

import torch
from torch import Tensor, nn

from textocvp.config.predictors import VanillaTransformerConfig
from textocvp.modules.attention import EncoderLayer, SinusoidalTimeEmbedding
from textocvp.predictors.rollout import SlotPredictor, TextEmbedding


class SlotLayer(EncoderLayer):
    """One pre-norm transformer layer over slots."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__(config.token_dim, config.n_heads, config.hidden_dim, config.dropout, pre_norm=True)


class VanillaTransformer(SlotPredictor):
    """Pre-norm transformer encoder over the slots of all frames (Villar-Corrales et al. 2023, baseline)."""

    layer_class: type[nn.Module] = SlotLayer

    def __init__(self, config: VanillaTransformerConfig, slot_dim: int, buffer_size: int) -> None:
        super().__init__()
        self.residual = config.residual
        self.input_projection = nn.Linear(slot_dim, config.token_dim)
        self.time_embedding = SinusoidalTimeEmbedding(config.token_dim, buffer_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(self.layer_class(config) for _ in range(config.num_layers))
        self.output_projection = nn.Linear(config.token_dim, slot_dim)
        self._initialise(config.output_scale)

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
        """Every slot of every frame attends to all others: (B, T', N, E) -> the newest frame's (B, N, E)."""
        num_slots, sequence = tokens.shape[2], tokens.flatten(1, 2)
        for layer in self.layers[:-1]:
            sequence = layer(sequence)
        return self.layers[-1](sequence, num_queries=num_slots)


class OCVPSeqLayer(nn.Module):
    """Attention over the slots of each frame, then over the frames of each slot."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.objects, self.time = SlotLayer(config), SlotLayer(config)

    def forward(self, tokens: Tensor, num_queries: int | None = None) -> Tensor:
        """(B, T', N, E) -> (B, T', N, E), of the last `num_queries` frames only where given."""
        batch = tokens.shape[0]
        tokens = self.objects(tokens.flatten(0, 1)).unflatten(0, (batch, -1))
        by_slot = tokens.transpose(1, 2).flatten(0, 1)  # (B * N, T', E)
        return self.time(by_slot, num_queries).unflatten(0, (batch, -1)).transpose(1, 2)


class OCVPSeq(VanillaTransformer):
    """OCVP-Seq (Villar-Corrales et al. 2023): object and temporal attention, one after the other."""

    layer_class = OCVPSeqLayer

    def _attend(self, tokens: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            tokens = layer(tokens)
        return self.layers[-1](tokens, num_queries=1).squeeze(1)

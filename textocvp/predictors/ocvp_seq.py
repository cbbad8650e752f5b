"""OCVPSeq: object-centric prediction without text, attention over objects and over time in turn."""

from __future__ import annotations

from torch import Tensor, nn

from textocvp.config.predictors import VanillaTransformerConfig
from textocvp.predictors.vanilla_transformer import VanillaTransformer, predictor_layer


class OCVPSeqLayer(nn.Module):
    """Attention over the slots of each frame, then over the frames of each slot."""

    def __init__(self, config: VanillaTransformerConfig) -> None:
        super().__init__()
        self.objects = predictor_layer(config)
        self.time = predictor_layer(config)

    def forward(self, tokens: Tensor, num_queries: int | None = None) -> Tensor:
        """(B, T', N, E) -> (B, T', N, E), of the last `num_queries` frames only where given."""
        batch = tokens.shape[0]
        tokens = self.objects(tokens.flatten(0, 1)).unflatten(0, (batch, -1))
        by_slot = tokens.transpose(1, 2).flatten(0, 1)  # (B * N, T', E)
        return self.time(by_slot, num_queries).unflatten(0, (batch, -1)).transpose(1, 2)


class OCVPSeq(VanillaTransformer):
    """OCVP-Seq (Villar-Corrales et al. 2023): object and temporal attention, one after the other."""

    def _build_layer(self, config: VanillaTransformerConfig) -> nn.Module:
        return OCVPSeqLayer(config)

    def _attend(self, tokens: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            tokens = layer(tokens)
        return self.layers[-1](tokens, num_queries=1).squeeze(1)

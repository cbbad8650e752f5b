"""TextOCVP: text-guided object-centric prediction (Villar-Corrales, Plepi, Behnke 2025)."""

from pathlib import Path

import torch
from torch import Tensor, nn

from textocvp.config.predictors import TextOCVPConfig, TextOCVPT5Config
from textocvp.data.tokenizers import Text
from textocvp.modules.attention import LearnedTimeEmbedding
from textocvp.modules.text_encoders import T5TextEncoder, TextGuidedBlock, TextTransformer
from textocvp.predictors.rollout import SlotPredictor, TextEmbedding


class TextOCVP(SlotPredictor):
    """Transformer over the slots of all frames whose every layer reads the caption."""

    needs_text = True

    def __init__(
        self,
        config: TextOCVPConfig | TextOCVPT5Config,
        slot_dim: int,
        buffer_size: int,
        text_encoder: nn.Module,
    ) -> None:
        """text_encoder: (tokens (B, S), mask (B, S)) -> embeddings (B, S, token_dim)."""
        super().__init__()
        params, fusion = config.predictor_params, config.fusion_params
        self.residual, self.mask_padding = params.residual, fusion.mask_padding
        self.text_encoder = text_encoder
        self.input_projection = nn.Linear(slot_dim, params.token_dim)
        # one row more than the buffer holds, never read: checkpoints of the original have it
        self.time_embedding = LearnedTimeEmbedding(params.token_dim, buffer_size + 1)
        self.blocks = nn.ModuleList(TextGuidedBlock(params, fusion) for _ in range(params.num_layers))
        self.output_projection = nn.Linear(params.token_dim, slot_dim)
        with torch.no_grad():
            for parameter in self.output_projection.parameters():
                parameter.mul_(params.output_scale)

    def encode_text(self, text: Text) -> TextEmbedding:
        """Embed captions and project them to every layer's keys and values: once per rollout."""
        embeddings = self.text_encoder(text.tokens, text.mask)
        blocks = [block for block in self.blocks if isinstance(block, TextGuidedBlock)]
        keys_values = tuple(block.text_attention.keys_values(embeddings) for block in blocks)
        return TextEmbedding(embeddings, text.mask if self.mask_padding else None, keys_values)

    def forward(self, slots: Tensor, text: TextEmbedding | None) -> Tensor:
        """Slots (B, T', N, D) of past frames, oldest first, and text -> next slots (B, N, D)."""
        assert text is not None, "SlotForecaster encodes it"
        num_frames, num_slots = slots.shape[1:3]
        tokens = self.input_projection(slots) + self.time_embedding(num_frames)
        tokens = tokens.flatten(1, 2)  # (B, T' * N, E)
        for block, keys_values in zip(self.blocks, text.keys_values):
            # only the newest frame's tokens leave the last layer
            num_queries = num_slots if block is self.blocks[-1] else tokens.shape[1]
            tokens = block(tokens, num_queries, *keys_values, text.mask)
        change = self.output_projection(tokens)
        return slots[:, -1] + change if self.residual else change


class TextOCVPCustomTF(TextOCVP):
    """TextOCVP whose captions are read by a text transformer that is trained along with it."""

    def __init__(self, config: TextOCVPConfig, slot_dim: int, buffer_size: int) -> None:
        text_encoder = TextTransformer(config.text_encoder_params, config.predictor_params.token_dim)
        super().__init__(config, slot_dim, buffer_size, text_encoder)


class TextOCVPT5(TextOCVP):
    """TextOCVP whose captions are read by a frozen, pretrained T5."""

    reads_weights = True

    def __init__(
        self,
        config: TextOCVPT5Config,
        slot_dim: int,
        buffer_size: int,
        folder: Path | None = None,
        pretrained: bool = True,
    ) -> None:
        """folder, pretrained: see `build_forecaster`."""
        out_dim = config.predictor_params.token_dim
        text_encoder = T5TextEncoder(config.text_encoder_params, out_dim, folder, pretrained)
        super().__init__(config, slot_dim, buffer_size, text_encoder)

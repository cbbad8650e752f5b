"""SAVi: Slot Attention for Video (Kipf et al. 2022), unconditional."""

import torch
from torch import Tensor, nn

from textocvp.config import registry
from textocvp.config.models import SAViConfig
from textocvp.decomposition.base import Rendering, SlotDecomposition
from textocvp.modules import xavier_
from textocvp.modules.attention import SoftPositionEmbedding


class SAVi(SlotDecomposition):
    """Encode frames with convolutions, decode every slot to a picture and a mask."""

    config: SAViConfig
    losses = ("mse", "background_mse")

    def __init__(self, config: SAViConfig, img_size: tuple[int, int]) -> None:
        """img_size: height and width (pixels) of the frames."""
        super().__init__(config)
        encoder_class = registry.ENCODERS.get(config.encoder.encoder_name).load()
        self.encoder = encoder_class(config.encoder.encoder_params, config.in_channels)
        feature_dim = self.encoder.out_channels
        self.encoder_position = SoftPositionEmbedding(feature_dim, self.encoder.out_resolution(img_size))
        self.encoder_mlp = nn.Sequential(
            nn.LayerNorm(feature_dim),
            nn.Linear(feature_dim, config.mlp_encoder_dim),
            nn.ReLU(),
            nn.Linear(config.mlp_encoder_dim, config.mlp_encoder_dim),
        )
        self._build_recurrence(config.mlp_encoder_dim)
        decoder_class = registry.DECODERS.get(config.decoder.decoder_name).load()
        self.decoder = decoder_class(config.decoder.decoder_params, config.slot_dim, config.in_channels)
        xavier_(self)
        self.transition.scale_output(config.transition_module.output_scale)
        self.decoder.position.scale_projection(config.decoder.decoder_params.position_gain)

    def features(self, video: Tensor) -> Tensor:
        """Image features (B, T, L, F) of video (B, T, C, H, W) in [0, 1], all frames at once."""
        frames = (video.flatten(0, 1) - self.config.input_offset) * self.config.input_scale
        maps = self.encoder(frames.contiguous(memory_format=torch.channels_last))
        maps = maps + self.encoder_position()
        features = maps.flatten(2).transpose(1, 2)  # (B * T, L, F')
        return self.encoder_mlp(features).unflatten(0, video.shape[:2])

    def decode(self, slots: Tensor) -> Rendering:
        """Pictures and masks of slots (B, T, N, D), all frames at once."""
        decoded = self.decoder(slots.flatten(0, 2)).contiguous()  # planes are faster to mix than pixels
        decoded = decoded.unflatten(0, slots.shape[:3])  # (B, T, N, C + 1, H, W)
        slot_frames, mask_logits = decoded.split([self.config.in_channels, 1], dim=3)
        masks = torch.softmax(mask_logits, dim=2)
        return Rendering((slot_frames * masks).sum(dim=2), slot_frames, masks)

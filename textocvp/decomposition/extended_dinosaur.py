"""ExtendedDINOSAUR: slots of DINO features for video (Seitzer et al. 2023; Villar-Corrales et al. 2025)."""

from dataclasses import replace
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from textocvp.config import registry
from textocvp.config.models import ExtendedDINOSAURConfig
from textocvp.decomposition.base import Rendering, SlotDecomposition
from textocvp.files import ConfigError
from textocvp.modules import xavier_


class ExtendedDINOSAUR(SlotDecomposition):
    """Slots of a frozen vision transformer's features, decoded to these features and to the frames."""

    losses = ("mse", "pred_feature_mse")
    reads_weights = True

    def __init__(
        self,
        config: ExtendedDINOSAURConfig,
        img_size: tuple[int, int],
        folder: Path | None = None,
        pretrained: bool = True,
    ) -> None:
        """folder, pretrained: see `build_model`. ConfigError if the weights have another width."""
        super().__init__(config)
        section = config.encoder
        encoder_class = registry.VIT_ENCODERS.get(section.encoder_name).load()
        self.encoder = encoder_class(
            section.encoder_name, section.encoder_params, config.img_size, folder, pretrained
        )
        width = config.mlp_encoder_dim
        if self.encoder.out_channels != width:
            raise ConfigError(
                f"model.model_params.mlp_encoder_dim: expected {self.encoder.out_channels}, the width of the "
                f"encoder's features, got {width}"
            )
        self.feature_projection = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.slot_dim)
        )
        self._build_recurrence(config.slot_dim)
        decoder_class = registry.PATCH_DECODERS.get(config.decoder.decoder_name).load()
        self.decoder = decoder_class(config.decoder.decoder_params, config.img_size)
        for module in (self.feature_projection, self.transition, self.slot_attention, self.decoder):
            xavier_(module)
        self.transition.scale_output(config.transition_module.output_scale)

    def patch_features(self, video: Tensor) -> Tensor:
        """The encoder's features (B, T, L, F) of video (B, T, 3, H, W) in [0, 1]; they carry no gradient."""
        return self.encoder(video.flatten(0, 1)).unflatten(0, video.shape[:2])

    def features(self, video: Tensor) -> Tensor:
        """Image features (B, T, L, D) of video (B, T, 3, H, W) in [0, 1], all frames at once."""
        return self.feature_projection(self.patch_features(video))

    def decode(self, slots: Tensor) -> Rendering:
        """Pictures, masks and features of slots (B, T, N, D)."""
        features, patch_masks, frames = self.decoder(slots)
        grid_size = self.decoder.grid_size
        masks = patch_masks.unflatten(3, (grid_size, grid_size))  # (B, T, N, h, w)
        masks = F.interpolate(masks.flatten(0, 2)[:, None], frames.shape[-2:], mode="nearest")
        masks = masks.unflatten(0, slots.shape[:3])
        slot_frames = frames[:, :, None].expand(-1, -1, slots.shape[2], -1, -1, -1)
        return Rendering(frames, slot_frames, masks, features, patch_masks)

    def forward(self, video: Tensor, initial_slots: Tensor | None = None) -> tuple[Tensor, Rendering]:
        """Encode and decode: slots (B, T, N, D) and their Rendering, the encoder's features in it."""
        patch_features = self.patch_features(video)
        if initial_slots is None:
            initial_slots = self.initial_slots(video.shape[0])
        slots = self.track(self.feature_projection(patch_features), initial_slots)
        return slots, replace(self.decode(slots), target_features=patch_features)

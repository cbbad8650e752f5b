"""SAVi: Slot Attention for Video (Kipf et al. 2022), unconditional."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textocvp.config import registry
from textocvp.config.errors import ConfigError
from textocvp.config.models import SAViConfig
from textocvp.decomposition import Rendering
from textocvp.modules.positional import SoftPositionEmbedding
from textocvp.modules.slot_attention import SlotAttention
from textocvp.modules.weights import xavier_


class SAVi(nn.Module):
    """Encode frames, bind slots to their features frame by frame, decode every slot to a picture and a mask.

    Only `track` is sequential in time: image features and pictures are computed for all frames at once.
    """

    def __init__(self, config: SAViConfig, img_size: tuple[int, int]) -> None:
        """img_size: height and width (pixels). ConfigError where encoder or decoder do not fit it."""
        super().__init__()
        self.config = config
        self.num_slots, self.slot_dim = config.num_slots, config.slot_dim
        self.initializer = registry.INITIALIZERS.get(config.initializer).load()(
            config.num_slots, config.slot_dim
        )

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

        self.slot_attention = SlotAttention(config.mlp_encoder_dim, config.slot_dim, config.mlp_hidden)
        transition_class = registry.TRANSITIONS.get(config.transition_module.model_name).load()
        self.transition = transition_class(config.slot_dim, config.transition_module)

        decoder_class = registry.DECODERS.get(config.decoder.decoder_name).load()
        self.decoder = decoder_class(config.decoder.decoder_params, config.slot_dim, config.in_channels)
        if self.decoder.out_resolution() != tuple(img_size):
            raise ConfigError(
                f"model_params.decoder makes frames of {list(self.decoder.out_resolution())}, but "
                f"dataset.img_size is {list(img_size)}: change resolution or upsampling"
            )
        self._initialise()

    def _initialise(self) -> None:
        xavier_(self)
        self.transition.scale_output(self.config.transition_module.output_scale)
        self.decoder.position.scale_projection(self.config.decoder.decoder_params.position_gain)

    def initial_slots(
        self, batch: int, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Slots before the first frame: (batch, N, D).

        Args:
            generator: of the CPU or of the model's device; the noise is drawn on the generator's device.
            noise: (batch, N, D) standard normal, instead of a draw.
        """
        device = self.encoder_position.grid.device
        if noise is None:
            draw_on = device if generator is None else generator.device
            noise = torch.randn(batch, self.num_slots, self.slot_dim, generator=generator, device=draw_on)
        return self.initializer(noise.to(device))

    def features(self, video: Tensor) -> Tensor:
        """Image features (B, T, L, F) of video (B, T, C, H, W) in [0, 1], all frames at once."""
        frames = (video.flatten(0, 1) - self.config.input_offset) * self.config.input_scale
        maps = self.encoder(frames.contiguous(memory_format=torch.channels_last))
        maps = maps + self.encoder_position()
        features = maps.flatten(2).transpose(1, 2)  # (B * T, L, F')
        return self.encoder_mlp(features).unflatten(0, video.shape[:2])

    def track(self, features: Tensor, initial_slots: Tensor) -> Tensor:
        """Follow slots through the frames: slots (B, T, N, D), after slot attention of each frame.

        Args:
            features: (B, T, L, F) from `features`.
            initial_slots: (B, N, D) from `initial_slots`.
        """
        features_norm = self.slot_attention.norm_input(features)
        num_iterations, slots, history = self.config.num_iterations_first, initial_slots, []
        for frame_features in features_norm.unbind(1):
            if history:
                slots = self.transition(slots)
                num_iterations = self.config.num_iterations
            slots, _ = self.slot_attention(slots, frame_features, num_iterations)
            history.append(slots)
        return torch.stack(history, dim=1)

    def encode(self, video: Tensor, initial_slots: Tensor | None = None) -> Tensor:
        """Slots (B, T, N, D) of video (B, T, C, H, W); without initial_slots they are drawn."""
        if initial_slots is None:
            initial_slots = self.initial_slots(video.shape[0])
        return self.track(self.features(video), initial_slots)

    def decode(self, slots: Tensor) -> Rendering:
        """Pictures and masks of slots (B, T, N, D), all frames at once."""
        decoded = self.decoder(slots.flatten(0, 2)).contiguous()  # planes are faster to mix than pixels
        decoded = decoded.unflatten(0, slots.shape[:3])  # (B, T, N, C + 1, H, W)
        slot_frames, mask_logits = decoded.split([self.config.in_channels, 1], dim=3)
        masks = torch.softmax(mask_logits, dim=2)
        return Rendering((slot_frames * masks).sum(dim=2), slot_frames, masks)

    def forward(self, video: Tensor, initial_slots: Tensor | None = None) -> tuple[Tensor, Rendering]:
        """Encode and decode: slots (B, T, N, D) and their Rendering."""
        slots = self.encode(video, initial_slots)
        return slots, self.decode(slots)

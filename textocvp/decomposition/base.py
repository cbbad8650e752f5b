"""What all decomposition models share: slots bound to image features frame by frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textocvp.config import registry
from textocvp.config.models import ExtendedDINOSAURConfig, SAViConfig
from textocvp.decomposition import Rendering
from textocvp.modules.slot_attention import SlotAttention


class SlotDecomposition(nn.Module):
    """Slot attention over the features of each frame, a transition from one frame to the next.

    A model builds its encoder, calls `_build_recurrence`, builds its decoder, in the order in which they are
    used (it is also the order in which a seed's draws initialise them); it adds `features(video)` and
    `decode(slots)`, and says in `losses` which loss terms it offers. Only `track` is sequential in time.
    """

    losses: tuple[str, ...]
    reads_weights = False
    """Whether it has a frozen encoder: then its constructor also takes (folder, pretrained)."""

    def __init__(self, config: SAViConfig | ExtendedDINOSAURConfig) -> None:
        super().__init__()
        self.config = config
        self.num_slots, self.slot_dim = config.num_slots, config.slot_dim
        initializer_class = registry.INITIALIZERS.get(config.initializer).load()
        self.initializer = initializer_class(config.num_slots, config.slot_dim)

    def _build_recurrence(self, feature_dim: int) -> None:
        """feature_dim: width of what `features` returns."""
        config = self.config
        self.slot_attention = SlotAttention(feature_dim, config.slot_dim, config.mlp_hidden)
        transition_class = registry.TRANSITIONS.get(config.transition_module.model_name).load()
        self.transition = transition_class(config.slot_dim, config.transition_module)

    def features(self, video: Tensor) -> Tensor:
        """Image features (B, T, L, F) of video (B, T, C, H, W) in [0, 1], all frames at once."""
        raise NotImplementedError

    def decode(self, slots: Tensor) -> Rendering:
        """Pictures and masks of slots (B, T, N, D), all frames at once."""
        raise NotImplementedError

    def initial_slots(
        self, batch: int, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """Slots before the first frame: (batch, N, D).

        Args:
            generator: of the CPU or of the model's device; the noise is drawn on the generator's device.
            noise: (batch, N, D) standard normal, instead of a draw.
        """
        device = self.slot_attention.norm_slot.weight.device
        if noise is None:
            draw_on = device if generator is None else generator.device
            noise = torch.randn(batch, self.num_slots, self.slot_dim, generator=generator, device=draw_on)
        return self.initializer(noise.to(device))

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

    def forward(self, video: Tensor, initial_slots: Tensor | None = None) -> tuple[Tensor, Rendering]:
        """Encode and decode: slots (B, T, N, D) and their Rendering."""
        slots = self.encode(video, initial_slots)
        return slots, self.decode(slots)

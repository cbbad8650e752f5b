"""What all decomposition models share: slots bound to image features frame by frame."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from textocvp.config import registry
from textocvp.config.models import ExtendedDINOSAURConfig, SAViConfig
from textocvp.modules.slot_attention import SlotAttention


@dataclass(frozen=True)
class Rendering:
    """Slots decoded to pictures. Values are not clamped."""

    frames: Tensor
    """(B, T, 3, H, W): slot_frames weighted by masks."""
    slot_frames: Tensor
    """(B, T, N, 3, H, W): each slot's picture, not multiplied by its mask; where slots have no pictures of
    their own, `frames` for each."""
    masks: Tensor
    """(B, T, N, 1, H, W): softmax over the slots."""
    features: Tensor | None = None
    """(B, T, L, F): reconstructed patch features, of models that reconstruct them."""
    patch_masks: Tensor | None = None
    """(B, T, N, L): the masks of these features; `masks` shows them at the frames' size."""
    target_features: Tensor | None = None
    """(B, T, L, F): the encoder's features; only a whole forward knows them."""


class SlotDecomposition(nn.Module):
    """Slot attention over the features of each frame, a transition from one frame to the next.

    A model is constructed from (config, img_size), with `reads_weights` also from (folder, pretrained). It
    builds its encoder, calls `_build_recurrence`, builds its decoder: the order of use, in which a seed's
    draws initialise them. It defines `features`, `decode` and `losses`. Only `track` is sequential in time.
    """

    losses: tuple[str, ...]
    """Loss terms that its Rendering allows."""
    reads_weights = False
    """Whether it has a frozen encoder."""

    def __init__(self, config: SAViConfig | ExtendedDINOSAURConfig) -> None:
        super().__init__()
        self.config = config
        self.num_slots, self.slot_dim = config.num_slots, config.slot_dim
        initializer_class = registry.INITIALIZERS.get(config.initializer).load()
        self.initializer: nn.Module = initializer_class(config.num_slots, config.slot_dim)

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

    def initial_slots(self, batch: int, noise: Tensor | None = None) -> Tensor:
        """Slots before the first frame: (batch, N, D).

        Args:
            noise: (batch, N, D) standard normal, on any device; None: drawn from torch's global generator.
        """
        device = self.slot_attention.norm_slot.weight.device
        if noise is None:
            noise = torch.randn(batch, self.num_slots, self.slot_dim, device=device)
        return self.initializer(noise.to(device))

    def track(self, features: Tensor, initial_slots: Tensor) -> Tensor:
        """Follow slots through the frames: slots (B, T, N, D), after slot attention of each frame.

        Args:
            features: (B, T, L, F) from `features`.
            initial_slots: (B, N, D) from `initial_slots`.
        """
        features_norm = self.slot_attention.norm_input(features)
        num_iterations, slots = self.config.num_iterations_first, initial_slots
        history: list[Tensor] = []
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

"""The parts of the recurrence over frames: slot attention (the corrector), initializers, the transition."""

import torch
from torch import Tensor, nn

from textocvp.config.models import TransitionConfig
from textocvp.modules.attention import TransformerBlock


class KeyProjection(nn.Module):
    """The linear projection of the keys, applied to the queries instead.

    q . (W x + b) = (q W) . x + q . b: there are few slots and many locations, so that projecting the slots is
    cheaper than computing keys.
    """

    def __init__(self, feature_dim: int, slot_dim: int) -> None:
        super().__init__()
        linear = nn.Linear(feature_dim, slot_dim)
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, N, D) -> queries in the features' space (B, N, F), and what the bias adds (B, N, 1)."""
        return queries @ self.weight, (queries @ self.bias)[..., None]


class SlotAttention(nn.Module):
    """Refine slots by letting them compete for image features (Locatello et al. 2020, Alg. 1)."""

    norm_eps = 1e-3
    attention_eps = 1e-8

    def __init__(self, feature_dim: int, slot_dim: int, mlp_hidden: int) -> None:
        super().__init__()
        self.scale = feature_dim**-0.5  # the original scales by the features' width, not by the slots'
        self.norm_input = nn.LayerNorm(feature_dim, eps=self.norm_eps)
        self.norm_slot = nn.LayerNorm(slot_dim, eps=self.norm_eps)
        self.norm_mlp = nn.LayerNorm(slot_dim, eps=self.norm_eps)
        self.to_q = nn.Linear(slot_dim, slot_dim)
        self.to_k = KeyProjection(feature_dim, slot_dim)
        self.to_v = nn.Linear(feature_dim, slot_dim)
        self.gru = nn.GRUCell(slot_dim, slot_dim)
        self.mlp = nn.Sequential(nn.Linear(slot_dim, mlp_hidden), nn.ReLU(), nn.Linear(mlp_hidden, slot_dim))

    def forward(self, slots: Tensor, features_norm: Tensor, num_iterations: int) -> tuple[Tensor, Tensor]:
        """Run the iterations of one frame.

        Args:
            slots: (B, N, D) from the initializer or the transition.
            features_norm: (B, L, F) flattened encoder output after `norm_input`.
        Returns:
            slots (B, N, D) and the last iteration's attention (B, N, L), softmax over N.
        """
        features_transposed = features_norm.transpose(1, 2)
        for _ in range(num_iterations):
            queries, bias = self.to_k(self.to_q(self.norm_slot(slots)) * self.scale)
            attention = torch.softmax(queries @ features_transposed + bias, dim=1)  # (B, N, L)
            weights = attention + self.attention_eps
            weights = weights / weights.sum(dim=-1, keepdim=True)
            updates = self.to_v(weights @ features_norm)  # (B, N, D): a mean of values, as weights sum to one
            slots = self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(updates)
            slots = slots + self.mlp(self.norm_mlp(slots))
        return slots, attention


class Learned(nn.Module):
    """One learned vector per slot; draws nothing."""

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__()
        self.slots = nn.Parameter(torch.randn(1, num_slots, slot_dim))

    def forward(self, noise: Tensor) -> Tensor:
        return self.slots.expand(noise.shape[0], -1, -1)


class LearnedRandom(nn.Module):
    """All slots drawn from one Gaussian with learned mean and standard deviation (Locatello et al. 2020)."""

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.randn(1, 1, slot_dim))
        self.std = nn.Parameter(torch.randn(1, 1, slot_dim))

    def forward(self, noise: Tensor) -> Tensor:
        return self.mean + self.std * noise


class BackgroundRandom(LearnedRandom):
    """Slot 0 has a learned vector of its own, so that it can become the background; the others are drawn."""

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__(num_slots, slot_dim)
        self.background = nn.Parameter(torch.randn(1, 1, slot_dim))

    def forward(self, noise: Tensor) -> Tensor:
        drawn = super().forward(noise[:, 1:])
        return torch.cat([self.background.expand(noise.shape[0], -1, -1), drawn], dim=1)


class TransformerTransition(TransformerBlock):
    """One transformer block over the slots of a frame."""

    def __init__(self, slot_dim: int, config: TransitionConfig) -> None:
        super().__init__(slot_dim, config.num_heads, config.mlp_size, config.pre_norm)

    @torch.no_grad()
    def scale_output(self, factor: float) -> None:
        """Scale the two output layers' weights; a small factor starts a pre-norm block near the identity."""
        self.attention.out.weight.mul_(factor)
        self.mlp[-1].get_parameter("weight").mul_(factor)

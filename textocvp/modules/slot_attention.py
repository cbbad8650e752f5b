"""Slot attention, SAVi's corrector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KeyProjection(nn.Linear):
    """The keys' projection, applied to the queries instead.

    q . (W x + b) = (q W) . x + q . b: there are few slots and many locations, so that projecting the slots is
    cheaper than computing keys.
    """

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

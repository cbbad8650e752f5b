"""The curve of the training loss, part of the resume state and of every checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from textocvp.training.deepspeed_engine import Engine


class LossHistory:
    """Means of the loss and its terms over the steps between two points of the curve."""

    def __init__(
        self,
        points: list[list[float]] | None = None,
        names: list[str] | None = None,
        totals: list[float] | None = None,
        count: int = 0,
    ) -> None:
        """All empty at the start of a training; from `state` when it continues."""
        self.points = points or []
        """[[step, mean loss over all processes since the point before], ...]"""
        self._names = names or []
        # stays on the losses' device: adding waits for nothing
        self._totals = torch.tensor(totals or [0.0], dtype=torch.float64)
        self._count = count

    def add(self, loss: Tensor, scalars: dict[str, Tensor]) -> None:
        """Count one step's loss () and terms ()."""
        values = torch.stack([loss, *scalars.values()]).double()
        self._names = ["loss", *scalars]
        self._totals = self._totals.to(values.device) + values
        self._count += 1

    def close_point(self, step: int, engine: Engine) -> dict[str, float]:
        """Add the point of this step to the curve; returns all means since the point before."""
        sums = engine.sum(self._totals.tolist())
        means = {name: value / (self._count * engine.world.size) for name, value in zip(self._names, sums)}
        self.points.append([step, means["loss"]])
        self._totals, self._count = torch.zeros(1, dtype=torch.float64), 0
        return means

    def state(self, engine: Engine) -> dict[str, Any]:
        """Plain values from which `LossHistory(**state)` continues; all processes must call it."""
        totals = [value / engine.world.size for value in engine.sum(self._totals.tolist())]
        return {"points": self.points, "names": self._names, "totals": totals, "count": self._count}

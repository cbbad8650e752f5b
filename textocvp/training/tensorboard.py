"""Curves and pictures in TensorBoard. One writer per folder: the main process's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textocvp.disk_space import full_disk_reason, writing

GAP = 2
"""White pixels between two pictures of a sheet."""


class Curves:
    """Writes into `folder` on the main process, nothing elsewhere.

    Args:
        done: steps done before; what an earlier process wrote about later steps is hidden (`purge_step`).
    """

    def __init__(self, folder: Path, done: int = 0, is_main: bool = True) -> None:
        self._writer: Any = None
        self._folder = folder
        if is_main:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            threading.excepthook = _quiet_where_the_disk_is_full
            with writing(folder):
                self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """One point per curve."""
        if self._writer is not None:
            with writing(self._folder):
                for name, value in values.items():
                    self._writer.add_scalar(name, value, step)

    def pictures(self, sheets: dict[str, Tensor], step: int) -> None:
        """One picture (3, H, W) in [0, 1] per name."""
        if self._writer is not None:
            with writing(self._folder):
                for name, sheet in sheets.items():
                    self._writer.add_image(name, sheet.float().clamp(0, 1).cpu(), step)

    def flush(self) -> None:
        """Write out what is buffered."""
        if self._writer is not None:
            with writing(self._folder):
                self._writer.flush()

    def close(self) -> None:
        """Write out and close."""
        if self._writer is not None:
            with writing(self._folder):
                self._writer.close()


def _quiet_where_the_disk_is_full(failure: threading.ExceptHookArgs) -> None:
    """The writer's thread hands its error to whoever writes next, who tells of it in one line."""
    if failure.exc_value is None or full_disk_reason(failure.exc_value) is None:
        threading.__excepthook__(failure)


def sheet(rows: list[Tensor]) -> Tensor:
    """Rows of frames (T, 3, H, W) under each other, time going right: (3, rows * (H + 2), T * (W + 2))."""
    lines = []
    for frames in rows:
        framed = torch.nn.functional.pad(frames.float().clamp(0, 1), (0, GAP, 0, GAP), value=1.0)
        lines.append(torch.cat(list(framed), dim=2))
    return torch.cat(lines, dim=1)


def segmentation(masks: Tensor) -> Tensor:
    """Each pixel in the colour of its strongest slot: masks (T, N, 1, H, W) -> (T, 3, H, W)."""
    hues = torch.linspace(0, 1, masks.shape[1] + 1, device=masks.device)[:-1]
    channels = hues[:, None] + torch.tensor([0.0, 1 / 3, 2 / 3], device=masks.device)
    palette = 0.5 + 0.5 * torch.cos(2 * torch.pi * channels)  # (N, 3)
    return palette[masks.argmax(dim=1)[:, 0]].permute(0, 3, 1, 2)

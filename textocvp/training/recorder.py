"""Curves and pictures in TensorBoard. One writer per folder: the main process's."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textocvp.config.experiment import FINAL, Experiment
from textocvp.config.job import refuse_if_superseded
from textocvp.config.schema import to_dict
from textocvp.files import full_disk_reason, writing
from textocvp.training.checkpoint import LAST_SAVED, epoch_name, save_pth, trained_state
from textocvp.training.deepspeed_engine import Engine
from textocvp.training.resume_state import LossHistory, ResumeFolder

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


class Recorder:
    """Writes into an experiment's folder. All processes call its methods together; the main one writes."""

    def __init__(
        self, folder: Path, experiment: Experiment, engine: Engine, belongs_to: dict[str, Any], done: int = 0
    ) -> None:
        """
        Args:
            folder: the experiment's folder.
            belongs_to: what a resume state must agree in with the run that loads it.
            done: steps done before this run.
        """
        self._folder, self._experiment, self._engine = folder, experiment, engine
        self._belongs_to = belongs_to
        self._frozen_sha256 = belongs_to.get("frozen_sha256")
        self._states = ResumeFolder(folder / "resume")
        self._curves = Curves(folder / "tboard_logs", done, engine.world.is_main)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """One point per curve."""
        self._curves.scalars(values, step)

    def pictures(self, sheets: dict[str, Tensor], step: int) -> None:
        """One picture (3, H, W) per name."""
        self._curves.pictures(sheets, step)

    def training_point(self, step: int, history: LossHistory, more: dict[str, float]) -> None:
        """The means of loss and terms since the last point, and more curves."""
        means = history.close_point(step, self._engine)
        self.scalars({f"train/{name}": value for name, value in {**means, **more}.items()}, step)

    def epoch(self, before: int, epoch: int, step: int, history: LossHistory) -> None:
        """checkpoint_epoch_N.pth, where a step led from epoch `before` to one that is to be kept."""
        every = self._experiment.training.save_frequency
        if epoch // every > before // every:
            self._save_pth(epoch_name(epoch), epoch, step, history)

    def save_state(self, epoch: int, step: int, history: LossHistory) -> None:
        """The state to resume from, and checkpoint_last_saved.pth; UserError where a later attempt runs."""
        refuse_if_superseded()
        self._curves.flush()
        content = {
            "belongs_to": self._belongs_to,
            "training": to_dict(self._experiment.training),
            "history": history.state(self._engine),
        }
        self._states.save(self._engine, step, content)
        self._save_pth(LAST_SAVED, epoch, step, history)

    def finish(self, epoch: int, step: int, history: LossHistory) -> None:
        """The last state, then checkpoint_epoch_final.pth: where it lies, the training is finished."""
        self.save_state(epoch, step, history)
        self._save_pth(FINAL, epoch, step, history)
        self._curves.close()

    def _save_pth(self, name: str, epoch: int, step: int, history: LossHistory) -> None:
        with self._engine.whole_parameters():
            if not self._engine.world.is_main:
                return
            content = {
                "epoch": epoch,
                "step": step,
                "model_state_dict": trained_state(self._engine.model),
                "frozen_sha256": self._frozen_sha256,
                "loss_history": history.points,
            }
            optimizer = self._engine.optimizer_state_dict()
            if optimizer is not None:
                content["optimizer_state_dict"] = optimizer
            save_pth(self._folder / "models" / name, self._experiment, content)

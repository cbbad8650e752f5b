"""What a training leaves in its folder: curves and pictures in TensorBoard, checkpoints, states."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textocvp.config.experiment import FINAL, Experiment
from textocvp.config.job import refuse_if_superseded
from textocvp.config.schema import to_dict
from textocvp.files import full_disk_reason, writing
from textocvp.training.checkpoint import LAST_SAVED, save_pth, trained_state
from textocvp.training.deepspeed_engine import Engine
from textocvp.training.resume_state import ResumeFolder
from textocvp.training.task import Task

GAP = 2
"""White pixels between two pictures of a sheet."""
Points = Sequence[list[float]]
"""[[step, mean loss over all processes since the previous point], ...]"""


class Curves:
    """TensorBoard's files in `folder`, written by the main process and by no other.

    Args:
        done: steps done before; what an earlier process wrote about later steps is hidden (`purge_step`).
    """

    def __init__(self, folder: Path, done: int = 0, is_main: bool = True) -> None:
        self._writer: Any = None
        self._folder = folder
        if is_main:
            from torch.utils.tensorboard import SummaryWriter  # slow to import

            threading.excepthook = _quiet_if_the_disk_is_full
            with writing(folder):
                self._writer = SummaryWriter(str(folder), purge_step=done + 1)

    def scalars(self, values: dict[str, float], step: int) -> None:
        """One point per curve."""
        for name, value in values.items():
            self._write("add_scalar", name, value, step)

    def pictures(self, sheets: dict[str, Tensor], step: int) -> None:
        """One picture (3, H, W) in [0, 1] per name."""
        for name, sheet in sheets.items():
            self._write("add_image", name, sheet.float().clamp(0, 1).cpu(), step)

    def flush(self) -> None:
        """Write out what is buffered."""
        self._write("flush")

    def close(self) -> None:
        """Write out and close."""
        self._write("close")

    def _write(self, method: str, *arguments: Any) -> None:
        if self._writer is not None:
            with writing(self._folder):
                getattr(self._writer, method)(*arguments)


def _quiet_if_the_disk_is_full(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread passes its error on to the next write, which reports it in one line."""
    if failure.exc_value is None or full_disk_reason(failure.exc_value) is None:
        threading.__excepthook__(failure)


def sheet(rows: list[Tensor]) -> Tensor:
    """Rows of frames (T, 3, H, W) under each other, time going right: (3, rows * (H + 2), T * (W + 2))."""
    padding = (0, GAP, 0, GAP)
    padded = [torch.nn.functional.pad(frames.float().clamp(0, 1), padding, value=1.0) for frames in rows]
    return torch.cat([torch.cat(list(frames), dim=2) for frames in padded], dim=1)


def segmentation(masks: Tensor) -> Tensor:
    """Each pixel in the colour of its strongest slot: masks (T, N, 1, H, W) -> (T, 3, H, W)."""
    hues = torch.linspace(0, 1, masks.shape[1] + 1, device=masks.device)[:-1]
    channels = hues[:, None] + torch.tensor([0.0, 1 / 3, 2 / 3], device=masks.device)
    palette = 0.5 + 0.5 * torch.cos(2 * torch.pi * channels)  # (N, 3)
    return palette[masks.argmax(dim=1)[:, 0]].permute(0, 3, 1, 2)


class LossHistory:
    """Means of the loss and its terms over the steps between two points of the curve."""

    def __init__(
        self, points: Points = (), names: Sequence[str] = (), totals: Sequence[float] = (0.0,), count: int = 0
    ) -> None:
        """All empty at the start of a training; from `state` when it continues."""
        self.points, self._names, self._count = list(points), list(names), count
        # stays on the losses' device: adding waits for nothing
        self._totals = torch.tensor(totals, dtype=torch.float64)

    def add(self, loss: Tensor, scalars: dict[str, Tensor]) -> None:
        """Count one step's loss () and terms ()."""
        values = torch.stack([loss, *scalars.values()]).double()
        self._names = ["loss", *scalars]
        self._totals = self._totals.to(values.device) + values
        self._count += 1

    def close_point(self, step: int, engine: Engine) -> dict[str, float]:
        """Add the point of this step to the curve; returns all means since the previous point."""
        sums = engine.sum(self._totals.tolist())
        means = {name: value / (self._count * engine.world.size) for name, value in zip(self._names, sums)}
        self.points.append([step, means["loss"]])
        self._totals, self._count = torch.zeros(1, dtype=torch.float64), 0
        return means

    def state(self, engine: Engine) -> dict[str, Any]:
        """Plain values from which `LossHistory(**state)` continues; all processes must call it."""
        totals = [value / engine.world.size for value in engine.sum(self._totals.tolist())]
        return {"points": self.points, "names": self._names, "totals": totals, "count": self._count}


class Recorder:
    """Writes into an experiment's folder. All processes call its methods together; the main one writes."""

    def __init__(
        self,
        folder: Path,
        experiment: Experiment,
        task: Task,
        engine: Engine,
        belongs_to: dict[str, Any],
        done: int,
        history: LossHistory,
    ) -> None:
        """
        Args:
            folder: the experiment's folder.
            belongs_to: what a resume state must agree in with the run that loads it.
            done, history: steps and losses before this run.
        """
        self._folder, self._experiment, self._task, self._engine = folder, experiment, task, engine
        self._belongs_to, self._states = belongs_to, ResumeFolder(folder / "resume")
        self.curves = Curves(folder / "tboard_logs", done, engine.world.is_main)
        self.history = history

    def training_point(self, step: int, more: dict[str, float]) -> None:
        """The means of loss and terms since the last point, and more curves."""
        means = self.history.close_point(step, self._engine)
        self.curves.scalars({f"train/{name}": value for name, value in {**means, **more}.items()}, step)

    def save_epoch(self, step: int) -> None:
        """checkpoint_epoch_N.pth, if this step completed an epoch that is to be kept."""
        every, epoch = self._experiment.training.save_frequency, self._task.epoch_at(step)
        if epoch // every > self._task.epoch_at(step - 1) // every:
            self._save_pth(f"checkpoint_epoch_{epoch}.pth", step)

    def save_state(self, step: int) -> None:
        """The state to resume from, and checkpoint_last_saved.pth; UserError if a later attempt runs."""
        refuse_if_superseded()
        self.curves.flush()
        content = {
            "belongs_to": self._belongs_to,
            "training": to_dict(self._experiment.training),
            "history": self.history.state(self._engine),
        }
        self._states.save(self._engine, step, content)
        self._save_pth(LAST_SAVED, step)

    def finish(self, step: int) -> None:
        """The last state, then checkpoint_epoch_final.pth, whose existence says that training is finished."""
        self.save_state(step)
        self._save_pth(FINAL, step)
        self.curves.close()

    def _save_pth(self, name: str, step: int) -> None:
        with self._engine.whole_parameters():
            if not self._engine.world.is_main:
                return
            content = {
                "epoch": self._task.epoch_at(step),
                "step": step,
                "model_state_dict": trained_state(self._engine.model),
                "frozen_sha256": self._belongs_to.get("frozen_sha256"),
                "loss_history": self.history.points,
            }
            optimizer = self._engine.optimizer_state_dict()
            if optimizer is not None:
                content["optimizer_state_dict"] = optimizer
            save_pth(self._folder / "models" / name, self._experiment, content)

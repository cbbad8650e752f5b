"""What a training run leaves in its folder: curves, checkpoints, the state to resume from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from textocvp.artifacts import FINAL, refuse_if_superseded
from textocvp.config.experiment import Experiment
from textocvp.config.schema import to_dict
from textocvp.training.checkpoint import LAST_SAVED, epoch_name, save_pth, trained_state
from textocvp.training.deepspeed_engine import Engine
from textocvp.training.history import LossHistory
from textocvp.training.resume_state import ResumeFolder
from textocvp.training.tensorboard import Curves


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

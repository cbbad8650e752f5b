"""The state from which a stopped training continues as if it had never stopped: EXP/resume/.

    resume/step_00001200/   state.json     step, loss history, and what the state belongs to
                            shards/        parameters and optimiser, each process's part
                            checksums.json SHA-256 of every other file
    resume/latest           the name of the newest folder

A folder is written under a temporary name, checksummed, renamed, then pointed to; the last two are kept.
Learning rate, data order and every random draw are functions of the step, so the step restores them.
DeepSpeed unpickles its shards: only this experiment's own folder is read, and only where its checksums hold.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textocvp.config.errors import UserError
from textocvp.files import atomic_path, read_json, sha256_file, write_json, writing
from textocvp.training.deepspeed_engine import Engine

KEEP = 2
CHECKSUMS = "checksums.json"
STATE = "state.json"
SHARDS = "shards"


class ResumeFolder:
    """The states of one training run."""

    def __init__(self, folder: Path) -> None:
        """folder: EXP/resume, need not exist."""
        self.folder = Path(folder)

    def newest(self) -> Path | None:
        """The newest state, intact or not; None where none was saved."""
        return next(iter(self._states()), None)

    def newest_intact(self) -> Path | None:
        """The newest state whose checksums hold, or None where there is no state at all.

        A damaged one is skipped with a warning on standard error; UserError where all are damaged.
        """
        states = self._states()
        for state in states:
            damage = _damage(state)
            if damage is None:
                return state
            print(f"warning: {state} is damaged ({damage}), trying the one before", file=sys.stderr)
        if states:
            raise UserError(
                f"{self.folder}: every saved state is damaged; move the folder aside and train "
                f"anew, or start from models/checkpoint_last_saved.pth with --checkpoint"
            )
        return None

    def save(self, engine: Engine, step: int, content: dict[str, Any]) -> None:
        """Save the state after `step` steps; all processes must call it together.

        DiskFullError where there is too little space for it: the states before stay, nothing is left of it.
        """
        final = self.folder / f"step_{step:08d}"
        temporary = self.folder / f".{final.name}.tmp"
        try:
            with writing(final):
                self._save(engine, step, content, final, temporary)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _save(self, engine: Engine, step: int, content: dict[str, Any], final: Path, temporary: Path) -> None:
        if engine.world.is_main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        engine.barrier()
        engine.save_shards(temporary / SHARDS)
        engine.barrier()
        if engine.world.is_main:
            write_json(temporary / STATE, {"step": step, **content})
            _seal(temporary)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            _point_to(final)
            self._prune(final.name)
        engine.barrier()

    def load(self, engine: Engine, state: Path) -> dict[str, Any]:
        """Load a state into the engine's model and optimiser; returns its content, `step` included."""
        engine.load_shards(state / SHARDS)
        return read_json(state / STATE)

    def _states(self) -> list[Path]:
        """Finished states, newest first."""
        return sorted(self.folder.glob("step_*"), key=lambda path: path.name, reverse=True)

    def _prune(self, newest: str) -> None:
        """Keep the KEEP states up to `newest`; later ones were damaged, hidden ones never finished."""
        states = self._states()
        kept = [state for state in states if state.name <= newest][:KEEP]
        for state in (*states, *self.folder.glob(".step_*.tmp")):
            if state not in kept:
                shutil.rmtree(state, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Flush every file to disk and note its checksum."""
    checksums = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        checksums[path.relative_to(folder).as_posix()] = sha256_file(path)
    write_json(folder / CHECKSUMS, checksums)


def _point_to(state: Path) -> None:
    with atomic_path(state.parent / "latest") as pointer:
        pointer.write_text(state.name + "\n")


def _damage(state: Path) -> str | None:
    """What is wrong with a state, or None."""
    try:
        checksums = read_json(state / CHECKSUMS)
        wrong = [name for name, checksum in checksums.items() if sha256_file(state / name) != checksum]
    except (UserError, OSError) as error:
        return str(error)
    return f"{wrong[0]}: content differs from its checksum" if wrong else None


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

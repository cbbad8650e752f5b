"""From where a training run starts: the beginning, a checkpoint, a saved state, or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from textocvp.artifacts import FINAL, read_json
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment
from textocvp.config.overrides import difference
from textocvp.config.schema import to_dict
from textocvp.training.checkpoint import find_checkpoint, load_pth
from textocvp.training.resume_state import STATE, ResumeFolder

ALWAYS_RESUME_VARIABLE = "TEXTOCVP_ALWAYS_RESUME"
"""Set to 1 by jobs: continue where a state exists, else start; a requeued job repeats its first command."""
LENGTH_FIELDS = ("num_steps", "num_epochs", "batch_size", "curriculum")


@dataclass(frozen=True)
class Start:
    """How a training run begins; with neither, from scratch."""

    checkpoint: Optional[Path] = None
    """A .pth whose parameters initialise the model."""
    state: Optional[Path] = None
    """A folder in EXP/resume to continue from."""


def choose_start(
    folder: Path,
    experiment: Experiment,
    belongs_to: dict[str, Any],
    checkpoint: Optional[str],
    resume_training: bool,
) -> Optional[Start]:
    """Where training in `folder` starts; None where it is finished.

    Args:
        belongs_to: see `run_training`; a finished training must agree in it too.

    Raises:
        UserError: a state exists and neither option says what to do with it, there is nothing to resume, no
            state is intact, or what is finished there is another training.
    """
    if checkpoint and resume_training:
        raise UserError("--checkpoint starts anew from a file, --resume_training continues: give one of them")
    states = ResumeFolder(folder / "resume")
    if not checkpoint and _is_finished(folder, experiment):
        _check_finished(states, belongs_to)
        return None
    by_itself = os.environ.get(ALWAYS_RESUME_VARIABLE) == "1"
    if resume_training or by_itself:
        state = states.newest_intact()
        if state is not None:
            return Start(state=state)
        if not by_itself:
            raise UserError(f"{states.folder}: nothing to resume from; leave --resume_training out")
    else:
        _refuse_to_overwrite(folder, states)
    return Start(checkpoint=find_checkpoint(folder, checkpoint) if checkpoint else None)


def check_belongs(state: Path, belongs_to: dict[str, Any], training: dict[str, Any]) -> None:
    """UserError where a state belongs to another model or world size; names changed training settings."""
    found = read_json(state / STATE)
    changes = difference(found["belongs_to"], belongs_to, known_only=True)
    if changes:
        raise UserError(
            f"{state}: cannot be continued, another training saved it ({'; '.join(changes)}); "
            f"start a new experiment, with --checkpoint to begin from these parameters"
        )
    changes = difference(found["training"], training)
    if changes:
        print(f"note: continuing with changed settings ({'; '.join(changes)})", flush=True)


def _is_finished(folder: Path, experiment: Experiment) -> bool:
    """Whether the final checkpoint is there and as long a training is asked for as it had."""
    path = folder / "models" / FINAL
    if not path.is_file():
        return False
    found = load_pth(path).get("config", {}).get("training", {})
    asked = to_dict(experiment.training)
    return all(found.get(name) == asked[name] for name in LENGTH_FIELDS)


def _check_finished(states: ResumeFolder, belongs_to: dict[str, Any]) -> None:
    """UserError where the last state of a finished training belongs to another model or checkpoint."""
    last = states.newest()
    if last is None or not (last / STATE).is_file():
        return
    found = read_json(last / STATE)["belongs_to"]
    changes = [
        line
        for name, value in belongs_to.items()
        if name in found
        for line in difference(found[name], value, name, known_only=True)
    ]
    if changes:
        raise UserError(
            f"{last.parent.parent}: another training is finished there ({'; '.join(changes)}); "
            f"choose another folder, or move it aside"
        )


def _refuse_to_overwrite(folder: Path, states: ResumeFolder) -> None:
    existing = states.folder if states.newest() else folder / "models" / FINAL
    if existing.exists():
        raise UserError(
            f"{existing}: this experiment was trained before; continue with --resume_training, "
            f"or choose another folder"
        )

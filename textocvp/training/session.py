"""From where a training run starts: the beginning, a checkpoint, a saved state, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from textocvp import stopping
from textocvp.compat.import_experiment import place_encoder
from textocvp.config.errors import UserError
from textocvp.config.experiment import FINAL, Experiment
from textocvp.config.schema import difference, to_dict
from textocvp.files import read_json
from textocvp.training.checkpoint import (
    find_checkpoint,
    frozen_sha256,
    load_pth,
    load_weights,
    native_content,
    without_frozen,
)
from textocvp.training.deepspeed_engine import Engine, World, join_world
from textocvp.training.loop import no_step_expected, train
from textocvp.training.recorder import Recorder
from textocvp.training.resume_state import STATE, LossHistory, ResumeFolder
from textocvp.training.task import Task

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
            f"{state}: cannot be continued, another training saved it ({'; '.join(map(str, changes))}); "
            f"start a new experiment, with --checkpoint to begin from these parameters"
        )
    changes = difference(found["training"], training)
    if changes:
        print(f"note: continuing with changed settings ({'; '.join(map(str, changes))})", flush=True)


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
        change
        for name, value in belongs_to.items()
        if name in found
        for change in difference(found[name], value, name, known_only=True)
    ]
    if changes:
        raise UserError(
            f"{last.parent.parent}: another training is finished there ({'; '.join(map(str, changes))}); "
            f"choose another folder, or move it aside"
        )


def _refuse_to_overwrite(folder: Path, states: ResumeFolder) -> None:
    existing = states.folder if states.newest() else folder / "models" / FINAL
    if existing.exists():
        raise UserError(
            f"{existing}: this experiment was trained before; continue with --resume_training, "
            f"or choose another folder"
        )


def run_training(
    folder: Path,
    experiment: Experiment,
    make_task: Callable[[World], Task],
    belongs_to: dict[str, Any],
    checkpoint: Optional[str],
    resume_training: bool,
) -> int:
    """Train what `make_task` makes in `folder`, from the start or from its newest state.

    Args:
        belongs_to: plain values in which a state must agree with this run to be continued by it.

    Returns:
        the exit code.
    """
    start = choose_start(folder, experiment, belongs_to, checkpoint, resume_training)
    if start is None:
        print(f"{folder}: training is finished, see {folder / 'models' / FINAL}", flush=True)
        return 0
    if start.checkpoint is not None:
        place_encoder(start.checkpoint, experiment, folder)
    world = join_world()
    task = make_task(world)
    try:
        wish = _train(folder, experiment, task, world, belongs_to, start)
    finally:
        no_step_expected()
    if not wish:
        return 0
    if world.is_main:
        saved = ResumeFolder(folder / "resume").newest()
        print(
            f"{task.name}: stopped by {stopping.signal_name(wish)}, "
            + (
                f"state saved in {folder / 'resume'}; the same command with --resume_training continues"
                if saved
                else "before the first step; run the same command again"
            ),
            flush=True,
        )
    return stopping.finish(wish, world.is_main)


def _train(
    folder: Path, experiment: Experiment, task: Task, world: World, belongs_to: dict[str, Any], start: Start
) -> int:
    """Returns 0, or the wish on which the training stopped."""
    config = experiment.training
    belongs_to = {
        **belongs_to,
        "processes": world.size,
        "zero_stage": config.zero_stage,
        "optimizer": config.optimizer,
    }
    frozen = frozen_sha256(task.model)
    if frozen is not None:
        belongs_to["frozen_sha256"] = frozen
    if start.checkpoint is not None:
        source, predictor = str(start.checkpoint), experiment.predictor is not None
        content = native_content(load_pth(start.checkpoint), experiment, source, predictor)
        load_weights(task.model, without_frozen(task.model, content, source), source)
    if start.state is not None:
        check_belongs(start.state, belongs_to, to_dict(config))
    engine = Engine(task.model, config, world)
    first_step, history = 0, LossHistory()
    if start.state is not None:
        state = ResumeFolder(start.state.parent).load(engine, start.state)
        first_step, history = state["step"], LossHistory(**state["history"])
        if first_step > task.total_steps:
            raise UserError(
                f"{start.state}: trained for {first_step} steps, more than the "
                f"{task.total_steps} that training.num_steps or num_epochs ask for; raise them"
            )
        if world.is_main:
            print(f"{task.name}: continuing from {start.state} (step {first_step})", flush=True)
    recorder = Recorder(folder, experiment, engine, belongs_to, first_step)
    return train(task, engine, config, recorder, first_step, history)

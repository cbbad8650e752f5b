"""One training run, put together from a task, the engine and the folder's state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from textocvp import stopping
from textocvp.artifacts import FINAL
from textocvp.compat.import_experiment import place_encoder
from textocvp.config.errors import UserError
from textocvp.config.experiment import Experiment
from textocvp.config.schema import to_dict
from textocvp.training.checkpoint import (
    frozen_sha256,
    load_pth,
    load_weights,
    native_content,
    without_frozen,
)
from textocvp.training.deepspeed_engine import Engine, World, join_world
from textocvp.training.hang import no_step_expected
from textocvp.training.history import LossHistory
from textocvp.training.loop import train
from textocvp.training.recorder import Recorder
from textocvp.training.resume_state import ResumeFolder
from textocvp.training.start import Start, check_belongs, choose_start
from textocvp.training.task import Task


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

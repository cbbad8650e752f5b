"""The training loop of every task.

A task supplies data, loss, pictures and validation (`textocvp.training.task.Task`); the engine optimises; the
recorder writes curves and checkpoints. What a step does depends on the step alone, never on the time or on
where the run began: a resumed run repeats what an uninterrupted one would have done.
"""

from __future__ import annotations

import faulthandler
import logging
import math
import os
import time

import torch

from textocvp import stopping
from textocvp.config.errors import UserError
from textocvp.config.training import TrainingConfig
from textocvp.terminal import Progress
from textocvp.training.deepspeed_engine import Engine, StepResult, learning_rate
from textocvp.training.recorder import Recorder
from textocvp.training.resume_state import LossHistory
from textocvp.training.task import Task, seed_of

log = logging.getLogger(__name__)

CHECK_EVERY = 16
"""Steps between two looks at the loss on a GPU, which has to finish its work for each."""


class DivergedError(UserError):
    """The loss or its gradient is no number any more."""


def train(
    task: Task,
    engine: Engine,
    config: TrainingConfig,
    recorder: Recorder,
    first_step: int,
    history: LossHistory,
) -> int:
    """Train from `first_step` to task.total_steps and write the final checkpoint.

    Returns:
        0 when done, else the wish (see `textocvp.stopping`) on which it saved its state and stopped.

    Raises:
        DivergedError: the loss became nan or infinite; the last good state stays.
    """
    world, total = engine.world, task.total_steps
    (wish,) = engine.agree(stopping.wish())
    if wish:  # came while everything was loaded; nothing is new
        return int(wish)
    progress = Progress(task.name, total, first_step, world.is_main)
    batches = task.batches(first_step)
    saved_at = time.monotonic()
    for step in range(first_step, total):
        expect_a_step()
        batch = next(batches)
        torch.manual_seed(seed_of("step", config.seed, step, world.rank))  # dropout and whatever else draws
        lr = learning_rate(step, config)
        result = engine.step(task.loss, batch, lr)
        history.add(result.loss, result.scalars)

        done = step + 1
        wish, save = stopping.wish(), _save_due(done, saved_at, engine, config)
        diverged = _is_looked_at(done, wish or save, task, engine) and _has_diverged(result)
        wish, save, diverged = engine.agree(wish, save, diverged)
        if diverged:
            raise DivergedError(_explain(result, step, lr))
        progress.update(done, result.loss)
        if done % config.log_frequency == 0 or done == total:
            recorder.training_point(done, history, {"lr": lr, "grad_norm": float(result.grad_norm)})
        if not wish:
            wish = _look(task, engine, config, recorder, progress, done)
        recorder.epoch(task.epoch_at(step), task.epoch_at(done), done, history)
        if (wish or save) and done < total:
            recorder.save_state(task.epoch_at(done), done, history)
            saved_at = time.monotonic()
        if wish and done < total:
            progress.close()
            return int(wish)
    recorder.finish(task.epoch_at(total), total, history)
    progress.close()
    return 0


def _look(
    task: Task, engine: Engine, config: TrainingConfig, recorder: Recorder, progress: Progress, done: int
) -> int:
    """Pictures and validation, where they are due after `done` steps; returns a wish that came meanwhile."""
    if done % config.image_log_frequency == 0 or done == task.total_steps:
        recorder.pictures(engine.evaluate(task.pictures), done)
    if config.validation_batches == 0 or not _validation_due(task, config, done):
        return 0
    means, wish = validate(task, engine)
    if not wish:
        recorder.scalars({f"valid/{name}": value for name, value in means.items()}, done)
        if engine.world.is_main:
            log.info("%s: step %d, validation loss %.4g", task.name, done, means["loss"])
    return wish


def validate(task: Task, engine: Engine) -> tuple[dict[str, float], int]:
    """Mean loss and terms over the validation clips, and the wish on which it broke off (0: it did not)."""
    totals: dict[str, float] = {}
    clips = 0
    for batch, count in task.validation_batches():
        expect_a_step()
        loss, scalars = engine.evaluate(task.loss, batch)
        clips += count
        for name, value in {"loss": loss, **scalars}.items():
            totals[name] = totals.get(name, 0.0) + count * float(value)
        (wish,) = engine.agree(stopping.wish())
        if wish:
            return {}, int(wish)
    *sums, clips = engine.sum([*totals.values(), clips])
    return {name: value / clips for name, value in zip(totals, sums, strict=True)}, 0


def _validation_due(task: Task, config: TrainingConfig, done: int) -> bool:
    if done == task.total_steps:
        return True
    if config.validate_every_steps is not None:
        return done % config.validate_every_steps == 0
    return task.epoch_at(done) > task.epoch_at(done - 1)


def _save_due(done: int, saved_at: float, engine: Engine, config: TrainingConfig) -> bool:
    """Whether this process wants the state saved: the main one looks at step and clock for all."""
    by_step = config.save_every_steps is not None and done % config.save_every_steps == 0
    return engine.world.is_main and (by_step or time.monotonic() - saved_at > 60 * config.save_minutes)


def _is_looked_at(done: int, saves: bool, task: Task, engine: Engine) -> bool:
    """Whether loss and gradient are checked after this step: always on a CPU and before anything is saved."""
    on_cpu, at_end = engine.world.device.type == "cpu", done == task.total_steps
    at_epoch = task.epoch_at(done) > task.epoch_at(done - 1)
    return on_cpu or bool(saves) or at_end or at_epoch or done % CHECK_EVERY == 0


def _has_diverged(result: StepResult) -> bool:
    """Whether loss or gradient norm is no finite number."""
    return not (math.isfinite(result.loss) and math.isfinite(result.grad_norm))


def _explain(result: StepResult, step: int, lr: float) -> str:
    return (
        f"training diverged: at step {step} the loss is {float(result.loss):g} and the gradient norm "
        f"{float(result.grad_norm):g} (learning rate {lr:g}); the last good state is kept. Lower "
        f"training.lr or training.clipping_max_value, or lengthen training.warmup_steps, and train anew"
    )


HANG_VARIABLE = "TEXTOCVP_HANG_MINUTES"
"""Minutes without a step; set by jobs. Unset or 0: never."""


def expect_a_step() -> None:
    """Start the clock anew; when it runs out, all stacks go to stderr and the process exits with 1."""
    minutes = float(os.environ.get(HANG_VARIABLE, "0"))
    if minutes > 0:
        faulthandler.dump_traceback_later(60 * minutes, exit=True)


def no_step_expected() -> None:
    """Stop the clock."""
    faulthandler.cancel_dump_traceback_later()

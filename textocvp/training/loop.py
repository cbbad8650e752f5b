"""The training loop of every task.

A task supplies data, loss, pictures and validation (`textocvp.training.task.Task`); the engine optimises; the
recorder writes curves and checkpoints. What a step does depends on the step alone, never on the time or on
where the run began: a resumed run repeats what an uninterrupted one would have done.
"""

import faulthandler
import logging
import math
import os
import time

import torch

from textocvp import stopping
from textocvp.config.training import TrainingConfig
from textocvp.files import UserError
from textocvp.stopping import StopRequest
from textocvp.terminal import Progress
from textocvp.training.deepspeed_engine import Engine, learning_rate
from textocvp.training.recorder import Recorder
from textocvp.training.task import Task, seed_of

CHECK_EVERY = 16
"""Steps between two looks at the loss on a GPU, which has to finish its work for each."""
HANG_VARIABLE = "TEXTOCVP_HANG_MINUTES"
"""Minutes without a step; set by jobs. Unset or 0: never."""

log = logging.getLogger(__name__)


class DivergedError(UserError):
    """The loss or its gradient is not finite any more."""


def train(
    task: Task, engine: Engine, config: TrainingConfig, recorder: Recorder, first_step: int
) -> StopRequest:
    """Train from `first_step` to task.total_steps and write the final checkpoint.

    Returns:
        NONE when done, else the request on which it saved its state and stopped.

    Raises:
        DivergedError: the loss became nan or infinite; the last good state stays.
    """
    world, total = engine.world, task.total_steps
    request = _agreed_request(engine)
    if request:  # arrived while everything was loaded; there is nothing new to save
        return request
    batches, saved_at = task.batches(first_step), time.monotonic()
    with Progress(task.name, total, first_step, world.is_main) as progress:
        for step in range(first_step, total):
            expect_a_step()
            batch = next(batches)
            torch.manual_seed(seed_of("step", config.seed, step, world.rank))  # dropout and other draws
            lr = learning_rate(step, config)
            result = engine.step(task.loss, batch, lr)
            recorder.history.add(result.loss, result.scalars)

            done = step + 1
            ends, ends_epoch = done == total, task.epoch_at(done) > task.epoch_at(step)
            requested, save = stopping.requested(), _save_due(done, saved_at, engine, config)
            # a look at the loss waits for a GPU: always before something is saved, else now and then
            looks = requested or save or ends or ends_epoch or done % CHECK_EVERY == 0
            looks = looks or world.device.type == "cpu"
            diverged = looks and not (math.isfinite(result.loss) and math.isfinite(result.grad_norm))
            strongest, save_now, diverges = engine.agree(requested, save, diverged)
            if diverges:
                raise DivergedError(
                    f"training diverged: at step {step} the loss is {float(result.loss):g} and the gradient "
                    f"norm {float(result.grad_norm):g} (learning rate {lr:g}); the last good state is kept. "
                    f"Lower training.lr or training.clipping_max_value, or raise training.warmup_steps, and "
                    f"start again"
                )
            progress.update(done, result.loss)
            if done % config.log_frequency == 0 or ends:
                recorder.training_point(done, {"lr": lr, "grad_norm": float(result.grad_norm)})
            request = StopRequest(strongest)
            if not request:
                if done % config.image_log_frequency == 0 or ends:
                    recorder.curves.pictures(engine.evaluate(task.pictures), done)
                every = config.validate_every_steps
                due = ends or (ends_epoch if every is None else done % every == 0)
                if due and config.validation_batches != 0:
                    request = _validate(task, engine, recorder, done)
            recorder.save_epoch(done)
            if (request or save_now) and not ends:
                recorder.save_state(done)
                saved_at = time.monotonic()
            if request and not ends:
                return request
        recorder.finish(total)
    return StopRequest.NONE


def _agreed_request(engine: Engine) -> StopRequest:
    """The strongest request that any process received so far; all must call it."""
    return StopRequest(*engine.agree(stopping.requested()))


def _save_due(done: int, saved_at: float, engine: Engine, config: TrainingConfig) -> bool:
    """Whether this process wants the state saved: the main one looks at step and clock for all."""
    by_step = config.save_every_steps is not None and done % config.save_every_steps == 0
    return engine.world.is_main and (by_step or time.monotonic() - saved_at > 60 * config.save_minutes)


def _validate(task: Task, engine: Engine, recorder: Recorder, done: int) -> StopRequest:
    """Validate, with a point for each curve; returns a request that arrived meanwhile."""
    means, request = validate(task, engine)
    if not request:
        recorder.curves.scalars({f"valid/{name}": value for name, value in means.items()}, done)
        if engine.world.is_main:
            log.info("%s: step %d, validation loss %.4g", task.name, done, means["loss"])
    return request


def validate(task: Task, engine: Engine) -> tuple[dict[str, float], StopRequest]:
    """Mean loss and terms over the validation clips, and the request on which it broke off, if any."""
    totals: dict[str, float] = {}
    clips = 0.0
    for batch, count in task.validation_batches():
        expect_a_step()
        loss, scalars = engine.evaluate(task.loss, batch)
        clips += count
        for name, value in {"loss": loss, **scalars}.items():
            totals[name] = totals.get(name, 0.0) + count * float(value)
        request = _agreed_request(engine)
        if request:
            return {}, request
    *sums, clips = engine.sum([*totals.values(), clips])
    return {name: value / clips for name, value in zip(totals, sums, strict=True)}, StopRequest.NONE


def expect_a_step() -> None:
    """Restart the clock; when it runs out, all stacks go to stderr and the process exits with 1."""
    minutes = float(os.environ.get(HANG_VARIABLE, "0"))
    if minutes > 0:
        faulthandler.dump_traceback_later(60 * minutes, exit=True)


def no_step_expected() -> None:
    """Stop the clock."""
    faulthandler.cancel_dump_traceback_later()

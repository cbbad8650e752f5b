"""Where a training run starts (the beginning, a checkpoint, a saved state, or not at all) and how it ends."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textocvp import stopping
from textocvp.config.experiment import FINAL, Experiment
from textocvp.config.schema import difference, to_dict
from textocvp.files import UserError, read_json
from textocvp.stopping import StopRequest
from textocvp.training import checkpoint as checkpoints
from textocvp.training.deepspeed_engine import Engine, World, join_world
from textocvp.training.loop import no_step_expected, train
from textocvp.training.recorder import LossHistory, Recorder
from textocvp.training.resume_state import SHARDS, STATE, ResumeFolder
from textocvp.training.task import Task

ALWAYS_RESUME_VARIABLE = "TEXTOCVP_ALWAYS_RESUME"
"""Set to 1 by jobs: continue if a state exists, else start; a requeued job repeats its first command."""
LENGTH_FIELDS = ("num_steps", "num_epochs", "batch_size", "curriculum")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """How a training run begins; with neither, from scratch."""

    checkpoint: Path | None = None
    """A .pth whose parameters initialise the model."""
    state: Path | None = None
    """A folder in EXP/resume to continue from."""


@dataclass(frozen=True)
class Session:
    """One training, from where it starts to how it ends."""

    folder: Path
    """Where it writes: an experiment, or one of its predictors or seeds."""
    experiment: Experiment
    belongs_to: dict[str, Any]
    """Plain values in which a state must agree with this run to be continued by it."""

    def run(self, make_task: Callable[[World], Task], checkpoint: str | None, resume_training: bool) -> int:
        """Train what `make_task` makes, from the start or from its newest state; returns the exit code."""
        start = self.start(checkpoint, resume_training)
        if start is None:
            log.info("%s: training is finished, see %s", self.folder, self.folder / "models" / FINAL)
            return 0
        world = join_world()
        task = make_task(world)
        try:
            request = self._train(task, world, start)
        finally:
            no_step_expected()
        if not request:
            return 0
        if world.is_main:
            resume = ResumeFolder(self.folder / "resume")
            how = f"state saved in {resume.folder}; continue with the same command and --resume_training"
            how = how if resume.states() else "before the first step; run the same command again"
            log.info("%s: stopped by %s, %s", task.name, request.name, how)
        return stopping.finish(request, world.is_main)

    def start(self, checkpoint: str | None, resume_training: bool) -> Start | None:
        """Where training starts; None if it is finished.

        Raises:
            UserError: a state exists and neither option says what to do with it, there is nothing to resume,
                no state is intact, or what is finished here is another training.
        """
        if checkpoint and resume_training:
            raise UserError("--checkpoint starts from a file, --resume_training continues: use only one")
        resume, final = ResumeFolder(self.folder / "resume"), self.folder / "models" / FINAL
        states = resume.states()
        if not checkpoint and self._is_finished(final):
            if states and (states[0] / STATE).is_file():
                check_belongs(states[0], self.belongs_to)
            return None
        always = os.environ.get(ALWAYS_RESUME_VARIABLE) == "1"
        if resume_training or always:
            state = resume.newest_intact()
            if state is not None:
                return Start(state=state)
            if not always:
                raise UserError(f"{resume.folder}: nothing to resume from; run it without --resume_training")
        elif states or final.exists():
            raise UserError(
                f"{resume.folder if states else final}: this experiment was trained before; continue with "
                f"--resume_training, or choose another folder"
            )
        return Start(checkpoint=checkpoints.find_checkpoint(self.folder, checkpoint) if checkpoint else None)

    def _is_finished(self, final: Path) -> bool:
        """Whether the final checkpoint exists and was trained for as long as this run is to last."""
        if not final.is_file():
            return False
        found = checkpoints.load_pth(final).get("config", {}).get("training", {})
        asked = to_dict(self.experiment.training)
        return all(found.get(name) == asked[name] for name in LENGTH_FIELDS)

    def _train(self, task: Task, world: World, start: Start) -> StopRequest:
        """Returns NONE, or the request on which the training stopped."""
        config = self.experiment.training
        more = {"processes": world.size, "zero_stage": config.zero_stage, "optimizer": config.optimizer}
        belongs_to, frozen = {**self.belongs_to, **more}, checkpoints.frozen_sha256(task.model)
        if frozen is not None:
            belongs_to["frozen_sha256"] = frozen
        if start.checkpoint is not None:
            part: checkpoints.Part = "predictor" if self.experiment.predictor else "model"
            content = checkpoints.read_checkpoint(start.checkpoint, self.experiment, part)
            checkpoints.load_weights(task.model, content, str(start.checkpoint))
        if start.state is not None:
            check_belongs(start.state, belongs_to)
        engine, first_step, history = Engine(task.model, config, world), 0, LossHistory()
        if start.state is not None:
            engine.load_shards(start.state / SHARDS)
            state = read_json(start.state / STATE)
            first_step, history = state["step"], LossHistory(**state["history"])
            if first_step > task.total_steps:
                raise UserError(
                    f"{start.state}: trained for {first_step} steps, more than the {task.total_steps} that "
                    f"training.num_steps or training.num_epochs ask for; raise them"
                )
            if world.is_main:
                log.info("%s: continuing from %s (step %d)", task.name, start.state, first_step)
                changes = difference(state["training"], to_dict(config))
                if changes:
                    log.info("%s: settings have changed: %s", task.name, "; ".join(map(str, changes)))
        recorder = Recorder(self.folder, self.experiment, task, engine, belongs_to, first_step, history)
        return train(task, engine, config, recorder, first_step)


def check_belongs(state: Path, belongs_to: dict[str, Any]) -> None:
    """UserError if another training saved a state: another model, optimiser or number of processes."""
    found = read_json(state / STATE)["belongs_to"]
    compared = {name: value for name, value in found.items() if name in belongs_to}
    changes = difference(compared, belongs_to, known_only=True)
    if changes:
        raise UserError(
            f"{state}: saved by another training ({'; '.join(map(str, changes))}); choose another folder for "
            f"this one (--checkpoint begins from these parameters), or move this one away"
        )

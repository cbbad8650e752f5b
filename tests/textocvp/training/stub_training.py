"""A training run of an arithmetic stub through the real loop, engine and checkpoints; also a program.

python stub_training.py FOLDER... [--resume_training] [--checkpoint C] [--signal USR2 --at 13 --rank 0]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from textocvp import stopping
from textocvp.config.errors import UserError
from textocvp.config.experiment import load_experiment
from textocvp.training.session import run_training

TRAINING = {
    "num_steps": 20,
    "batch_size": 8,
    "lr": 0.01,
    "warmup_steps": 4,
    "scheduler_steps": 20,
    "seed": 5,
    "log_frequency": 3,
    "image_log_frequency": 10,
    "save_frequency": 1,
    "save_every_steps": 5,
    "validate_every_steps": 7,
    "stage3_param_persistence_threshold": 0,
}


def write_experiment(folder, **training):
    """experiment_params.json of a stub experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "dataset": {"dataset_name": "CATER_Hard"},
        "model": {"model_name": "SAVi"},
        "training": {**TRAINING, **training},
        "suite": {"version": 1},
    }
    (folder / "experiment_params.json").write_text(json.dumps(values))
    return folder


class StubTask:
    """Learns sin(x) with dropout; ten steps are an epoch. `at_step(step)` runs before each step's batch."""

    name = "stub"

    def __init__(self, config, world, at_step=lambda step: None):
        torch.manual_seed(config.seed)
        self.model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 8))
        self.total_steps, self._batch_size = config.num_steps, config.batch_size
        self._world, self._at_step = world, at_step
        self.factor = 1.0

    def epoch_at(self, step):
        return step // 10

    def batches(self, first_step):
        share = self._batch_size // self._world.size
        for step in range(first_step, self.total_steps):
            self._at_step(step)
            x = torch.randn(self._batch_size, 8, generator=torch.Generator().manual_seed(step))
            yield x[self._world.rank * share : (self._world.rank + 1) * share] * self.factor

    def loss(self, x):
        value = (self.model(x) - x.sin()).square().mean()
        return value, {"mse": value.detach()}

    def validation_batches(self):
        generator = torch.Generator().manual_seed(99)
        for _ in range(2):
            yield torch.randn(4, 8, generator=generator), 4

    def pictures(self):
        return {"weights": self.model[0].weight.new_ones(3, 4, 4)}


class PartlyIdleTask(StubTask):
    """Has a layer that the loss never reaches."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.model.idle = nn.Linear(2, 2)
        self.model.forward = lambda x: nn.Sequential(*list(self.model)[:4])(x)


def run(
    folder,
    checkpoint=None,
    resume_training=False,
    at_step=lambda step: None,
    make=StubTask,
    belongs_to={"stub": 1},
):  # noqa: B006 (not written to)
    """Train the stub in `folder`; returns the exit code."""
    stopping.install()
    experiment = load_experiment(folder)
    return run_training(
        folder,
        experiment,
        lambda world: make(experiment.training, world, at_step),
        belongs_to,
        checkpoint,
        resume_training,
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--resume_training", action="store_true")
    parser.add_argument("--checkpoint")
    parser.add_argument("--signal", default="USR2")
    parser.add_argument("--at", type=int)
    parser.add_argument("--rank", default="0")
    parser.add_argument("--idle", action="store_true")
    options = parser.parse_args()

    def send(step):
        if step == options.at and os.environ.get("RANK", "0") == options.rank:
            os.kill(os.getpid(), signal.Signals[f"SIG{options.signal}"])

    try:
        make = PartlyIdleTask if options.idle else StubTask
        codes = [
            run(folder, options.checkpoint, options.resume_training, send, make) for folder in options.folders
        ]
        stopping.skip_teardown(max(codes))
        return max(codes)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

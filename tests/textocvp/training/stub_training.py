"""A stub trained through the real loop, engine and checkpoints; as a program, a server of such processes."""

import argparse
import gc
import importlib
import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from textocvp import stopping
from textocvp.config.experiment import load_experiment
from textocvp.files import UserError
from textocvp.terminal import set_up_logging
from textocvp.training.session import Session

TRAINING = {"num_steps": 20, "batch_size": 8, "lr": 0.01, "warmup_steps": 4, "scheduler_steps": 20, "seed": 5}
TRAINING.update(log_frequency=3, image_log_frequency=10, stage3_param_persistence_threshold=0)
TRAINING.update(save_frequency=1, save_every_steps=5, validate_every_steps=7)


def write_experiment(folder, **training):
    """experiment_params.json of a stub experiment."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"dataset": {"dataset_name": "CATER_Hard"}, "model": {"model_name": "SAVi"}}
    values.update(training={**TRAINING, **training}, suite={"version": 1})
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


def run(folder, checkpoint=None, resume_training=False, at_step=lambda step: None, make=StubTask, stub=1):
    """Train the stub in `folder`; returns the exit code."""
    stopping.install()
    experiment = load_experiment(folder)
    session = Session(folder, experiment, {"stub": stub})
    return session.run(lambda world: make(experiment.training, world, at_step), checkpoint, resume_training)


def main(argv):
    """One process: train in each folder of `argv`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--resume_training", action="store_true")
    parser.add_argument("--signal", default="USR2")
    parser.add_argument("--at", type=int)
    parser.add_argument("--rank", default="0")
    parser.add_argument("--idle", action="store_true")
    options = parser.parse_args(argv)

    def send(step):
        if step == options.at and os.environ.get("RANK", "0") == options.rank:
            os.kill(os.getpid(), signal.Signals[f"SIG{options.signal}"])

    make = PartlyIdleTask if options.idle else StubTask
    try:
        codes = [run(folder, None, options.resume_training, send, make) for folder in options.folders]
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    stopping.skip_teardown(max(codes))
    return max(codes)


def serve():
    """For each line of stdin, fork one process per environment and print their exit codes."""
    for name in ("torch._dynamo", "torch.utils.tensorboard", "deepspeed.runtime.zero.muon.muon_optimizer"):
        importlib.import_module(name)  # every process would do it for itself
    gc.freeze()
    for line in sys.stdin:
        job = json.loads(line)
        children = []
        for environment in job["environments"]:
            children.append(os.fork())
            if children[-1] == 0:
                os.environ.update(environment)
                log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1), os.dup2(log, 2)
                set_up_logging()
                return main(job["argv"])
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(serve())

"""The learning rate as a pure function of the step: resuming needs no scheduler state."""

from __future__ import annotations

import math

from textocvp.config.training import TrainingConfig


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Learning rate in force at `step` (from 0).

    Warm-up: lr * step / warmup_steps, so step 0 has rate 0 and step `warmup_steps` the full one, which the
    next step keeps; from `warmup_steps` + 2 the cosine falls from lr to min_lr in `scheduler_steps` steps.
    Without warm-up the cosine starts at step 1. After the cosine the rate stays at min_lr.
    """
    last_full = config.warmup_steps + 1 if config.lr_warmup else 0
    if step < last_full:
        return config.lr * min(step, config.warmup_steps) / config.warmup_steps
    if config.scheduler == "none":
        return config.lr
    progress = min((step - last_full) / config.scheduler_steps, 1.0)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * progress)) / 2

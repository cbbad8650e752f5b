from __future__ import annotations

import pytest
import torch

from textocvp.config.training import TrainingConfig
from textocvp.training.deepspeed_engine import learning_rate


def torch_rates(config, num_steps):
    """The original's: linear warm-up by hand, then torch's cosine annealing, one step per iteration."""
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, config.scheduler_steps, config.min_lr)
    rates, warming, last = [], config.lr_warmup, config.warmup_steps if config.lr_warmup else -1
    for step in range(num_steps):
        if warming and step <= last:
            optimizer.param_groups[0]["lr"] = config.lr * step / config.warmup_steps
        elif step > last + 1:
            cosine.step()
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
    return rates


@pytest.mark.parametrize("changes", [{}, {"lr_warmup": False}, {"min_lr": 2e-5}])
def test_equals_the_originals(changes):
    config = TrainingConfig(lr=1e-3, warmup_steps=5, scheduler_steps=20, **changes)
    first = 5 + 20 if config.lr_warmup else 20
    expected = torch_rates(config, first)
    assert [learning_rate(step, config) for step in range(first)] == pytest.approx(expected, rel=1e-9)


def test_golden_rates():
    config = TrainingConfig(lr=1e-3, warmup_steps=2, scheduler_steps=8)
    assert [learning_rate(step, config) for step in range(6)] == [
        0.0,
        5e-4,
        1e-3,
        1e-3,
        9.619435722790177e-4,
        8.535680352542143e-4,
    ]


def test_stays_at_the_minimum_after_the_cosine():
    config = TrainingConfig(lr=1e-3, warmup_steps=2, scheduler_steps=8, min_lr=1e-5)
    assert learning_rate(11, config) == learning_rate(500, config) == 1e-5


def test_without_a_scheduler_the_rate_stays():
    config = TrainingConfig(lr=1e-3, warmup_steps=2, scheduler="none")
    assert [learning_rate(step, config) for step in (1, 2, 3, 1000)] == [5e-4, 1e-3, 1e-3, 1e-3]

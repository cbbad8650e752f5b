"""The engine against the original's training steps, plain torch, and itself at other ZeRO stages."""

import pytest
import torch
from torch.testing import assert_close

from textocvp.compat.keys import from_original, savi_names, to_original
from textocvp.config.models import SAViConfig
from textocvp.config.schema import build
from textocvp.config.training import LossTerm, TrainingConfig
from textocvp.decomposition.savi import SAVi
from textocvp.training.deepspeed_engine import Engine, join_world, learning_rate
from textocvp.training.task import frame_loss


def test_golden_savi_train_steps(golden):
    case = golden("savi_train_steps")
    config = build(SAViConfig, case.config["model"]["model_params"], "golden")
    training = build(TrainingConfig, case.config["training"], "golden")
    names = savi_names(config)
    model = SAVi(config, (16, 16))
    model.load_state_dict(from_original(case.part("state_initial."), names))
    video, noise, term = case.tensors["input"], case.tensors["noise"], LossTerm()

    def loss(step):
        _, rendering = model(video, model.initial_slots(2, noise=noise[step]))
        return frame_loss(rendering.frames, video, term, clamp=True), {}

    engine = Engine(model, training, join_world())
    for step in range(6):
        lr = learning_rate(step, training)
        assert lr == case.tensors["lr"][step].item()
        result = engine.step(loss, step, lr)
        assert_close(result.loss.double(), case.tensors["loss"][step], atol=1e-6, rtol=0)
        assert_close(result.grad_norm.double(), case.tensors["grad_norm"][step], atol=0, rtol=1e-5)
    optimizer = engine.optimizer_state_dict()["state"]
    assert [values["step"] for values in optimizer.values()] == [6] * len(optimizer)
    ours = [name for name, _ in model.named_parameters()]
    moments = [
        to_original({name: optimizer[i][moment] for i, name in enumerate(ours)}, names)
        for moment in ("exp_avg", "exp_avg_sq")
    ]
    case.assert_trained(to_original(model.state_dict(), names), *moments)


@pytest.mark.parametrize("clips", [True, False])
def test_stages_take_the_same_steps(clips):
    results = [few_steps(zero_stage=stage, gradient_clipping=clips) for stage in range(4)]
    for result in results[1:]:
        for found, expected in zip(result, results[0], strict=True):
            assert_close(found, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_equals_plain_torch(optimizer):
    cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer]
    model, x = small_model()
    plain = cls(model.parameters(), lr=0.01, weight_decay=0.1)
    norms = []
    for _ in range(3):
        plain.zero_grad()
        model(x).square().mean().backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05))
        plain.step()
    found = few_steps(optimizer=optimizer, weight_decay=0.1)
    for value, expected in zip(found, [*norms, *model.parameters()], strict=True):
        assert_close(value, expected.detach(), atol=1e-6, rtol=1e-5)


def test_bf16_keeps_parameters_in_fp32():
    rough, exact = few_steps(precision="bf16"), few_steps()
    assert all(value.dtype == torch.float32 for value in rough)
    assert not torch.equal(rough[0], exact[0])
    assert_close(rough[0], exact[0], atol=0, rtol=0.05)


def test_evaluation_draws_and_trains_nothing():
    model, x = small_model()
    engine = Engine(model, TrainingConfig(batch_size=1), join_world())
    state = torch.get_rng_state()
    value = engine.evaluate(lambda: (model.training, torch.rand(1), model(x).requires_grad))
    assert value[0] is False and value[2] is False and model.training
    assert torch.equal(torch.get_rng_state(), state)


def small_model():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    return model, torch.randn(5, 4)


def few_steps(**changes):
    """Gradient norms of three steps, then the parameters."""
    model, x = small_model()
    config = TrainingConfig(batch_size=1, stage3_param_persistence_threshold=0, **changes)
    engine = Engine(model, config, join_world())

    def loss(x):
        return model(x).float().square().mean(), {}

    norms = [engine.step(loss, x, 0.01).grad_norm for _ in range(3)]
    with engine.whole_parameters():
        return [*norms, *(parameter.detach().clone() for parameter in model.parameters())]


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


def test_golden_rates_that_stay_at_the_minimum_after_the_cosine_and_without_a_scheduler():
    config = TrainingConfig(lr=1e-3, warmup_steps=2, scheduler_steps=8)
    rates = [learning_rate(step, config) for step in range(6)]
    assert rates == [0.0, 5e-4, 1e-3, 1e-3, 9.619435722790177e-4, 8.535680352542143e-4]

    config = TrainingConfig(lr=1e-3, warmup_steps=2, scheduler_steps=8, min_lr=1e-5)
    assert learning_rate(11, config) == learning_rate(500, config) == 1e-5

    config = TrainingConfig(lr=1e-3, warmup_steps=2, scheduler="none")
    assert [learning_rate(step, config) for step in (1, 2, 3, 1000)] == [5e-4, 1e-3, 1e-3, 1e-3]

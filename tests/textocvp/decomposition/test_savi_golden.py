"""SAVi against the original implementation: outputs, loss, gradients, six training steps."""

import pytest
import torch
from torch.testing import assert_close

from textocvp.compat.keys import from_original, savi_names, to_original
from textocvp.config.models import SAViConfig
from textocvp.config.schema import build
from textocvp.decomposition.savi import SAVi

BOTH = pytest.mark.parametrize("name", ["savi_tiny", "savi_tiny_learned"])


def build_savi(case, state="state."):
    config = build(SAViConfig, case.config["model"]["model_params"], "golden")
    model = SAVi(config, (16, 16))
    model.load_state_dict(from_original(case.part(state), savi_names(config)))
    return model


def loss_of(frames, video):
    return (frames.clamp(0, 1) - video.clamp(0, 1)).square().mean()


@BOTH
def test_golden_outputs_and_names_of_the_state(golden, name):
    case = golden(name)
    model, video, expected = build_savi(case).eval(), case.tensors["input"], case.part("out.")
    with torch.no_grad():
        initial_slots = model.initial_slots(2, noise=case.tensors.get("initial_noise", torch.zeros(2, 4, 16)))
        features = model.features(video)
        slots, rendering = model(video, initial_slots)
        predicted = model.transition(slots.flatten(0, 1)).view_as(slots)
    assert torch.equal(initial_slots, case.tensors["initial_slots"])
    assert_close(features, case.tensors["aux.encoded_feats"], atol=1e-5, rtol=0)
    assert_close(slots, expected["slot_history"], atol=3e-5, rtol=0)
    assert_close(predicted, case.tensors["aux.predicted_slots"], atol=3e-5, rtol=0)
    assert_close(rendering.frames, expected["recons_imgs"], atol=1e-5, rtol=0)
    assert_close(rendering.slot_frames, expected["recons_objs"], atol=1e-5, rtol=0)
    assert_close(rendering.masks, expected["masks"], atol=1e-5, rtol=0)
    assert_close(loss_of(rendering.frames, video), expected["loss"], atol=1e-6, rtol=0)
    original = to_original(model.state_dict(), savi_names(model.config))
    assert sorted(original) == sorted(case.part("state."))
    assert all(torch.equal(original[key], value) for key, value in case.part("state.").items())


@BOTH
def test_golden_gradient_norms(golden, name):
    case = golden(name)
    model, video = build_savi(case).train(), case.tensors["input"]
    noise = case.tensors.get("initial_noise", torch.zeros(2, 4, 16))
    loss_of(model(video, model.initial_slots(2, noise=noise))[1].frames, video).backward()
    gradients = to_original({n: p.grad for n, p in model.named_parameters()}, savi_names(model.config))
    order = case.config["_fixture"]["grad_norms_order"]
    assert sorted(order) == sorted(gradients)
    norms = torch.stack([gradients[name].norm() for name in order])
    assert_close(norms, case.tensors["out.grad_norms"], atol=1e-5, rtol=1e-4)


def test_golden_training_steps(golden):
    case = golden("savi_train_steps")
    model, video = build_savi(case, "state_initial.").train(), case.tensors["input"]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    for step, noise in enumerate(case.tensors["noise"]):
        initial_slots = model.initial_slots(2, noise=noise)
        assert_close(initial_slots, case.tensors["initial_slots"][step], atol=1e-5, rtol=0)
        optimizer.param_groups[0]["lr"] = case.tensors["lr"][step].item()
        loss = loss_of(model(video, initial_slots)[1].frames, video)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        assert_close(loss.double(), case.tensors["loss"][step], atol=1e-6, rtol=0)
        assert_close(norm.double(), case.tensors["grad_norm"][step], atol=0, rtol=1e-4)

    names = savi_names(model.config)
    states = {n: optimizer.state[p] for n, p in model.named_parameters()}
    moments = [{n: state[moment] for n, state in states.items()} for moment in ("exp_avg", "exp_avg_sq")]
    case.assert_trained(*(to_original(each, names) for each in (model.state_dict(), *moments)))

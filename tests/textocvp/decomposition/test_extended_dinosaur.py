"""ExtendedDINOSAUR against the original implementation: outputs, losses, gradients."""

import pytest
import torch
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2Model

from textocvp.compat.keys import dinosaur_names, from_original, to_original
from textocvp.config.models import ExtendedDINOSAURConfig
from textocvp.config.schema import build, filled_in
from textocvp.config.training import LossTerm
from textocvp.decomposition.extended_dinosaur import ExtendedDINOSAUR
from textocvp.training.task import feature_loss, frame_loss

MSE = LossTerm(type="mse")
FEATURES = LossTerm(type="pred_feature_mse", clamp_features=True)


@pytest.fixture
def case(golden):
    return golden("dinosaur_tiny")


@pytest.fixture
def model(case, tmp_path):
    """The case's model with the original's weights; its transformer is narrower than its name says."""
    vit = case.config["_fixture"]["vit"]
    sizes = {"hidden_size": vit["embed_dim"], "num_hidden_layers": vit["depth"]}
    sizes.update(num_attention_heads=vit["num_heads"], patch_size=14, image_size=56)
    Dinov2Model(Dinov2Config(**sizes)).save_pretrained(tmp_path / "vit")
    values = filled_in(case.config["model"]["model_params"], ExtendedDINOSAURConfig.original)
    values["encoder"]["encoder_params"]["weights"] = str(tmp_path / "vit")
    config = build(ExtendedDINOSAURConfig, values, "golden")
    model = ExtendedDINOSAUR(config, (56, 56), pretrained=False)
    model.load_state_dict(from_original(case.part("state."), dinosaur_names(config)))
    return model


def reconstruct(model, case):
    initial_slots = model.initial_slots(2, noise=case.tensors["initial_noise"])
    slots, rendering = model(case.tensors["input"], initial_slots)
    return initial_slots, slots, rendering


def losses_of(rendering, video):
    mse = frame_loss(rendering.frames, video, MSE, clamp=True)
    features = feature_loss(rendering.features, rendering.target_features, FEATURES)
    return {"mse": mse, "pred_feature_mse": features, "_total": mse + features}


def assert_agree(slots, rendering, expected, video, frames_atol=1e-5):
    assert_close(slots, expected["slot_history"], atol=3e-5, rtol=0)
    assert_close(rendering.features, expected["recons_feats"], atol=1e-5, rtol=0)
    assert_close(rendering.frames, expected["recons_imgs"], atol=frames_atol, rtol=0)
    grid_masks = rendering.patch_masks.unflatten(3, (4, 4)).unsqueeze(3)
    assert_close(grid_masks, expected["masks"], atol=1e-5, rtol=0)
    for name, loss in losses_of(rendering, video).items():
        assert_close(loss, expected[f"loss.{name}"], atol=1e-6, rtol=0)


def test_golden_outputs_and_names_of_the_state(case, model):
    expected = case.part("out.")
    model.eval()
    with torch.no_grad():
        initial_slots, slots, rendering = reconstruct(model, case)
        normalized = model.encoder.normalize(case.tensors["input"][:, 0])
        maps = rendering.features[:, 0].transpose(1, 2).unflatten(2, (4, 4))
        decoded = model.decoder.image_decoder(maps)
    assert torch.equal(initial_slots, case.tensors["initial_slots"])
    assert_close(normalized, case.tensors["aux.normalized_frame0"], atol=1e-5, rtol=0)
    assert_close(rendering.target_features, expected["encoded_img_feats"], atol=1e-5, rtol=0)
    assert_close(decoded, case.tensors["aux.conv_decoder_pre_resize_t0"], atol=1e-5, rtol=0)
    assert_agree(slots, rendering, expected, case.tensors["input"])
    original = to_original(model.state_dict(), dinosaur_names(model.config))
    assert sorted(original) == sorted(case.part("state."))
    assert all(torch.equal(original[key], value) for key, value in case.part("state.").items())


def test_golden_training_mode(case, model):
    model.train()
    _, slots, rendering = reconstruct(model, case)
    # batch statistics amplify rounding: the original's own float32 frames are 1.8e-5 from float64's
    assert_agree(slots, rendering, case.part("train."), case.tensors["input"], frames_atol=2e-5)
    after = to_original(model.state_dict(), dinosaur_names(model.config))
    for name, value in case.part("train.buffer_after.").items():
        assert_close(after[name], value, atol=1e-5, rtol=0, msg=lambda text, n=name: f"{n}: {text}")


def test_golden_gradient_norms(case, model):
    model.train()
    _, _, rendering = reconstruct(model, case)
    losses_of(rendering, case.tensors["input"])["_total"].backward()
    names = dinosaur_names(model.config)
    trained = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    gradients = to_original(trained, names)
    order, norms = case.config["_fixture"]["grad_norms_order"], case.tensors["train.grad_norms"]
    frozen = [name for name, norm in zip(order, norms) if torch.isnan(norm)]
    assert len(frozen) == 34 and all(name.startswith("encoder.") for name in frozen)
    assert sorted(gradients) == sorted(set(order) - set(frozen))
    for name in gradients:
        found, expected = gradients[name].norm(), norms[order.index(name)]
        assert_close(found, expected, atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")

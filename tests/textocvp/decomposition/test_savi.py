import pytest
import torch
from torch.testing import assert_close

from textocvp.config.experiment import experiment_values, parse_experiment
from textocvp.config.models import SAViConfig
from textocvp.config.schema import build
from textocvp.decomposition import build_model
from textocvp.decomposition.savi import SAVi
from textocvp.files import ConfigError
from textocvp.modules.decoders import TransposedConvDecoder
from textocvp.modules.slot_attention import BackgroundRandom

PLAIN = {
    **{"num_slots": 3, "slot_dim": 8, "mlp_hidden": 12, "mlp_encoder_dim": 10},
    "transition_module": {"num_heads": 2, "mlp_size": 12},
    "encoder": {"encoder_params": {"num_channels": [6, 6], "kernel_size": 3}},
    "decoder": {"decoder_params": {"num_channels": [6, 6], "kernel_size": 3, "resolution": [16, 16]}},
}
# what is off by default: cheap decoder, background slot, scaled input, near-identity transition
FAST = {
    **PLAIN,
    **{"initializer": "BackgroundRandom", "input_offset": 0.5, "input_scale": 4.0},
    "transition_module": {"num_heads": 2, "mlp_size": 12, "pre_norm": True, "output_scale": 0.05},
    "encoder": {"encoder_params": {"num_channels": [6, 6], "kernel_size": [5, 3], "strides": [2, 1]}},
    "decoder": {
        "decoder_name": "TransposedConvDecoder",
        "decoder_params": {"num_channels": [6], "resolution": [8, 8], "position_gain": 4.0},
    },
}


def savi(values, seed=0):
    torch.manual_seed(seed)
    return SAVi(build(SAViConfig, values, "test"), (16, 16))


@pytest.fixture(params=[PLAIN, FAST], ids=["plain", "fast"])
def model(request):
    return savi(request.param)


def test_shapes_mixed_precision_and_every_parameter_learns(model):
    slots, rendering = model(torch.rand(2, 4, 3, 16, 16))
    assert slots.shape == (2, 4, 3, 8)
    assert rendering.frames.shape == (2, 4, 3, 16, 16)
    assert rendering.slot_frames.shape == (2, 4, 3, 3, 16, 16)
    assert rendering.masks.shape == (2, 4, 3, 1, 16, 16)
    assert_close(rendering.masks.sum(dim=2), torch.ones(2, 4, 1, 16, 16))
    assert_close(rendering.frames, (rendering.slot_frames * rendering.masks).sum(dim=2))

    rendering.frames.square().sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]

    with torch.autocast("cpu", torch.bfloat16):
        slots, rendering = model(torch.rand(2, 2, 3, 16, 16))
    rendering.frames.float().square().sum().backward()
    assert slots.dtype == torch.float32


def test_all_frames_at_once_equals_frame_by_frame_and_slots_follow_from_the_past_alone(model):
    video = torch.rand(2, 4, 3, 16, 16)
    slots, rendering = model(video, model.initial_slots(2, noise=torch.randn(2, 3, 8)))
    for t in range(4):
        assert_close(model.features(video)[:, t], model.features(video[:, t : t + 1])[:, 0])
        assert_close(rendering.frames[:, t], model.decode(slots[:, t : t + 1]).frames[:, 0])

    video, initial_slots = torch.rand(2, 4, 3, 16, 16), model.initial_slots(2, noise=torch.randn(2, 3, 8))
    assert_close(model.encode(video, initial_slots)[:, :2], model.encode(video[:, :2], initial_slots))


def test_windows_can_share_features(model):
    """The slot store computes the features of a video once, and tracks from many starts."""
    video, noise = torch.rand(1, 6, 3, 16, 16), torch.randn(1, 3, 8)
    features = model.features(video)
    for start in (0, 2):
        window = model.track(features[:, start : start + 4], model.initial_slots(1, noise=noise))
        assert_close(window, model.encode(video[:, start : start + 4], model.initial_slots(1, noise=noise)))


def test_first_frame_gets_more_iterations():
    model, calls = savi(PLAIN), []
    model.slot_attention.register_forward_pre_hook(lambda _, arguments: calls.append(arguments[2]))
    model.encode(torch.rand(1, 3, 3, 16, 16))
    assert calls == [3, 1, 1]


def test_initial_slots(model):
    noise = torch.randn(2, 3, 8)
    assert torch.equal(model.initial_slots(2, noise=noise), model.initial_slots(2, noise=noise))
    assert not torch.equal(model.initial_slots(2), model.initial_slots(2))


def test_few_steps_reduce_the_error(model):
    video, optimizer = torch.rand(2, 3, 3, 16, 16), torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(15):
        loss = (model(video)[1].frames - video).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_fast_options_are_what_they_say():
    model = savi(FAST)
    assert isinstance(model.decoder, TransposedConvDecoder)
    assert isinstance(model.initializer, BackgroundRandom)
    assert model.features(torch.rand(1, 1, 3, 16, 16)).shape == (1, 1, 64, 10), "half resolution"
    slots = torch.randn(2, 3, 8)
    assert (model.transition(slots) - slots).norm() < 0.1 * slots.norm()

    scaled, video = savi(FAST), torch.rand(1, 2, 3, 16, 16)
    plain = savi({**FAST, "input_offset": 0.0, "input_scale": 1.0})
    assert_close(scaled.features(video), plain.features((video - 0.5) * 4))

    params = {**FAST["decoder"]["decoder_params"], "position_gain": 1.0}
    plain, scaled = savi({**FAST, "decoder": {**FAST["decoder"], "decoder_params": params}}), savi(FAST)
    assert_close(scaled.decoder.position.projection.weight, 4 * plain.decoder.position.projection.weight)
    assert torch.equal(scaled.decoder.broadcast.weight, plain.decoder.broadcast.weight)


@pytest.mark.parametrize(
    ("name", "dataset", "field"),
    [("SAVi", "CATER_Hard", "decoder"), ("ExtendedDINOSAUR", "CLIPort", "img_size")],
)
def test_models_that_do_not_fit_the_frames_are_refused(name, dataset, field):
    values = experiment_values(name, dataset, {"dataset.img_size": [32, 32]})
    with pytest.raises(ConfigError, match=rf"model.model_params.{field}: .*\[32, 32\]"):
        build_model(parse_experiment(values, "test"))


def test_default_experiment_builds_the_originals_model():
    values = experiment_values("SAVi", "CATER_Hard", {})
    model = build_model(parse_experiment(values, "test"))
    assert model.num_slots == 8 and model.slot_dim == 128
    assert sum(p.numel() for p in model.parameters()) == 1_028_804

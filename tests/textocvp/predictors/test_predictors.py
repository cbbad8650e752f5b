import pytest
import torch
from torch.testing import assert_close

from textocvp.config.experiment import experiment_values, parse_experiment, predictor_values
from textocvp.config.registry import PREDICTORS
from textocvp.config.schema import build
from textocvp.config.synthetic import WeightsSettings
from textocvp.data.tokenizers import Text
from textocvp.predictors import build_forecaster
from textocvp.synthetic.weights import make_weights

SMALL = {"token_dim": 16, "hidden_dim": 24, "num_layers": 2, "n_heads": 4}
PARAMS = {
    "VanillaTransformer": SMALL,
    "OCVPSeq": SMALL,
    "TextOCVP_CustomTF": {
        "predictor_params": SMALL,
        "fusion_params": {"num_heads": 2, "head_dim": 6, "mlp_size": 24},
        "text_encoder_params": {"input_dim": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 50},
    },
}


@pytest.fixture(scope="session", autouse=True)
def tiny_t5(tmp_path_factory):
    """A random T5 that is narrower than the predictor."""
    folder = tmp_path_factory.mktemp("weights") / "t5"
    make_weights(WeightsSettings(kind="t5", width=8), folder)
    PARAMS["TextOCVP_T5"] = {
        **{name: PARAMS["TextOCVP_CustomTF"][name] for name in ("predictor_params", "fusion_params")},
        "text_encoder_params": {"weights": str(folder)},
    }


EACH = pytest.mark.parametrize("name", list(PREDICTORS))
TEXT = Text(torch.randint(1, 50, (2, 9)), torch.arange(9) < torch.tensor([[9], [5]]))


def experiment_of(name, overrides, original=False):
    decomposition = experiment_values("SAVi", "CATER_Hard", {"model.model_params.slot_dim": 8})
    own = {"predictor.predictor_params": PARAMS[name], "prediction_params.input_buffer_size": 3}
    values = predictor_values(decomposition, name, {**own, **overrides})
    if original:
        del values["suite"], values["predictor"]["predictor_params"]["fusion_params"]["mask_padding"]
    return parse_experiment(values, "test")


def forecaster_of(name, original=False, **changes):
    """A predictor with the same weights at every call; `changes` are to its parameters."""
    section = "predictor_params.predictor_params" if name.startswith("TextOCVP") else "predictor_params"
    overrides = {f"predictor.{section}.{key}": value for key, value in changes.items()}
    torch.manual_seed(0)
    return build_forecaster(experiment_of(name, overrides, original))


@EACH
def test_every_predictor_forecasts_and_learns_and_runs_in_mixed_precision(name):
    forecaster = forecaster_of(name)
    slots = torch.randn(2, 6, 4, 8)
    predicted = forecaster(slots, TEXT, num_context=2, num_preds=4)
    assert predicted.shape == (2, 4, 4, 8)
    (predicted - slots[:, 2:]).square().mean().backward()
    trained = [(n, p) for n, p in forecaster.named_parameters() if p.requires_grad]
    assert not [n for n, p in trained if p.grad is None or not p.grad.any()]
    with torch.autocast("cpu", torch.bfloat16):
        predicted = forecaster(torch.randn(2, 1, 4, 8), TEXT, 1, 3)
    predicted.float().sum().backward()


@EACH
def test_original_defaults_build(name):
    config_class = PREDICTORS.get(name).load_config()
    params = build(config_class, PREDICTORS.get(name).new_values(), "defaults")
    predictor_class = PREDICTORS.get(name).load()
    weights = (None, False) if predictor_class.reads_weights else ()
    predictor = predictor_class(params, 128, 10, *weights)
    assert predictor.needs_text == (config_class.tokenizer is not None)


@EACH
def test_slots_are_interchangeable_but_frames_are_not(name):
    """Slots have no order: predicting permuted slots gives the permuted prediction."""
    forecaster, slots = forecaster_of(name).eval(), torch.randn(2, 2, 4, 8)
    permuted = forecaster(slots.flip(2), TEXT, 2, 3)
    assert_close(permuted.flip(2), forecaster(slots, TEXT, 2, 3), atol=1e-5, rtol=0)

    predictor, slots = forecaster_of(name).eval().predictor, torch.randn(2, 3, 4, 8)
    text = predictor.encode_text(TEXT) if predictor.needs_text else None
    swapped = slots[:, [1, 0, 2]]
    assert (predictor(slots, text) - predictor(swapped, text)).abs().max() > 1e-4


@EACH
def test_small_output_scale_starts_by_copying_and_without_residual_the_output_is_the_prediction(name):
    slots = torch.randn(2, 1, 4, 8)
    change, usual = (
        model.eval()(slots, TEXT, 1, 1) - slots
        for model in (forecaster_of(name, output_scale=0.05), forecaster_of(name))
    )
    assert change.norm() < 0.1 * slots.norm() and change.norm() < 0.5 * usual.norm()
    with_residual = forecaster_of(name).eval()(slots, TEXT, 1, 1)
    assert_close(with_residual, forecaster_of(name, residual=False).eval()(slots, TEXT, 1, 1) + slots)


def test_prediction_params_reach_the_forecaster():
    def forecaster(**changes):
        changes = {f"prediction_params.{name}": value for name, value in changes.items()}
        return build_forecaster(experiment_of("VanillaTransformer", changes))

    everything = forecaster(input_buffer_size=None)
    assert everything.buffer_size == 10, "null holds all frames"
    assert everything(torch.randn(2, 1, 4, 8), None, 1, 9).shape == (2, 9, 4, 8)
    assert not forecaster().standardizes
    assert forecaster(standardize_slots=True).slot_mean.shape == (8,)


def test_prediction_follows_the_caption():
    forecaster, slots = forecaster_of("TextOCVP_CustomTF").eval(), torch.randn(2, 1, 4, 8)
    other = Text(TEXT.tokens.roll(1, dims=1) % 49 + 1, TEXT.mask)
    assert (forecaster(slots, TEXT, 1, 2) - forecaster(slots, other, 1, 2)).abs().max() > 1e-5


@pytest.mark.parametrize("original", [False, True])
def test_only_the_originals_experiments_attend_padding(original):
    forecaster, slots = forecaster_of("TextOCVP_CustomTF", original=original).eval(), torch.randn(2, 1, 4, 8)
    padded = forecaster(slots, TEXT, 1, 2)[1:]
    alone = forecaster(slots[1:], Text(TEXT.tokens[1:, :5], TEXT.mask[1:, :5]), 1, 2)
    assert ((padded - alone).abs().max() > 1e-5) == original

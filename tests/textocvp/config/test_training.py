import pytest

from textocvp.config.schema import build
from textocvp.config.training import LossTerm, TrainingConfig
from textocvp.files import ConfigError

SINGLE = {"num_frames": 1, "batch_size": 2}
FALLING = [{"until": 1.0, **SINGLE}, {"until": 0.5, **SINGLE}]


@pytest.mark.parametrize(
    "values, message",
    [
        ({"warmup_steps": 0}, "training.warmup_steps: "),
        ({"clipping_max_value": 0.0}, "training.clipping_max_value: "),
        ({"zero_stage": 4}, "training.zero_stage: .* got 4"),
        ({"zero_stage": True}, "training.zero_stage: .* got true"),
        ({"optimiser": "adam"}, "did you mean 'optimizer'"),
        ({"curriculum": FALLING[:1]}, "training.num_steps: expected a value with a curriculum"),
        ({"num_steps": 9, "curriculum": [{"until": 0.5, **SINGLE}]}, "training.curriculum: .* got 0.5"),
        ({"num_steps": 9, "curriculum": FALLING}, "training.curriculum: expected .until. to rise"),
    ],
)
def test_contradictions_are_named(values, message):
    with pytest.raises(ConfigError, match=message) as error:
        build(TrainingConfig, values, "file.json", "training")
    assert str(error.value).startswith("file.json: training.")


@pytest.mark.parametrize("values", [{"foreground_weight": 1.0}, {"clamp_features": True}])
def test_settings_of_another_loss_are_refused(values):
    message = rf"predictor_loss\[0\].{list(values)[0]}: expected .* with pred_slot_mse, got"
    with pytest.raises(ConfigError, match=message):
        build(LossTerm, {"type": "pred_slot_mse", **values}, "file.json", "predictor_loss[0]")

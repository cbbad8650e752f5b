from __future__ import annotations

import json

import pytest

from textocvp.config.errors import ConfigError
from textocvp.config.registry import DEFAULTS_FOLDER
from textocvp.config.schema import build
from textocvp.config.training import LossTerm, TrainingConfig


def training(**values):
    return build(TrainingConfig, values, "file.json", "training")


def test_defaults_are_the_originals():
    values = json.loads((DEFAULTS_FOLDER / "defaults.json").read_text())["training"]
    assert training(**values) == training()
    assert training().lr == 1e-4 and training().clipping_max_value == 0.05 and training().min_lr == 1e-7


SINGLE = {"num_frames": 1, "batch_size": 2}


@pytest.mark.parametrize(
    "values, message",
    [
        ({"warmup_steps": 0}, "training.warmup_steps"),
        ({"clipping_max_value": 0.0}, "training.clipping_max_value"),
        ({"zero_stage": 4}, "training.zero_stage: 4"),
        ({"optimiser": "adam"}, "did you mean 'optimizer'"),
        ({"curriculum": [{"until": 1.0, **SINGLE}]}, "training.num_steps: a curriculum needs"),
        ({"num_steps": 9, "curriculum": [{"until": 0.5, **SINGLE}]}, "must end at 1, not 0.5"),
        (
            {"num_steps": 9, "curriculum": [{"until": 1.0, **SINGLE}, {"until": 0.5, **SINGLE}]},
            "`until` must rise from part to part",
        ),
    ],
)
def test_contradictions_are_named(values, message):
    with pytest.raises(ConfigError, match=message.replace("`", ".")) as error:
        training(**values)
    assert str(error.value).startswith("file.json: training.")


def test_slots_have_no_foreground():
    with pytest.raises(ConfigError, match="pred_slot_mse has no pixels"):
        build(LossTerm, {"type": "pred_slot_mse", "foreground_weight": 1.0}, "file.json", "predictor_loss[0]")

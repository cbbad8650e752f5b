from __future__ import annotations

import json
from pathlib import Path

import pytest

from textocvp.config.errors import ConfigError
from textocvp.config.models import ConvEncoderConfig, SAViConfig, per_layer
from textocvp.config.predictors import TextOCVPConfig, VanillaTransformerConfig
from textocvp.config.registry import MODELS, PREDICTORS
from textocvp.config.schema import build, to_dict

GOLDEN = Path(__file__).parents[2] / "golden"


def test_defaults_are_the_originals():
    assert build(SAViConfig, MODELS.get("SAVi").read_defaults(), "SAVi.json") == SAViConfig(
        encoder=SAViConfig().encoder.__class__(encoder_params=ConvEncoderConfig(resolution=(64, 64)))
    )


@pytest.mark.parametrize("name", list(PREDICTORS))
def test_predictor_defaults_are_accepted(name):
    values = PREDICTORS.get(name).read_defaults()
    assert values["predictor_name"] == name
    build(PREDICTORS.get(name).load_config(), values["predictor_params"], f"{name}.json")


@pytest.mark.parametrize("case", ["savi_tiny", "savi_tiny_learned"])
def test_written_values_make_the_same_config(case):
    values = json.loads((GOLDEN / f"{case}.json").read_text())["model"]["model_params"]
    config = build(SAViConfig, values, "golden")
    written = json.loads(json.dumps(to_dict(config)))
    assert build(SAViConfig, written, "again") == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_slot": 3}, "m: num_slot: unknown key, did you mean 'num_slots'?"),
        ({"initializer": "LearntRandom"}, "m: initializer: 'LearntRandom' is not allowed, did you mean"),
        ({"slot_dim": 10}, "m: transition_module.num_heads: 4 does not divide slot_dim 10"),
        (
            {"transition_module": {"model_name": "GRU"}},
            "m: transition_module.model_name: 'GRU' is not allowed",
        ),
        (
            {"encoder": {"encoder_name": "ConvEncodr"}},
            "m: encoder.encoder_name: unknown encoder 'ConvEncodr', ",
        ),
        (
            {"encoder": {"encoder_params": {"kernel": 3}}},
            "m: encoder.encoder_params.kernel: unknown key, did you mean 'kernel_size'?",
        ),
        (
            {"encoder": {"encoder_params": {"kernel_size": 4}}},
            "m: encoder.encoder_params.kernel_size: must be odd",
        ),
        (
            {"encoder": {"encoder_params": {"num_channels": [8, 8], "strides": [2]}}},
            "m: encoder.encoder_params.strides: has 1 entries, but num_channels has 2",
        ),
        (
            {"encoder": {"encoder_params": {"strides": 0}}},
            "m: encoder.encoder_params.strides: entries must be at least 1, found 0",
        ),
        (
            {"decoder": {"decoder_params": {"num_channels": []}}},
            "m: decoder.decoder_params.num_channels: needs one positive number of channels per layer",
        ),
        (
            {"decoder": {"decoder_name": "TransposedConvDecoder", "decoder_params": {"upsample": 2}}},
            "m: decoder.decoder_params.upsample: unknown key",
        ),
        (
            {
                "decoder": {
                    "decoder_name": "TransposedConvDecoder",
                    "decoder_params": {"upsample_kernel_size": 3},
                }
            },
            "m: decoder.decoder_params.upsample_kernel_size: must be even, found 3",
        ),
    ],
)
def test_bad_model_values_are_one_clear_line(values, message):
    with pytest.raises(ConfigError) as error:
        build(SAViConfig, values, "m")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_bad_predictor_values():
    with pytest.raises(ConfigError, match="p: n_heads: 3 does not divide the width 128"):
        build(VanillaTransformerConfig, {"n_heads": 3}, "p")
    with pytest.raises(
        ConfigError, match="p: text_encoder_params.num_heads: 5 does not divide the width 128"
    ):
        build(TextOCVPConfig, {"text_encoder_params": {"num_heads": 5}}, "p")


def test_settings_without_effect_warn():
    with pytest.warns(UserWarning, match="downsample_encoder has no effect"):
        build(ConvEncoderConfig, {"downsample_encoder": True}, "m")


def test_one_value_serves_all_layers():
    assert per_layer(3, 2, "kernel_size") == (3, 3)
    assert per_layer((5, 3), 2, "kernel_size") == (5, 3)


def test_original_experiments_attend_padding():
    assert TextOCVPConfig().fusion_params.mask_padding
    assert TextOCVPConfig.original == {"fusion_params.mask_padding": False}
    assert VanillaTransformerConfig.original == {}

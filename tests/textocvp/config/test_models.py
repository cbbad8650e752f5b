import json
from pathlib import Path

import pytest

from textocvp.config.models import ExtendedDINOSAURConfig, SAViConfig, per_layer
from textocvp.config.predictors import TextOCVPConfig, VanillaTransformerConfig
from textocvp.config.schema import apply_overrides, build, to_dict
from textocvp.files import ConfigError

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.mark.parametrize("case", ["savi_tiny", "savi_tiny_learned"])
def test_written_values_make_the_same_config(case):
    values = json.loads((GOLDEN / f"{case}.json").read_text())["model"]["model_params"]
    config = build(SAViConfig, values, "golden")
    written = json.loads(json.dumps(to_dict(config)))
    assert build(SAViConfig, written, "again") == config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("num_slot", 3, "unknown key, did you mean 'num_slots'?"),
        ("initializer", "LearntRandom", "unknown initializer 'LearntRandom', did you mean 'LearnedRandom'?"),
        ("transition_module.num_heads", 3, "expected a divisor of slot_dim 128, got 3"),
        ("transition_module.model_name", "GRU", "unknown transition module 'GRU'; known: TransformerBlock"),
        ("encoder.encoder_name", "ConvEncodr", "unknown encoder 'ConvEncodr', did you mean 'ConvEncoder'?"),
        ("encoder.encoder_params.kernel", 3, "unknown key, did you mean 'kernel_size'?"),
        ("encoder.encoder_params.kernel_size", 4, "expected odd values"),
        ("encoder.encoder_params.strides", [2], "expected 4 values, one per entry of num_channels, got 1"),
        ("encoder.encoder_params.strides", 0, "expected values >= 1, got 0"),
        ("encoder.encoder_params.strides", "2", "expected an integer or a list, got '2'"),
        ("decoder.decoder_params.num_channels", [], "expected one integer >= 1 per layer, got []"),
        ("decoder.decoder_params.upsample_kernel_size", 4, "unknown key, did you mean"),
    ],
)
def test_bad_model_values_are_one_clear_line(path, value, message):
    with pytest.raises(ConfigError) as error:
        build(SAViConfig, apply_overrides({}, {path: value}), "m")
    assert str(error.value).startswith(f"m: {path}: {message}") and "\n" not in str(error.value)


def test_another_decoder_has_its_own_settings():
    transposed = {"decoder_name": "TransposedConvDecoder", "decoder_params": {"upsample_kernel_size": 3}}
    path = "m: decoder.decoder_params"
    with pytest.raises(ConfigError, match=f"{path}.upsample_kernel_size: expected an even value, got 3"):
        build(SAViConfig, {"decoder": transposed}, "m")
    transposed["decoder_params"] = {"upsample": 2}
    with pytest.raises(ConfigError, match=f"{path}.upsample: unknown key"):
        build(SAViConfig, {"decoder": transposed}, "m")


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"img_size": 330}, "img_size: expected a multiple of the patch size 14, got 330"),
        ({"img_size": 28}, "decoder.decoder_params.num_patches: expected 4, "),
        ({"slot_dim": 64}, "decoder.decoder_params.in_dim: expected 64, slot_dim, got 128"),
        ({"mlp_encoder_dim": 32}, "decoder.decoder_params.out_dim: expected 33, "),
        ({"encoder.encoder_name": "vit_base_patch8_224_dino"}, "decoder.decoder_params.patch_size: expected"),
        ({"in_channels": 1}, "in_channels: expected 3, got 1"),
    ],
)
def test_sizes_of_extended_dinosaur_belong_together(changes, path):
    with pytest.raises(ConfigError) as error:
        build(ExtendedDINOSAURConfig, apply_overrides({}, changes), "m")
    assert str(error.value).startswith(f"m: {path}")


@pytest.mark.parametrize(
    ("cls", "values", "path"),
    [
        (VanillaTransformerConfig, {"n_heads": 3}, "n_heads"),
        (TextOCVPConfig, {"text_encoder_params": {"num_heads": 3}}, "text_encoder_params.num_heads"),
        (TextOCVPConfig, {"predictor_params": {"n_heads": 3}}, "predictor_params.n_heads"),
    ],
)
def test_heads_divide_the_width(cls, values, path):
    with pytest.raises(ConfigError, match=f"p: {path}: expected a divisor of .*, got 3"):
        build(cls, values, "p")


def test_one_value_serves_all_layers_and_original_experiments_attend_padding():
    assert per_layer(3, 2, "kernel_size") == (3, 3)
    assert per_layer((5, 3), 2, "kernel_size") == (5, 3)
    assert TextOCVPConfig().fusion_params.mask_padding
    assert TextOCVPConfig.original == {"fusion_params": {"mask_padding": False}}
    assert VanillaTransformerConfig.original == {}

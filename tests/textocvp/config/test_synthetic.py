import pytest

from textocvp.config.schema import build
from textocvp.config.synthetic import VideoSettings, WeightsSettings
from textocvp.files import ConfigError

CATER = {"dataset": "CATER_Hard", "num_train": 5, "num_valid": 2, "num_test": 3, "size": 16, "max_objects": 3}
CLIPORT = {"dataset": "CLIPort", "num_train": 4, "num_valid": 1, "num_test": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({**CATER, "num_train": 0}, "num_train: .* > 0, got 0"),
        ({**CATER, "num_test": 0}, "num_test: .* > 0, got 0"),
        ({**CATER, "num_valid": -1}, "num_valid: .* >= 0, got -1"),
        ({**CATER, "size": 15}, "size: .* >= 16, got 15"),
        ({**CATER, "size": 1025}, "size: .* <= 1024, got 1025"),
        ({**CATER, "size": 16.5}, "size: expected an integer, got 16.5"),
        ({**CATER, "num_frames": 1}, "num_frames: .* >= 2, got 1"),
        ({**CATER, "max_objects": 0}, "max_objects: .* >= 1, got 0"),
        ({**CATER, "max_objects": 11}, "max_objects: .* <= 10, got 11"),
        ({**CATER, "min_objects": 4}, "min_objects: expected at most max_objects 3, got 4"),
        ({**CATER, "max_moving": 3}, "max_moving: .* <= 2, got 3"),
        ({**CATER, "antialias": 0}, "antialias: .* >= 1, got 0"),
        ({**CATER, "object_scale": -1.0}, "object_scale: .* >= 0.2, got -1"),
        ({**CATER, "object_scale": float("nan")}, "object_scale: expected a finite number, got NaN"),
        ({**CATER, "field_of_view": 200.0}, "field_of_view: .* <= 120.0, got 200"),
        ({**CATER, "seed": -1}, "seed: .* >= 0, got -1"),
        ({**CATER, "actions": ["slid"]}, r"actions\[0\]: expected 'slide', .* got 'slid'"),
        ({**CATER, "actions": ""}, "actions: expected at least 1 values"),
        ({**CATER, "actions": "contain", "max_objects": 1}, "max_objects: .* action contain"),
        ({**CATER, "dataset": "CATER_hard"}, "dataset: expected .*CATER_Hard.*, got 'CATER_hard'"),
        ({**CATER, "dataset": "CATER_Easy", "max_objects": 1}, "max_objects: expected none for CATER_Easy"),
        ({**CATER, "dataset": "CATER_Easy", "min_objects": 3}, "max_objects: expected none for CATER_Easy"),
        ({**CLIPORT, "max_objects": 8}, r"max_objects: expected 2 to 7 for CLIPort, got \[4, 8\]"),
        ({**CLIPORT, "min_objects": 5, "max_objects": 4}, "min_objects: .* max_objects 4, got 5"),
        ({**CLIPORT, "actions": ["slide"]}, "actions: expected nothing for CLIPort"),
        ({**CLIPORT, "max_moving": 1}, "max_moving: expected nothing for CLIPort .*, got 1"),
    ],
)
def test_nonsense_is_named(values, message):
    with pytest.raises(ConfigError, match=f"r.yaml: data.{message}") as error:
        build(VideoSettings, values, "r.yaml", "data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("actions", ["slide,pick_place", ["pick-place", "slide"], "pick_place slide slide"])
def test_actions_may_be_a_list_or_a_text_in_any_order(actions):
    settings = build(VideoSettings, {**CATER, "actions": actions}, "r.yaml")
    assert settings.actions == ("slide", "pick_place")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (CATER, (3, 3)),
        ({**CATER, "max_objects": 2}, (2, 2)),
        ({**CATER, "max_objects": 8}, (3, 8)),
        ({**CATER, "dataset": "CATER_Easy"}, (2, 2)),
        (CLIPORT, (4, 5)),
        ({**CLIPORT, "min_objects": 2}, (2, 5)),
    ],
)
def test_settings_json_leaves_nothing_open(values, expected):
    settings = build(VideoSettings, values, "r.yaml")
    written = settings.to_json()
    assert settings.num_objects == (written["min_objects"], written["max_objects"]) == expected
    assert written["format"] == 1 and ("actions" in written) == (values["dataset"] != "CLIPort")


def test_heads_divide_the_width():
    with pytest.raises(ConfigError, match="weights.t5.num_heads: expected a divisor of width 8, got 3"):
        build(WeightsSettings, {"kind": "t5", "width": 8, "num_heads": 3}, "r.yaml", "weights.t5")

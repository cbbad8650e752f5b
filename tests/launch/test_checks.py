"""What is wrong with a recipe is told before anything is submitted, in one line that names its file."""

from __future__ import annotations

import pytest

from launch.cli import main
from textocvp.config.training import CRITERIA

DECOMPOSITION = {"model": "SAVi", "dataset": "CATER_Hard"}
DATA = {"dataset": "CATER_Hard", "num_train": 4, "num_valid": 1, "num_test": 1}
WIDE = {"dataset.img_size": [32, 32]}
SMALL_TEXT = {"predictor.predictor_params.text_encoder_params.vocab_size": 20}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"decomposition": {**DECOMPOSITION, "select": "backgroud_mass"}},
            "decomposition.select: 'backgroud_mass' is no criterion, did you mean 'background_mass'",
        ),
        ({"data": {**DATA, "actions": ["slid"]}}, "data: unknown action 'slid', did you mean 'slide'"),
        ({"data": {**DATA, "max_objects": 99}}, "data: max_objects=99: must be from 1 to 10"),
        (
            {"data": {**DATA, "num_frames": 8}},
            "decomposition: clips of 8 frames from frame 1 do not fit into the recipe's data.num_frames 8",
        ),
        (
            {"data": {**DATA, "num_frames": 10}},
            "predictors/text: num_context + num_preds of 10 frames from frame 1",
        ),
        (
            {"decomposition": {**DECOMPOSITION, "set": WIDE}},
            "model.model_params.decoder: makes frames of [64, 64]",
        ),
        (
            {"decomposition": {**DECOMPOSITION, "set": {"training.lr": "1e-3"}}},
            "training.lr: '1e-3' is not allowed, number is needed; write 0.001",
        ),
        (
            {"decomposition": {**DECOMPOSITION, "model": "SAVI"}},
            "unknown decomposition model 'SAVI', did you mean 'SAVi'",
        ),
        (
            {"predictors": [{"name": "text", "predictor": "TextOCVP_CustomTF", "set": SMALL_TEXT}]},
            "vocab_size: 20, but the vocabulary of CATER_Hard has 50 words",
        ),
        (
            {"weights": {"vit": {"kind": "dinov3"}}},
            "weights.vit.kind: 'dinov3' is not allowed, did you mean 'dinov2'",
        ),
    ],
)
def test_a_wrong_recipe_is_one_line(small_recipe, capsys, changes, message):
    path = small_recipe(**changes)
    assert main(["plan", "--recipe", str(path), "--cluster", "local"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(path) in error and message in error


def test_a_folder_is_no_recipe(tmp_path, capsys):
    assert main(["plan", "--recipe", str(tmp_path), "--cluster", "local"]) == 2
    assert "is a folder, expected a YAML file" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--lines", "-3"], ["--task", "abc"]])
def test_numbers_of_the_log_command(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["logs", "--exp", "x", "--stage", "report", *option])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and "is no whole number from 0 on" in error


def test_criteria_are_those_that_exist():
    from textocvp.evaluation import select as criteria

    assert tuple(criteria.CRITERIA) == CRITERIA

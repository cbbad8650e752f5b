"""The formulas against the models themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from launch.recipe import experiment_files, load_recipe
from textocvp.config.experiment import experiment_values, parse_experiment, predictor_values
from textocvp.config.registry import MODELS, PREDICTORS
from textocvp.config.sizes import Size, linear, model_size, predictor_size
from textocvp.decomposition import build_model
from textocvp.predictors import build_forecaster

RECIPES = Path(__file__).parents[3] / "experiments" / "recipes"
DATASETS = {"ExtendedDINOSAUR": "CLIPort"}


def assert_right(size, model):
    real = [p.numel() for p in model.parameters() if p.requires_grad]
    assert abs(size.values - sum(real)) < 0.01 * sum(real)
    assert abs(size.tensors - len(real)) <= 1


@pytest.mark.parametrize("name", list(MODELS))
def test_default_models(name):
    values = experiment_values(name, DATASETS.get(name, "CATER_Hard"), {})
    experiment = parse_experiment(values, "test")
    assert_right(model_size(experiment), build_model(experiment, pretrained=False))


@pytest.mark.parametrize("name", list(PREDICTORS))
def test_default_predictors(name):
    values = predictor_values(experiment_values("SAVi", "CATER_Hard", {}), name, {})
    experiment = parse_experiment(values, "test")
    assert_right(predictor_size(experiment), build_forecaster(experiment, pretrained=False))


@pytest.mark.parametrize("name", ["smoke", "demo"])
def test_recipes(name):
    for folder, values in experiment_files(load_recipe(RECIPES / f"{name}.yaml"), None).items():
        experiment = parse_experiment(values, folder)
        if experiment.predictor is None:
            assert_right(model_size(experiment), build_model(experiment, pretrained=False))
        else:
            assert_right(predictor_size(experiment), build_forecaster(experiment, pretrained=False))


def test_the_recipe_with_frozen_encoders(tmp_path):
    from textocvp.synthetic.weights import make_weights

    recipe = load_recipe(RECIPES / "cliport_smoke.yaml")
    for name, weights in recipe.weights.items():
        sizes = {key: value for key, value in vars(weights).items() if value is not None}
        make_weights(out=tmp_path / "weights" / name, **sizes)
    files = experiment_files(recipe, None)
    own = parse_experiment(files[""], "own")
    assert_right(model_size(own), build_model(own, tmp_path))
    experiment = parse_experiment(files["predictors/TextOCVP_T5"], "predictor")
    folder = tmp_path / "predictors" / "TextOCVP_T5"
    assert_right(predictor_size(experiment, recipe.weights["t5"].width), build_forecaster(experiment, folder))


def test_a_class_without_a_formula_is_not_known():
    @dataclass(frozen=True)
    class Own:
        slot_dim: int = 3

    experiment = parse_experiment(experiment_values("SAVi", "CATER_Hard", {}), "test")
    assert model_size(replace(experiment, model=replace(experiment.model, model_params=Own()))) is None
    values = predictor_values(experiment_values("SAVi", "CATER_Hard", {}), "OCVPSeq", {})
    experiment = parse_experiment(values, "test")
    section = replace(experiment.predictor, predictor_params=Own())
    assert predictor_size(replace(experiment, predictor=section)) is None


def test_layers():
    assert linear(3, 4) + linear(3, 4, bias=False, kernel=2) == Size(16 + 48, 3)
    assert linear(3, 4).times(2) == Size(32, 4)

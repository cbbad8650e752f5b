from __future__ import annotations

import json

import pytest

from textocvp.config import experiment as module
from textocvp.config.errors import ConfigError, UserError
from textocvp.config.registry import DATASETS, MODELS, PREDICTORS
from textocvp.config.schema import apply_overrides


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("dataset", list(DATASETS))
def test_created_experiment_is_complete_and_loads_back(tmp_path, model, dataset):
    folder = module.create_experiment(tmp_path, "exp", model, dataset, ["training.lr=0.003"])
    loaded = module.load_experiment(folder)
    assert loaded.model.model_name == model and loaded.dataset.dataset_name == dataset
    assert loaded.training.lr == 0.003 and loaded.suite.version == 1 and loaded.predictor is None
    written = json.loads((folder / "experiment_params.json").read_text())
    assert written["training"]["clipping_max_value"] == 0.05, "the defaults are written out"


@pytest.mark.parametrize("predictor", list(PREDICTORS))
def test_predictor_experiment_inherits_model_and_data(tmp_path, predictor):
    folder = module.create_experiment(
        tmp_path, "exp", "SAVi", "CATER_Hard", ["model.model_params.num_slots=5"]
    )
    module.create_predictor_experiment(folder, "pred", predictor, ["prediction_params.num_preds=3"])
    loaded = module.load_predictor_experiment(folder, "pred")
    assert loaded.predictor.predictor_name == predictor
    assert loaded.model.model_params.num_slots == 5 and loaded.prediction_params.num_preds == 3


def test_custom_text_encoder_gets_its_own_tokenizer(tmp_path):
    folder = module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
    module.create_predictor_experiment(folder, "pred", "TextOCVP_CustomTF")
    assert module.load_predictor_experiment(folder, "pred").dataset.tokenizer == "CustomTokenizer"


def test_creating_again_is_harmless_but_another_configuration_is_refused(tmp_path):
    folder = module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
    before = (folder / "experiment_params.json").read_bytes()
    module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
    with pytest.raises(UserError, match=r"exists with another configuration \(training.lr: 0.0001 -> 0.1\)"):
        module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard", ["training.lr=0.1"])
    assert (folder / "experiment_params.json").read_bytes() == before


def _edit(folder, **changes):
    path = folder / "experiment_params.json"
    path.write_text(json.dumps(apply_overrides(json.loads(path.read_text()), changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainin": {}}, "trainin: unknown key, did you mean 'training'?"),
        ({"training.lrr": 1}, "training.lrr: unknown key, did you mean 'lr'?"),
        (
            {"model.model_name": "SAVI"},
            "model.model_name: unknown decomposition model 'SAVI', did you mean 'SAVi'?",
        ),
        ({"dataset.dataset_name": "CATER"}, "dataset.dataset_name: unknown data set 'CATER', did you mean"),
        (
            {"model.model_params.num_slot": 2},
            "model.model_params.num_slot: unknown key, did you mean 'num_slots'?",
        ),
        ({"loss": {}}, "loss: {} is not allowed, a list of loss terms is needed"),
        ({"suite.version": 2}, "suite.version: 2 is not allowed"),
    ],
)
def test_errors_name_file_and_path(tmp_path, changes, message):
    folder = module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
    _edit(folder, **changes)
    with pytest.raises(ConfigError) as error:
        module.load_experiment(folder)
    assert str(error.value).startswith(f"{folder / 'experiment_params.json'}: {message}")


def test_an_experiment_of_the_original_loads_with_defaults_and_warnings(tmp_path):
    values = {
        "dataset": DATASETS.get("CATER_Hard").read_defaults(),
        "model": {"model_name": "SAVi", "model_params": MODELS.get("SAVi").read_defaults()},
        "predictor": {"predictor_name": "", "predictor_params": {}},
        "training": {"lr": 0.5, "old_option": 3},
        "_general": {"created": "2025"},
    }
    (tmp_path / "experiment_params.json").write_text(json.dumps(values))
    with pytest.warns(UserWarning, match="training.old_option: unknown key, left out"):
        loaded = module.load_experiment(tmp_path)
    assert loaded.suite is None and loaded.training.lr == 0.5 and loaded.training.warmup_steps == 2000


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(
        UserError, match="no such file; create one with `python -m textocvp create-experiment`"
    ):
        module.load_experiment(tmp_path)
    (tmp_path / "experiment_params.json").write_text("{")
    with pytest.raises(UserError, match="experiment_params.json: damaged, not valid JSON"):
        module.load_experiment(tmp_path)


def test_missing_predictor_names_the_nearest(tmp_path):
    folder = module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
    module.create_predictor_experiment(folder, "vanilla", "VanillaTransformer")
    with pytest.raises(UserError, match="no such predictor experiment, did you mean 'vanilla'?"):
        module.load_predictor_experiment(folder, "vanila")


def test_predictor_of_another_model_is_refused(tmp_path):
    folder = module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
    module.create_predictor_experiment(folder, "p", "VanillaTransformer")
    _edit(folder, **{"model.model_params.num_slots": 3})
    with pytest.raises(ConfigError, match="model: differs from .*whose slots it predicts"):
        module.load_predictor_experiment(folder, "p")


def test_data_root_inside_the_experiment_comes_first(tmp_path, monkeypatch):
    folder = module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard", ["dataset.root=data"])
    config = module.load_experiment(folder).dataset
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="data: no such data folder; set dataset.root in"):
        module.dataset_root(config, folder)
    (tmp_path / "data").mkdir()
    assert module.dataset_root(config, folder).resolve() == tmp_path / "data"
    (folder / "data").mkdir()
    assert module.dataset_root(config, folder / "seeds" / "0") == folder / "data"


@pytest.mark.parametrize("name", ["dataset", "model", "predictor", "training", "prediction_params", "suite"])
@pytest.mark.parametrize("value", [3, [1]])
def test_a_section_that_is_none_is_named(name, value):
    values = {"dataset": {"dataset_name": "CATER_Hard"}, "model": {"model_name": "SAVi"}, "suite": {}}
    with pytest.raises(ConfigError, match=rf"f.json: {name}: .* is no section of names and values"):
        module.parse_experiment({**values, name: value}, "f.json")
    with pytest.raises(ConfigError, match="f.json: the file: .* is no section of names and values"):
        module.parse_experiment(value, "f.json")

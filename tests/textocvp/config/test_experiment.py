import json
from pathlib import Path

import pytest

from textocvp.config import experiment as module
from textocvp.config.models import DecompositionConfig, SAViConfig
from textocvp.config.registry import DATASETS, MODELS, PREDICTORS
from textocvp.config.schema import apply_overrides, difference, to_dict
from textocvp.data.readers import CATER
from textocvp.decomposition import SlotDecomposition, build_model
from textocvp.files import ConfigError, UserError

ORIGINAL = json.loads((Path(__file__).parent / "original_defaults.json").read_text())
"""The original's default files."""


def assert_says(values, expected):
    """Every value of the original, apart from those it never uses, is among ours."""
    assert list(difference(expected, values, known_only=True)) == []


@pytest.fixture
def folder(tmp_path):
    """A new experiment."""
    return module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")


def of_original(dataset, model, **sections):
    """Sections of an experiment as the original writes them."""
    section = {"model_name": model, "model_params": ORIGINAL["models"][model]}
    return {"dataset": ORIGINAL["datasets"][dataset], "model": section, **sections}


@pytest.mark.parametrize("model", list(MODELS))
@pytest.mark.parametrize("dataset", list(DATASETS))
def test_a_new_experiment_has_the_originals_defaults_and_loads_back(tmp_path, model, dataset):
    folder = module.create_experiment(tmp_path, "exp", model, dataset, ["training.seed=3"])
    loaded = module.load_experiment(folder)
    assert loaded.model.model_name == model and loaded.dataset.dataset_name == dataset
    assert loaded.training.seed == 3 and loaded.suite.version == 1 and loaded.predictor is None
    written = json.loads((folder / "experiment_params.json").read_text())
    assert_says(written["dataset"], ORIGINAL["datasets"][dataset])
    assert_says(written["model"]["model_params"], ORIGINAL["models"][model])
    assert_says(written["training"], ORIGINAL["defaults"]["training"])
    assert_says(written["prediction_params"], ORIGINAL["defaults"]["prediction_params"])
    assert written["loss"][0]["type"] == ORIGINAL["defaults"]["loss"][0]["type"]


@pytest.mark.parametrize("predictor", list(PREDICTORS))
def test_a_new_predictor_experiment_inherits_model_and_data(tmp_path, predictor):
    slots = ["model.model_params.num_slots=5"]
    folder = module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard", slots)
    module.create_predictor_experiment(folder, "pred", predictor, ["prediction_params.num_preds=3"])
    loaded = module.load_predictor_experiment(folder, "pred")
    assert loaded.model.model_params.num_slots == 5 and loaded.prediction_params.num_preds == 3
    assert predictor != "TextOCVP_CustomTF" or loaded.dataset.tokenizer == "CustomTokenizer"
    written = json.loads((folder / "predictors/pred/experiment_params.json").read_text())
    assert_says(written["predictor"], ORIGINAL["predictors"][predictor])
    for term, original in zip(written["predictor_loss"], ORIGINAL["defaults"]["predictor_loss"]):
        assert_says(term, original)


def test_creating_again_is_harmless_but_another_configuration_is_refused(folder, tmp_path, capsys):
    before = (folder / "experiment_params.json").read_bytes()
    module.create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard")
    assert "already exists, unchanged" in capsys.readouterr().out
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
        ({"model.model_name": "SAVI"}, "model.model_name: unknown decomposition model 'SAVI', did you mean"),
        ({"dataset.dataset_name": "CATER"}, "dataset.dataset_name: unknown data set 'CATER', did you mean"),
        (
            {"model.model_params.num_slot": 2},
            "model.model_params.num_slot: unknown key, did you mean 'num_sl",
        ),
        ({"loss": {}}, "loss: expected a list, got {}"),
        ({"loss": []}, "loss: expected at least 1 values, got []"),
        ({"loss": [{"type": "mse"}, {"type": "mes"}]}, "loss[1].type: expected 'mse'"),
        ({"suite.version": 2}, "suite.version: expected a value <= 1, got 2"),
    ],
)
def test_errors_name_file_and_path(folder, changes, message):
    _edit(folder, **changes)
    with pytest.raises(ConfigError) as error:
        module.load_experiment(folder)
    assert str(error.value).startswith(f"{folder / 'experiment_params.json'}: {message}")


def test_an_experiment_of_the_original_loads_with_defaults_and_warnings(tmp_path, caplog):
    sections = {"training": {"lr": 0.5, "old_option": 3}, "_general": {"created": "2025"}}
    none = {"predictor_name": "", "predictor_params": {}}
    values = of_original("CATER_Hard", "SAVi", predictor=none, **sections)
    (tmp_path / "experiment_params.json").write_text(json.dumps(values))
    loaded = module.load_experiment(tmp_path)
    assert "training.old_option: unknown key, left out" in caplog.text
    assert loaded.suite is None and loaded.training.lr == 0.5 and loaded.training.warmup_steps == 2000


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(UserError, match="no such file; .*`python -m textocvp create-experiment`"):
        module.load_experiment(tmp_path)
    (tmp_path / "experiment_params.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"experiment_params.json: .*expected a section .*got \[\]"):
        module.create_predictor_experiment(tmp_path, "pred", "OCVPSeq")
    (tmp_path / "experiment_params.json").write_text("{")
    with pytest.raises(UserError, match="experiment_params.json: damaged, not valid JSON"):
        module.load_experiment(tmp_path)


def test_missing_predictor_names_the_nearest_and_one_of_another_model_is_refused(folder):
    module.create_predictor_experiment(folder, "vanilla", "VanillaTransformer")
    with pytest.raises(UserError, match="no such predictor experiment, did you mean 'vanilla'?"):
        module.load_predictor_experiment(folder, "vanila")
    _edit(folder, **{"model.model_params.num_slots": 3})
    with pytest.raises(
        ConfigError, match=r"vanilla/exp.*: model.model_params.num_slots: .* 3 as in .*got \d"
    ):
        module.load_predictor_experiment(folder, "vanilla")


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
def test_a_section_that_is_a_value_is_named(name, value):
    values = {"dataset": {"dataset_name": "CATER_Hard"}, "model": {"model_name": "SAVi"}, "suite": {}}
    with pytest.raises(ConfigError, match=rf"f.json: {name}: expected a section"):
        module.parse_experiment({**values, name: value}, "f.json")
    with pytest.raises(ConfigError, match="f.json: the file: expected a section"):
        module.parse_experiment(value, "f.json")


def test_keys_without_effect_of_earlier_revisions_are_dropped(caplog):
    values = of_original("CLIPort", "SAVi", suite={})
    assert values["model"]["model_params"]["encoder"]["encoder_params"]["downsample"] == 2
    experiment = module.parse_experiment(values, "f.json")
    assert "downsample" not in json.dumps(to_dict(experiment)) and not caplog.records
    with pytest.raises(ConfigError, match="f.json: training.downsample: unknown key"):
        module.parse_experiment({**values, "training": {"downsample": 2}}, "f.json")


def test_the_originals_files_keep_the_originals_meaning():
    loss = [{"type": "mse", "weight": 1}, {"type": "pred_feature_mse", "weight": 1}]
    predictor = ORIGINAL["predictors"]["TextOCVP_T5"]
    values = of_original("CLIPort", "ExtendedDINOSAUR", predictor=predictor, loss=loss)
    for suite, original in (({}, True), ({"suite": {}}, False)):
        experiment = module.parse_experiment({**values, **suite}, "f.json")
        assert experiment.predictor.predictor_params.fusion_params.mask_padding is not original
        normalization = experiment.model.model_params.encoder.encoder_params.normalization
        assert normalization == ("mean" if original else "imagenet")
        assert [term.clamp_features for term in experiment.loss] == [False, original]


class OwnConfig(DecompositionConfig):
    """Settings of a model from elsewhere."""

    builds = f"{__name__}:OwnModel"
    depth: int = 2


class OwnModel(SlotDecomposition):
    config_class = OwnConfig


@pytest.mark.parametrize("name", [f"{__name__}:OwnModel", f"{__name__}:OwnConfig"])
def test_a_class_from_anywhere_on_the_path_can_be_named(name):
    values = module.experiment_values(name, "CATER_Hard", {"model.model_params.depth": 3})
    section = module.parse_experiment(values, "f.json").model
    assert isinstance(section.model_params, OwnConfig) and section.model_params.depth == 3
    assert MODELS.get(section.model_name).load() is OwnModel
    with pytest.raises(UserError, match="nowhere:Model: cannot be imported"):
        module.experiment_values("nowhere:Model", "CATER_Hard", {})


class WrongConfig(SAViConfig):
    builds = "json:JSONDecoder"


@pytest.mark.parametrize(
    ("path", "name", "part"),
    [
        ("model.model_name", "json:JSONDecoder", "SlotDecomposition"),
        ("model.model_name", f"{__name__}:OwnDataset", "SlotDecomposition"),
        ("model.model_name", "textocvp.config.models:DecompositionConfig", "builds"),
        ("predictor.predictor_name", "json:dumps", "SlotPredictor"),
        ("dataset.dataset_name", "json:JSONDecoder", "read_frames"),
    ],
)
def test_a_class_of_another_kind_is_refused(folder, path, name, part):
    _edit(folder, **{path: name})
    with pytest.raises(ConfigError) as error:
        module.load_experiment(folder)
    assert all(part in str(error.value) for part in ("experiment_params.json", path, name, part))


class OwnDataset(CATER):
    """A data set from elsewhere."""


def test_a_class_that_only_its_settings_name_is_checked_when_it_is_built(folder):
    assert DATASETS.get(f"{__name__}:OwnDataset").load() is OwnDataset
    _edit(folder, **{"model.model_name": f"{__name__}:WrongConfig"})
    with pytest.raises(
        UserError, match="json:JSONDecoder: expected a decomposition model.*SlotDecomposition"
    ):
        build_model(module.load_experiment(folder))


@pytest.mark.parametrize(
    ("model", "changes", "message"),
    [
        ("SAVi", {"dataset.img_size": [32, 32]}, r"decoder: .*dataset.img_size \[32, 32\].* got \[64, 64\]"),
        (
            "SAVi",
            {"model.model_params.encoder.encoder_params.resolution": [32, 32]},
            r"encoder.encoder_params.resolution: .*got \[32, 32\]",
        ),
        ("ExtendedDINOSAUR", {"dataset.img_size": [336, 350]}, r"img_size: .*\[336, 350\].* got 336"),
    ],
)
def test_a_model_that_does_not_fit_the_frames_is_named(model, changes, message):
    values = module.experiment_values(model, "CLIPort" if model != "SAVi" else "CATER_Hard", {})
    module.check_fit(module.parse_experiment(values, "f.json"), "f.json")
    wrong = module.parse_experiment(apply_overrides(values, changes), "f.json")
    with pytest.raises(ConfigError, match=f"f.json: model.model_params.{message}"):
        module.check_fit(wrong, "f.json")

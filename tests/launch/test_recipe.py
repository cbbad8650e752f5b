import json
from pathlib import Path

import pytest
import yaml

from launch.cli import main
from launch.recipe import experiment_files, load_recipe, write_experiment
from textocvp.config.experiment import load_experiment, load_predictor_experiment
from textocvp.files import UserError

RECIPES = sorted((Path(__file__).parents[2] / "experiments" / "recipes").glob("*.yaml"))
DECOMPOSITION = {"model": "SAVi", "dataset": "CATER_Hard"}
DATA = {"dataset": "CATER_Hard", "num_train": 4, "num_valid": 1, "num_test": 1}
TEXT_ENCODER = "predictor.predictor_params.text_encoder_params"


def decomposition(**changes):
    return {"decomposition": {**DECOMPOSITION, **changes}}


def predictors(**changes):
    return {"predictors": [{"name": "text", "predictor": "TextOCVP_CustomTF", **changes}]}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_becomes_experiment_folders_that_load(path, tmp_path):
    recipe = load_recipe(path)
    write_experiment(tmp_path, experiment_files(recipe, None), path)
    assert load_experiment(tmp_path).suite is not None
    for seed in recipe.decomposition.seeds:
        assert load_experiment(tmp_path / "seeds" / str(seed)).training.seed == seed
    for each in recipe.predictors:
        loaded = load_predictor_experiment(tmp_path, each.name)
        assert loaded.predictor.predictor_name == each.predictor
    assert (tmp_path / "recipe.yaml").read_text() == path.read_text()


def test_what_a_recipe_says_reaches_the_folders(small_recipe, tmp_path):
    recipe = load_recipe(small_recipe(**predictors(seeds=[1, 4], set={"training.lr": 0.5})))
    files = experiment_files(recipe, None)
    text = [f"predictors/text{folder}" for folder in ("", "/seeds/1", "/seeds/4")]
    assert sorted(files) == ["", *text, "seeds/3", "seeds/7"]
    assert files[""]["training"]["num_steps"] == 5
    assert files[""]["suite"]["slots"]["stride"] == 2
    assert files[""]["dataset"]["root"] == "data"
    assert files["seeds/7"]["training"]["seed"] == 7
    assert files["predictors/text/seeds/4"]["training"]["seed"] == 4
    assert files["predictors/text/seeds/4"]["training"]["lr"] == 0.5
    assert files["predictors/text"]["model"] == files[""]["model"]


def test_where_data_that_is_not_generated_lies_is_the_sites_and_may_change(small_recipe, tmp_path):
    recipe = load_recipe(small_recipe(data=None))
    assert experiment_files(recipe, "/site/cater")[""]["dataset"]["root"] == "/site/cater"
    assert experiment_files(recipe, None)[""]["dataset"]["root"] == "./datasets/CATER"

    write_experiment(tmp_path, experiment_files(recipe, "/old"))
    write_experiment(tmp_path, experiment_files(recipe, "/new"))
    assert json.loads((tmp_path / "experiment_params.json").read_text())["dataset"]["root"] == "/new"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"slotz": {}}, ("slotz: unknown key", "'slots'")),
        ({"name": "../x"}, ("name: ", "'../x'")),
        ({"name": "a\nb"}, ("name: ", "control character")),
        ({"slots": {"mode": "stor"}}, ("slots.mode: ", "'store'", "stor")),
        ({"slots": {"shards": 0}}, ("slots.shards: ", "> 0", "got 0")),
        ({"decomposition": {"model": "SAVi"}}, ("decomposition.dataset: missing",)),
        (decomposition(seeds=[1, 1]), ("decomposition.seeds: ", "distinct", "[1, 1]")),
        (decomposition(dataset="CATER_Easy"), ("data.dataset: ", "'CATER_Hard'", "'CATER_Easy'")),
        ({"predictors": 2 * predictors()["predictors"]}, ("predictors: ", "distinct names", "text")),
        (decomposition(select="backgroud_mass"), ("decomposition.select: ", "'background_mass'")),
        ({"data": {**DATA, "actions": ["slid"]}}, ("data.actions[0]: ", "'slid'", "'slide'")),
        ({"data": {**DATA, "max_objects": 99}}, ("data", "max_objects", "99", "10")),
        ({"data": {**DATA, "num_frames": 8}}, ("decomposition: ", "clips of 8 frames", "data.num_frames, 8")),
        ({"data": {**DATA, "num_frames": 10}}, ("predictors/text: ", "num_context + num_preds of 10 frames")),
        (decomposition(set={"dataset.img_size": [32, 32]}), ("model.model_params.decoder: ", "[64, 64]")),
        (
            decomposition(set={"training.lr": "1e-3"}),
            ("decomposition.set.training.lr: ", "1e-3", "write 0.001"),
        ),
        (
            decomposition(set={"training.lrr": 1}),
            ("decomposition.set.training.lrr: unknown key, did you mean 'lr'",),
        ),
        (decomposition(set={"loss.a": 1}), ("decomposition.set.loss.a: ",)),
        (predictors(set={"training.lr": "x"}), ("predictors[0].set.training.lr: ", "'x'")),
        (predictors(predictor="OCVP"), ("predictors[0].predictor: ", "'OCVP'")),
        (decomposition(dataset="CATER"), ("decomposition.dataset: ", "'CATER'")),
        (decomposition(model="SAVI"), ("decomposition.model: ", "'SAVI'", "did you mean 'SAVi'")),
        (predictors(set={f"{TEXT_ENCODER}.vocab_size": 20}), ("vocab_size: ", "20", "50")),
        ({"weights": {"vit": {"kind": "dinov3"}}}, ("weights.vit.kind: ", "'dinov2'", "dinov3")),
        ({"checks": {"decomposition.ari": {"mini": 1}}}, ("checks.decomposition.ari.mini: ", "'min'")),
    ],
)
def test_a_wrong_recipe_is_one_line(small_recipe, capsys, changes, parts):
    path = small_recipe().with_name("wrong.yaml")
    path.write_text(yaml.safe_dump({**yaml.safe_load(small_recipe().read_text()), **changes}))
    assert main(["plan", "--recipe", str(path), "--cluster", "local"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and all(part in error for part in (str(path), *parts)), error


def test_unreadable_recipes(tmp_path):
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "empty_list.yaml").write_text("[]\n")
    problems = {"none": "no such file", "bad": "valid YAML", "list": "section", "empty_list": r"got \[\]"}
    named = {f"{name}.yaml": problem for name, problem in problems.items()}
    for name, problem in {**named, ".": "is a folder"}.items():
        with pytest.raises(UserError, match=f"{tmp_path / name}: .*{problem}"):
            load_recipe(tmp_path / name)


def test_a_folder_with_another_config_is_refused_and_the_difference_shown(small_recipe, tmp_path):
    root = tmp_path / "exp"
    write_experiment(root, experiment_files(load_recipe(small_recipe()), None))
    before = (root / "seeds" / "3" / "experiment_params.json").read_text()
    values = yaml.safe_load(small_recipe().read_text())["decomposition"]
    values["set"]["training.num_steps"] = 6
    files = experiment_files(load_recipe(small_recipe(decomposition=values)), None)
    with pytest.raises(UserError, match=r"exists with another config \(training.num_steps: 5 -> 6\)"):
        write_experiment(root, files)
    assert (root / "seeds" / "3" / "experiment_params.json").read_text() == before
    write_experiment(root, files, replace=True)
    for folder in (root, root / "seeds" / "3"):
        assert json.loads((folder / "experiment_params.json").read_text())["training"]["num_steps"] == 6

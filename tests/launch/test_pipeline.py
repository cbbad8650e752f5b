import json

import pytest

from launch.pipeline import from_folder, from_recipe, shorten, with_decomposition_seeds, with_predictors
from launch.recipe import load_recipe, write_experiment
from launch.state.task import TaskId
from textocvp.config.experiment import create_experiment, create_predictor_experiment
from textocvp.files import UserError


@pytest.fixture
def by_hand(tmp_path):
    """An experiment made with the commands of the original, without a recipe."""
    folder = create_experiment(tmp_path, "mine", "SAVi", "CATER_Hard")
    create_predictor_experiment(folder, "a", "VanillaTransformer")
    create_predictor_experiment(folder, "b", "TextOCVP_CustomTF")
    return folder


def test_a_folder_made_from_a_recipe_is_the_same_pipeline(written, small_recipe, tmp_path):
    assert from_folder(written) == from_recipe(load_recipe(small_recipe()), tmp_path, None)


def test_a_folder_of_an_earlier_revision_keeps_its_keys_without_effect(written, small_recipe, tmp_path):
    path = written / "seeds" / "3" / "experiment_params.json"
    values = json.loads(path.read_text())
    values["model"]["model_params"]["encoder"]["encoder_params"]["downsample"] = 2
    path.write_text(json.dumps(values))
    assert from_recipe(load_recipe(small_recipe()), tmp_path, None).files["seeds/3"] == values
    values["training"]["num_steps"] = 6
    path.write_text(json.dumps(values))
    assert from_recipe(load_recipe(small_recipe()), tmp_path, None).files["seeds/3"] != values


def test_a_folder_made_by_hand(by_hand):
    pipeline = from_folder(by_hand)
    assert (pipeline.seeds, pipeline.predictors, pipeline.data, pipeline.shards) == ((), ("a", "b"), None, 1)
    seeded = with_decomposition_seeds(pipeline, (0, 2))
    assert seeded.decomposition_folders == ("seeds/0", "seeds/2")
    assert seeded.files["seeds/2"]["training"]["seed"] == 2
    write_experiment(by_hand, seeded.files)
    assert from_folder(by_hand).seeds == (0, 2)
    one = with_predictors(pipeline, "b", (1, 2))
    assert (one.predictors, one.only) == (("a", "b/seeds/1", "b/seeds/2"), "b")
    assert one.skipped == {TaskId("train_predictor", 0), TaskId("evaluate_predictor", 0)}
    write_experiment(by_hand, one.files)
    assert from_folder(by_hand).predictors == ("a", "b/seeds/1", "b/seeds/2")


def test_unknown_names_and_a_damaged_seed(by_hand, tmp_path):
    with pytest.raises(UserError, match=r"no such experiment, did you mean 'mine'\?"):
        from_folder(tmp_path / "mini")
    with pytest.raises(UserError, match="predictors/aa: no such predictor experiment"):
        with_predictors(from_folder(by_hand), "aa", ())
    with pytest.raises(UserError, match="distinct integers"):
        with_decomposition_seeds(from_folder(by_hand), (1, 1))

    folder = by_hand / "seeds" / "0"
    folder.mkdir(parents=True)
    (folder / "experiment_params.json").write_text("{")
    with pytest.raises(UserError, match=r"seeds/0/experiment_params\.json: damaged"):
        from_folder(by_hand)


def test_paths_below_the_current_folder_are_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(shorten(tmp_path / "a" / "b")) == "a/b"
    assert shorten(tmp_path.parent / "c") == tmp_path.parent / "c"

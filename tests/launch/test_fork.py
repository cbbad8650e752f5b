"""Variants of an experiment, run with a stand-in for the work."""

import json
import shutil

import pytest
import yaml

from launch import fork as forking
from launch.cli import main

from .conftest import done


@pytest.fixture
def base(finished_stub, tmp_path):
    """A copy of a finished experiment."""
    return shutil.copytree(finished_stub, tmp_path / "base")


@pytest.fixture
def variant(tmp_path):
    return tmp_path / "variant"


def fork(base, to, values, *more):
    return main(["fork", "--exp", str(base), "--to", str(to), "--set", values, *more])


def config(root, folder=""):
    return json.loads((root / folder / "experiment_params.json").read_text())


def test_another_decomposition_takes_over_the_data_alone(base, variant, capsys):
    assert fork(base, variant, "training.lr=0.5 dataset.num_frames=4") == 0
    assert "reused make-data[0]; 13 tasks to run: make pipeline EXP=" in capsys.readouterr().out
    assert done(variant) == ["make_data/0"]
    assert config(variant)["training"]["lr"] == config(variant, "seeds/3")["training"]["lr"] == 0.5
    assert config(variant, "predictors/vanilla")["training"] == config(base, "predictors/vanilla")["training"]
    assert config(variant, "predictors/vanilla")["dataset"]["num_frames"] == 4
    recipe = yaml.safe_load((variant / "recipe.yaml").read_text())
    assert recipe["name"] == "variant" and recipe["decomposition"]["set"]["training.lr"] == 0.5


def test_a_predictor_variant_runs_what_it_changes_without_its_base(base, variant, local_site, capsys):
    assert fork(base, variant, "training.lr=0.5", "--pred", "vanilla") == 0
    missing = set(done(base)) - set(done(variant))
    assert missing == {"train_predictor/1", "evaluate_predictor/1", "figures/0", "report/0"}
    assert config(variant, "predictors/vanilla")["training"]["lr"] == 0.5
    assert config(variant, "predictors/text") == config(base, "predictors/text")
    shutil.rmtree(base)
    assert main(["pipeline", "--exp", str(variant), "--cluster", local_site()]) == 0
    assert "14 tasks, 10 done, 4 to run" in capsys.readouterr().out
    assert main(["verify", "--exp", str(variant)]) == 0


def test_what_failed_in_the_base_is_not_taken_over(base, variant, capsys):
    (base / "jobs" / "precompute_slots" / "1" / "manifest.json").unlink()
    assert fork(base, variant, "training.lr=0.5", "--pred", "vanilla") == 0
    assert {"precompute_slots/0"} == {name for name in done(variant) if "slots" in name}
    assert "train_predictor/0" not in done(variant)


def test_another_file_system_gets_copies(base, variant, monkeypatch):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(forking.os, "link", refuse)
    assert fork(base, variant, "training.lr=0.5") == 0
    assert main(["verify", "--exp", str(variant)]) == 0


@pytest.mark.parametrize(
    ("values", "more", "message"),
    [
        ("trainin.lr=1", (), "trainin: unknown key, did you mean 'training'?"),
        ("training.lr", (), "--set training.lr: expected NAME.NAME=VALUE"),
        ("training.lr=1", ("--pred", "vanila"), "no such predictor experiment, did you mean 'vanilla'?"),
    ],
)
def test_a_wrong_variant_or_an_existing_folder_is_one_line_and_leaves_nothing(
    base, variant, capsys, values, more, message
):
    assert fork(base, variant, values, *more) == 2
    assert message in capsys.readouterr().err
    assert not variant.exists()
    variant.mkdir()
    assert fork(base, variant, "training.lr=1") == 2
    assert "already exists; choose another name" in capsys.readouterr().err

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launch.cli import main
from launch.pipeline import from_recipe
from launch.recipe import load_recipe, write_experiment
from launch.submit import parse_resources, parse_seeds
from textocvp.config.errors import UserError

CODE = Path(__file__).parents[2]
SMOKE = str(CODE / "experiments" / "recipes" / "smoke.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pipeline", "--recipe", "none.yaml", "--cluster", "local"], "error: none.yaml: no such file"),
        (["pipeline", "--recipe", SMOKE, "--cluster", "loca"], "did you mean 'local'?"),
        (
            ["plan", "--exp", "experiments/none", "--cluster", "local"],
            "experiments/none/experiment_params.json: no such",
        ),
        (["plan", "--recipe", SMOKE, "--cluster", "local", "--seeds", "a"], "--seeds 'a': 'a' is no seed"),
        (
            ["select-decomp", "--recipe", SMOKE, "--cluster", "local", "--seeds", "1"],
            "select-decomp takes none",
        ),
        (
            ["evaluate", "--recipe", SMOKE, "--cluster", "local", "--pred", "VanilaTransformer"],
            "no such predictor experiment, did you mean 'VanillaTransformer'?",
        ),
    ],
)
def test_a_users_error_is_one_line_and_status_2(arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(CODE)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert message in err
    assert len(err.splitlines()) == 1


def test_recipe_or_experiment():
    with pytest.raises(SystemExit) as exit_:
        main(["pipeline", "--cluster", "local"])
    assert exit_.value.code == 2


@pytest.mark.parametrize("option", [["--lines", "-3"], ["--task", "abc"]])
def test_numbers_of_the_log_command(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["logs", "--exp", "x", "--stage", "report", *option])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1
    assert "integer >= 0" in error and option[1] in error


def test_seeds():
    assert parse_seeds("0 1,2") == (0, 1, 2)
    assert parse_seeds("") == ()
    with pytest.raises(UserError, match="'-1' is no seed"):
        parse_seeds("-1")


def test_as_a_program():
    result = subprocess.run(
        [sys.executable, "-m", "launch", "--help"], cwd=CODE, capture_output=True, text=True
    )
    assert result.returncode == 0
    for command in ("pipeline", "plan", "status", "logs", "train-decomp", "precompute-slots", "evaluate"):
        assert command in result.stdout


def test_resources_of_one_submission():
    assert parse_resources("nodes=1 mem_gb=1.5,time=1-04:00:00") == {
        "nodes": 1,
        "mem_gb": 1.5,
        "time": "1-04:00:00",
    }
    assert parse_resources("") == {}


@pytest.mark.parametrize(
    ("res", "message"),
    [
        ("node=1", "--res 'node=1': 'node=1' is no RESOURCE=value, did you mean 'nodes'?"),
        ("nodes", "'nodes' is no RESOURCE=value"),
        ("nodes=two", "cluster local: resources.train-decomp.nodes: expected an integer"),
        ("time=4h", "resources.train-decomp.time: expected [days-]hours:minutes:seconds"),
    ],
)
def test_wrong_resources_are_one_line(small_recipe, capsys, res, message):
    assert main(["plan", "--recipe", str(small_recipe()), "--cluster", "local", "--res", res]) == 2
    assert message in capsys.readouterr().err


def test_resources_are_those_of_the_stage_asked_for(small_recipe, capsys):
    options = ["--recipe", str(small_recipe()), "--cluster", "local", "--res"]
    assert main(["plan", *options, "nodes=2 gpus_per_node=2"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "limit " in line]
    assert [line.split(":")[0] for line in lines if "2 nodes, 2 GPU per node, 2 processes" in line] == [
        "train-decomp",
        "train-predictor",
    ]
    assert main(["select-decomp", *options, "nodes=2"]) == 2
    assert "resources.select-decomp: 2 processes" in capsys.readouterr().err


def test_a_checkpoint_by_its_path_is_meant_from_here(small_recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--recipe", str(small_recipe()), "--cluster", "local", "--decomp_ckpt", "other/mine.pth"]
    assert main(["plan", *options]) == 2
    assert f"precompute-slots[0] needs {tmp_path}/other/mine.pth, which does not" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.pth").touch()
    assert main(["plan", *options]) == 0
    assert f"--decomp_ckpt {tmp_path}/other/mine.pth" in capsys.readouterr().out


def test_a_folder_whose_parts_do_not_fit_is_not_submitted(small_recipe, tmp_path, capsys):
    pipeline = from_recipe(load_recipe(small_recipe()), tmp_path, None)
    write_experiment(pipeline.root, pipeline.files)
    assert main(["plan", "--exp", str(pipeline.root), "--cluster", "local"]) == 0
    path = pipeline.root / "experiment_params.json"
    values = json.loads(path.read_text())
    values["dataset"]["img_size"] = [32, 64]
    path.write_text(json.dumps(values))
    assert main(["plan", "--exp", str(pipeline.root), "--cluster", "local"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: ")


def test_the_sites_own_image_is_unpacked(tmp_path, capfd):
    site = tmp_path / "site.yaml"
    site.write_text(
        f"scheduler: slurm\ncontainer: {{runtime: apptainer}}\npaths: {{image_cache: {tmp_path}/images}}\n"
    )
    assert main(["image", "--cluster", str(site), "--unpack"]) == 2
    said = capfd.readouterr()
    assert "containers/unpack.sh" in said.out
    assert f"error: the image {tmp_path}/images/textocvp-cpu-" in said.err
    assert main(["image", "--cluster", "local", "--unpack"]) == 2
    assert "its jobs use no image" in capfd.readouterr().err

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.cli import COMMANDS, main
from launch.pipeline import from_recipe
from launch.recipe import load_recipe, write_experiment
from launch.stages import all_tasks
from launch.state import ledger
from launch.state.manifest import Records, input_hashes, write_manifest
from launch.submit import parse_resources, parse_seeds

CODE = Path(__file__).parents[2]
SMOKE = str(CODE / "experiments" / "recipes" / "smoke.yaml")
LOCAL = ("--cluster", "local")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("pipeline", "--recipe", "none.yaml", *LOCAL), ("none.yaml: no such file",)),
        (("pipeline", "--recipe", SMOKE, "--cluster", "loca"), ("'loca'", "did you mean 'local'?")),
        (("plan", "--exp", "experiments/none", *LOCAL), ("none/experiment_params.json: no such",)),
        (("plan", "--recipe", SMOKE, *LOCAL, "--seeds", "-1"), ("--seeds '-1'", "integers >= 0")),
        (
            ("evaluate", "--recipe", SMOKE, *LOCAL, "--pred", "VanilaTransformer"),
            ("predictors/VanilaTransformer: ", "did you mean 'VanillaTransformer'?"),
        ),
        (
            ("plan", "--recipe", SMOKE, *LOCAL, "--res", "node=1"),
            ("--res 'node=1'", "no such", "did you mean 'nodes'?"),
        ),
        (("plan", "--recipe", SMOKE, *LOCAL, "--res", "nodes"), ("--res 'nodes'", "nodes=VALUE")),
        (("plan", "--recipe", SMOKE, *LOCAL, "--res", "time=24"), ("time: ", '"24:00:00"', "got '24'")),
        (("plan", "--recipe", SMOKE, *LOCAL, "--res", "nodes=two"), ("resources.train-decomp.nodes", "two")),
        (("plan", "--recipe", SMOKE, *LOCAL, "--res", "time=4h"), ("time: ", "'4h'", "hours:minutes")),
        (("select-decomp", "--recipe", SMOKE, *LOCAL, "--res", "nodes=2"), ("resources.select-decomp: ",)),
        (("shell", *LOCAL, "--stage", "train-decom"), ("--stage train-decom: ", "'train-decomp'")),
        (("shell", *LOCAL, "--res", "hours=1"), ("--res 'hours=1'",)),
        (("tensorboard", "--exp", "none"), ("none: does not exist",)),
        (("prune", "--exp", "none"), ("none/experiment_params.json: no such experiment",)),
    ],
)
def test_a_users_error_is_one_line_and_status_2(arguments, parts, capsys, monkeypatch):
    monkeypatch.chdir(CODE)
    assert main([*arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert all(part in error for part in parts), error


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("pipeline", *LOCAL), "--recipe --exp is required"),
        (("logs", "--exp", "x", "--stage", "report", "--lines", "-3"), "expected an integer >= 0, got '-3'"),
        (("logs", "--exp", "x", "--stage", "report", "--task", "abc"), "expected an integer >= 0, got 'abc'"),
        (("status", "--exp", "x", "--json", "--watch"), "not allowed with"),
        (("select-decomp", "--recipe", SMOKE, "--seeds", "1"), "unrecognized arguments: --seeds 1"),
        (("train-decomp", "--recipe", SMOKE, "--pred", "x"), "unrecognized arguments: --pred x"),
    ],
)
def test_a_wrong_option_is_one_line(arguments, part, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and error.count("\n") == 1 and part in error


def test_as_a_program():
    command = [sys.executable, "-m", "launch", "--help"]
    result = subprocess.run(command, cwd=CODE, capture_output=True, text=True)
    assert result.returncode == 0
    shown = subprocess.run(
        [*command[:-1], "evaluate", "--help"], cwd=CODE, capture_output=True, text=True
    ).stdout
    assert "--decomp-ckpt" in shown and "--decomp_ckpt" not in shown
    assert all(f"  {name} " in result.stdout or f"  {name}\n" in result.stdout for name in COMMANDS)


def test_seeds_and_resources():
    assert parse_seeds("0 1,2") == (0, 1, 2)
    assert parse_seeds("") == ()
    parsed = parse_resources("nodes=1 mem_gb=1.5,time=1-04:00:00")
    assert parsed == {"nodes": 1, "mem_gb": 1.5, "time": "1-04:00:00"}
    assert parse_resources("") == {}


def test_resources_are_those_of_the_stage_asked_for(small_recipe, capsys):
    options = ["--recipe", str(small_recipe()), "--cluster", "local", "--res"]
    assert main(["plan", *options, "nodes=2 gpus_per_node=2"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " node" in line]
    stages = [line.split(":")[0] for line in lines if "2 nodes, 2 GPUs per node, 2 processes" in line]
    assert stages == ["train-decomp", "train-predictor"]


def test_a_checkpoint_by_its_path_is_meant_from_here(small_recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--recipe", str(small_recipe()), "--cluster", "local", "--decomp_ckpt", "other/mine.pth"]
    assert main(["plan", *options]) == 2
    assert f"precompute-slots[0] needs {tmp_path}/other/mine.pth, which does not" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.pth").touch()
    assert main(["plan", *options]) == 0
    assert f"--decomp_ckpt {tmp_path}/other/mine.pth" in capsys.readouterr().out


def test_a_folder_whose_sections_contradict_each_other_is_not_submitted(written, capsys):
    assert main(["plan", "--exp", str(written), "--cluster", "local"]) == 0
    path = written / "experiment_params.json"
    values = json.loads(path.read_text())
    values["dataset"]["img_size"] = [32, 64]
    path.write_text(json.dumps(values))
    assert main(["plan", "--exp", str(written), "--cluster", "local"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}: ")


def test_the_sites_own_image_is_unpacked(local_site, tmp_path, capfd):
    paths = {"image_cache": f"{tmp_path}/images"}
    site = local_site(scheduler="slurm", container={"runtime": "apptainer"}, paths=paths)
    assert main(["image", "--cluster", site, "--unpack"]) == 2
    said = capfd.readouterr()
    assert "containers/unpack.sh" in said.out
    assert f"error: the image {tmp_path}/images/textocvp-cpu-" in said.err
    assert main(["image", "--cluster", "local", "--unpack"]) == 2
    assert "its jobs use no image" in capfd.readouterr().err


@pytest.mark.slow
def test_a_thousand_tasks_cost_two_seconds(small_recipe, local_site, tmp_path, capsys, monkeypatch):
    """Planned before anything exists, planned when all but the last are done, and shown: CPU seconds, with a
    margin for a slower machine."""
    site = local_site(paths={"experiments": str(tmp_path)})
    monkeypatch.setattr(os, "fsync", lambda file: None)
    names, seeds = ("TextOCVP_CustomTF", "VanillaTransformer"), list(range(150))
    predictors = [{"name": name, "predictor": name, "seeds": seeds} for name in names]
    decomposition = {"model": "SAVi", "dataset": "CATER_Hard", "seeds": list(range(300))}
    recipe = small_recipe(decomposition=decomposition, slots={"shards": 390}, predictors=predictors)

    def seconds(*arguments):
        before = time.process_time()
        assert main([*arguments]) == 0
        return time.process_time() - before

    options = ("--recipe", str(recipe), "--cluster", str(site))
    assert seconds("plan", *options) < 4
    assert "998 tasks, 998 to run" in capsys.readouterr().out
    pipeline = from_recipe(load_recipe(recipe), tmp_path, None)
    write_experiment(pipeline.root, pipeline.files, recipe)
    finish_all(pipeline.root, all_tasks(pipeline)[:-1])
    assert seconds("plan", *options) < 4
    assert "998 tasks, 997 done, 1 to run" in capsys.readouterr().out
    assert seconds("status", "--exp", str(pipeline.root)) < 4
    assert len(capsys.readouterr().out.splitlines()) == 1 + 998


def finish_all(root, tasks):
    """What jobs that succeeded leave behind."""
    about = {"revision": "", "image": "", "versions": {}}
    for _, group in itertools.groupby(tasks, key=lambda task: task.stage):
        records = Records(root, tasks)
        for task in group:
            for pattern in task.outputs:
                path = root / pattern.replace("part_*", f"part_{task.share[0]:04d}").replace("*", "x")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("x")
            write_manifest(root, task, input_hashes(records, task), 1.0, about)
            ledger.record(root, ledger.SUBMITTED, *task.id, job_id="", cluster="local", log="x")

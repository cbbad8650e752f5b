"""One smoke experiment, really run on this machine, for all tests that only look at it or copy it."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launch import CODE
from launch.cli import main
from launch.pipeline import from_recipe
from launch.recipe import load_recipe, write_experiment
from launch.state import ledger


def wait_for(condition, seconds=180, step=0.2):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "timed out"
        time.sleep(step)


def done(root):
    """The tasks that have a manifest: `stage/index`."""
    return sorted("/".join(path.parts[-3:-1]) for path in root.glob("jobs/*/*/manifest.json"))


def status_of(root, capsys):
    """What `status --json` says of each task: {(stage, index): row}."""
    capsys.readouterr()
    assert main(["status", "--exp", str(root), "--json"]) == 0
    return {(row["stage"], row["task"]): row for row in json.loads(capsys.readouterr().out)}


def rank_variables(logs):
    """The variables that each rank of the stand-in for the work wrote to its log."""
    return [json.loads(log.read_text().split("variables ")[1].splitlines()[0]) for log in logs]


def step_of(root, task=0):
    """The step that a task of train-decomp is at."""
    path = root / f"jobs/train_decomp/{task}/progress.json"
    return json.loads(path.read_text())["step"] if path.is_file() else 0


def smoke_recipe(folder, name="smoke", training=(), seeds=(0, 1), data=(), **changes):
    """Writes the smoke recipe with other settings of its trainings and data to `folder`; returns its path."""
    recipe = yaml.safe_load((CODE / "experiments" / "recipes" / "smoke.yaml").read_text())
    recipe["data"].update(data)
    recipe["decomposition"]["seeds"] = list(seeds)
    for section in (recipe["decomposition"], *recipe["predictors"]):
        section["set"]["training"] = {**section["set"]["training"], **dict(training)}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**recipe, "name": name, **changes}))
    return str(folder / f"{name}.yaml")


@pytest.fixture
def written(small_recipe, tmp_path):
    """EXP of the small recipe as it is written before any task runs."""
    path = small_recipe()
    pipeline = from_recipe(load_recipe(path), tmp_path, None)
    write_experiment(pipeline.root, pipeline.files, path)
    return pipeline.root


HUNDRED_LINES = "".join(f"line {number}\n" for number in range(100))


@pytest.fixture
def submitted():
    """Records the submission of a task, with a log."""

    def record(root, stage, task, job_id="", log=HUNDRED_LINES):
        path = root / f"jobs/{stage}/logs/x_{task}_0_log.out"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(log)
        name = path.relative_to(root).as_posix()
        ledger.record(root, "submitted", stage, task, job_id=job_id, cluster="local", log=name)
        return path

    return record


@pytest.fixture
def run_as_nobody(nobody):
    """Runs a doctor as an ordinary user, on a site's config and in a folder of theirs."""
    folder = Path(f"/tmp/doctor_{os.getpid()}")
    folder.mkdir()
    os.chown(folder, *nobody.ids)

    def run(site, *more):
        command = [*nobody.prefix, sys.executable, *"-m launch doctor --cluster".split()]
        settings = {"cwd": CODE, "env": {**os.environ, "HOME": str(folder)}, "text": True}
        return subprocess.run([*command, shutil.copy(site, folder), *more], capture_output=True, **settings)

    run.folder = folder
    yield run
    shutil.rmtree(folder)


@pytest.fixture
def down_conf(tmp_path):
    """The path of a slurm.conf whose controller does not answer."""
    lines = ["ClusterName=down", "SlurmctldHost=localhost(127.0.0.1)", "SlurmctldPort=1", "MessageTimeout=2"]
    (tmp_path / "down.conf").write_text("".join(f"{line}\n" for line in lines))
    return str(tmp_path / "down.conf")


@pytest.fixture
def slurm_site(dev_cluster, tmp_path):
    """Writes the config of the dev cluster as a site whose experiments are in tmp_path; returns its path."""

    def write(mem_gb=0.4, time="00:10:00", resources=(), **values):
        site = {"scheduler": "slurm", "slurm_conf": dev_cluster["SLURM_CONF"], "partition": "main"}
        default = {"mem_gb": mem_gb, "cpus_per_task": 1, "time": time}
        site.update(paths={"experiments": str(tmp_path)}, resources={"default": default, **dict(resources)})
        (tmp_path / "site.yaml").write_text(yaml.safe_dump({**site, **values}))
        return str(tmp_path / "site.yaml")

    return write


@pytest.fixture(scope="session")
def finished_smoke(tmp_path_factory):
    """(EXP, the recipe's path, the cluster config's path) of the finished smoke recipe. Takes a minute."""
    folder = tmp_path_factory.mktemp("smoke")
    recipe = smoke_recipe(folder, training={"save_every_steps": 10, "save_frequency": 1})
    site = {"scheduler": "local", "parallel": 2, "paths": {"experiments": str(folder)}}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    assert main(["pipeline", "--recipe", recipe, "--cluster", str(folder / "site.yaml"), "--wait"]) == 0
    return folder / "smoke", folder / "smoke.yaml", folder / "site.yaml"


@pytest.fixture
def smoke_copy(finished_smoke, tmp_path):
    """A copy of that experiment which may be changed."""
    root = tmp_path / "smoke"
    shutil.copytree(finished_smoke[0], root, symlinks=True)
    return root

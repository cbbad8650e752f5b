"""The whole pipeline on a real Slurm, its jobs in the real image: undisturbed, disturbed, failing."""

import json
import os
import signal
from pathlib import Path

import pytest
import yaml

from launch import CODE
from launch.cli import main
from launch.state.ledger import last_events, read_ledger
from launch.state.manifest import Manifest

from .conftest import status_of, step_of, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.container, pytest.mark.slow]
STEPS = 360
"""Long enough to be disturbed three times."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("in_image")


@pytest.fixture(scope="module")
def site(dev_cluster, image, folder):
    """Writes the shipped dev cluster's config for the tests' own cluster, image and folder."""

    def write(name="site", **resources):
        values = yaml.safe_load((CODE / "cluster_configs" / "dev_cluster.yaml").read_text())
        values["slurm_conf"] = dev_cluster["SLURM_CONF"]
        values["paths"] = {"experiments": str(folder)}
        values["container"]["image"] = str(image)
        values["resources"]["default"].update(mem_gb=1.8)
        values["resources"].update(resources)
        path = folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write


def recipe(folder, name, steps=STEPS):
    """The smoke recipe under another name, its trainings longer and often saved."""
    values = yaml.safe_load((CODE / "experiments" / "recipes" / "smoke.yaml").read_text())
    values["name"] = name
    training = values["decomposition"]["set"]["training"]
    training.update(num_steps=steps, save_every_steps=20)
    for predictor in values["predictors"]:
        predictor["set"]["training"] = {**training, "num_steps": 30}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def submit(folder, site, name, *more, **values):
    return main(["pipeline", "--recipe", recipe(folder, name, **values), "--cluster", site, *more])


def starts(root, seed=0):
    return last_events(root)[("train_decomp", seed)]["starts"]


def trained(root):
    """Parameters of every finished training of an experiment."""
    from textocvp.training.checkpoint import load_pth

    paths = sorted(root.rglob("checkpoint_epoch_final.pth"))
    return {path.relative_to(root).as_posix(): load_pth(path)["model_state_dict"] for path in paths}


@pytest.fixture(scope="module")
def undisturbed(site, folder):
    """A whole pipeline."""
    assert submit(folder, site(), "undisturbed", "--wait") == 0
    return folder / "undisturbed"


def test_all_stages_ran_in_the_image(undisturbed, image, capsys):
    digest = json.loads(Path(f"{image}.json").read_text())["digest"]
    manifests = [Manifest.read(path) for path in undisturbed.glob("jobs/*/*/manifest.json")]
    assert len(manifests) == 14 and {manifest.image for manifest in manifests} == {digest}
    assert {event["image"] for event in last_events(undisturbed).values()} == {digest}
    log = (undisturbed / last_events(undisturbed)[("train_decomp", 1)]["log"]).read_text()
    assert log.startswith("python -m textocvp train-decomp")
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert set(summary["predictors"]) == {"TextOCVP_CustomTF", "VanillaTransformer"}
    assert status_of(undisturbed, capsys)[("train-decomp", 0)]["step"] == STEPS


def test_a_disturbed_pipeline_ends_with_the_same_results(
    undisturbed, site, folder, slurm, dev_cluster, pid_of_rank
):
    """Asked to save, preempted, and a node's daemon killed: bit for bit the same parameters."""
    root = folder / "disturbed"
    assert submit(folder, site(), "disturbed") == 0
    job = last_events(root)[("train_decomp", 0)]["job_id"]
    wait_for(lambda: step_of(root) > 0)
    slurm("scancel", "--signal=USR2", job)
    wait_for(lambda: starts(root) == 2 and step_of(root) > 0)

    options = "--parsable --partition=urgent --nodes=2 --exclusive --output=/dev/null".split()
    urgent = slurm("sbatch", *options, "--wrap=sleep 1")
    wait_for(lambda: slurm("squeue", "-h", "-t", "all", "-j", urgent, "-o", "%T") == "COMPLETED")
    wait_for(lambda: starts(root) == 3 and step_of(root) > 0)

    # the second node dies: its daemon, and what runs there, which nobody is left to end
    daemon = Path(dev_cluster["DEV_CLUSTER_DIR"]) / "run" / "slurmd.n2.pid"
    os.kill(int(daemon.read_text()), signal.SIGKILL)
    rank = pid_of_rank(job, 1)
    os.kill(rank, signal.SIGSTOP)
    wait_for(lambda: "down" in slurm("sinfo", "-h", "-n", "n2", "-o", "%T"))
    os.kill(rank, signal.SIGKILL)
    slurm("slurmd", "-N", "n2")
    wait_for(lambda: (root / "summary.json").exists(), 600)

    assert starts(root) >= 4, "the node's failure restarted it"
    stops = [event for event in read_ledger(root) if event["event"] == "stopped"]
    assert any("140" in event["error"] for event in stops), "it saved when it was asked to"
    ours, theirs = trained(root), trained(undisturbed)
    assert ours.keys() == theirs.keys() and len(ours) == 5
    for path, state in theirs.items():
        for name, value in state.items():
            assert (ours[path][name] == value).all(), (path, name)
    for name in ("results/decomposition.json", "predictors/TextOCVP_CustomTF/results/prediction.json"):
        assert (root / name).read_text() == (undisturbed / name).read_text()


def test_a_stage_that_fails_is_named_and_only_the_rest_runs_next_time(site, folder, capsys):
    small = site("small", precompute_slots={"mem_gb": 0.1})
    assert submit(folder, small, "failing", "--wait", steps=10) == 1
    root = folder / "failing"
    found = status_of(root, capsys)
    assert {index for (stage, index), row in found.items() if row["state"] == "done"} == {0, 1}
    assert {found[("train-predictor", index)]["state"] for index in (0, 1)} == {"cancelled"}
    assert found[("evaluate-decomp", 0)]["state"] == "done", "it does not need the stage that failed"
    assert main(["why", "--exp", str(root)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("precompute-slots[0] (shard 1 of 2) ") and "exit code " in out.splitlines()[0]
    assert "raise resources.precompute-slots.mem_gb" in out.splitlines()[-1]
    before = {task: event["job_id"] for task, event in last_events(root).items()}
    assert submit(folder, site(), "failing", "--wait", steps=10) == 0
    after = {task: event["job_id"] for task, event in last_events(root).items()}
    again = {stage for (stage, index), job in after.items() if job != before[(stage, index)]}
    assert again == {"precompute_slots", "train_predictor", "evaluate_predictor", "figures", "report"}

"""On a real one-host Slurm with accounting: two slurmd, two partitions, arrays, dependencies."""

import functools
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from launch.cli import main
from launch.jobs import load_cluster
from launch.state.ledger import last_events, read_ledger
from slurm.container import image_key
from slurm.queue import cancel, job_states

from .conftest import done, rank_variables, smoke_recipe, status_of, wait_for

pytestmark = pytest.mark.cluster


@pytest.fixture
def site(slurm_site, slurm, stub_python, tmp_path):
    """Writes the config of the dev cluster with a stand-in for the work; returns its path."""
    return functools.partial(
        slurm_site, python=stub_python, paths={"experiments": str(tmp_path / "experiments")}
    )


@pytest.fixture
def root(tmp_path):
    return tmp_path / "experiments" / "exp"


def behave(root, behaviours):
    root.mkdir(parents=True, exist_ok=True)
    (root / "behaviour.json").write_text(json.dumps(behaviours))


def submit(recipe, site, *more):
    return main(["pipeline", "--recipe", str(recipe), "--cluster", site, *more])


def test_a_pipeline_of_arrays(small_recipe, site, root, capsys):
    recipe, site = small_recipe(), site()
    assert submit(recipe, site, "--wait") == 0
    assert len(done(root)) == 14
    for (_, index), event in last_events(root).items():  # array index = task index: each did its own task
        assert event["job_id"].split("_")[1:] in ([], [str(index)])
        text = (root / event["log"]).read_text()
        assert text.startswith("python -m textocvp " + " ".join(event["argv"]))
    rows = status_of(root, capsys)
    assert {row["state"] for row in rows.values()} == {"done"}
    columns = {"stage", "task", "job_id", "state", "step", "total_steps", "loss", "restarts", "log"}
    assert columns <= set(rows[("report", 0)])
    before = len(read_ledger(root))
    assert submit(recipe, site, "--wait") == 0
    assert len(read_ledger(root)) == before


def test_a_failure_cancels_only_what_needs_it_and_the_rest_is_made_up_for(small_recipe, site, root, capsys):
    recipe, site = small_recipe(), site()
    behave(root, {"train-predictor[1]": "fail"})
    assert submit(recipe, site, "--wait") == 1
    out = capsys.readouterr().out
    assert "train-predictor[1] (vanilla) failed: job " in out
    assert "is FAILED: RuntimeError: train-predictor[1] is made to fail" in out
    assert "evaluate-predictor[1] (vanilla) not started" in out
    assert "evaluate_predictor/0" in done(root)
    assert "evaluate_predictor/1" not in done(root)
    assert "report/0" in done(root)
    rows = status_of(root, capsys)
    assert rows[("train-predictor", 1)]["state"] == "failed"
    assert rows[("evaluate-predictor", 1)]["state"] == "cancelled"
    behave(root, {})
    assert submit(recipe, site, "--wait") == 0
    assert len(done(root)) == 14
    job_id = last_events(root)[("train_predictor", 1)]["job_id"]
    assert job_id.endswith("_1")  # the same index in a new array
    assert last_events(root)[("train_predictor", 0)]["job_id"].split("_")[0] != job_id.split("_")[0]


def test_a_seed_that_fails_does_not_stop_the_others(small_recipe, site, root):
    behave(root, {"train-decomp[0]": "fail"})
    assert submit(small_recipe(), site(), "--wait") == 1
    assert {"select_decomp/0", "precompute_slots/1", "train_predictor/1", "report/0"} <= set(done(root))
    assert "train_decomp/0" not in done(root)


def test_dependants_that_still_wait_are_planned_anew(small_recipe, site, root, capsys):
    recipe, site = small_recipe(), site()
    behave(root, {"train-decomp[1]": "sleep"})
    assert submit(recipe, site) == 0
    wait_for((root / "jobs" / "train_decomp" / "1" / "asleep").exists)
    wait_for(lambda: "train_decomp/0" in done(root))
    capsys.readouterr()
    # everything is queued or done: nothing to submit
    assert submit(recipe, site) == 0
    assert "11 queued; nothing to submit" in capsys.readouterr().out
    first = {task: event["job_id"] for task, event in last_events(root).items()}
    behave(root, {})
    environment = load_cluster(site).slurm_environment()

    def state(*task):
        return job_states([first[task]], environment)[first[task]]

    cancel([first[("train_decomp", 1)], first[("select_decomp", 0)]], environment)
    wait_for(lambda: not state("train_decomp", 1).active)
    assert submit(recipe, site, "--wait") == 0
    assert len(done(root)) == 14
    assert state("train_predictor", 1).state == "CANCELLED"
    # the first report may have begun when what it waited for was cancelled: it does not count
    assert last_events(root)[("report", 0)]["job_id"] != first[("report", 0)]


@pytest.mark.slow
def test_a_preempted_stage_that_saves_nothing_is_queued_again(small_recipe, site, root, slurm):
    behave(root, {"make-data[0]": "sleep"})
    assert submit(small_recipe(), site()) == 0
    wait_for((root / "jobs" / "make_data" / "0" / "asleep").exists)
    behave(root, {})
    slurm("sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")
    wait_for(lambda: "report/0" in done(root), 150)
    assert len(done(root)) == 14
    assert last_events(root)[("make_data", 0)]["starts"] == 2


@pytest.mark.slow
def test_an_element_that_asks_to_be_queued_again_leaves_the_others_alone(small_recipe, site, root):
    behave(root, {"train-decomp[0]": "sleep", "train-decomp[1]": "sleep"})
    assert submit(small_recipe(), site()) == 0
    for index in (0, 1):
        wait_for((root / "jobs" / "train_decomp" / str(index) / "asleep").exists)
    environment = load_cluster(site()).slurm_environment()
    event = last_events(root)[("train_decomp", 1)]  # the last element has the array's own id
    (root / "jobs" / "train_decomp" / "1" / "requeue_request").touch()
    os.kill(event["pid"], signal.SIGKILL)
    wait_for(lambda: last_events(root)[("train_decomp", 1)]["starts"] == 2)
    assert last_events(root)[("train_decomp", 0)]["starts"] == 1
    ids = [last_events(root)[("train_decomp", index)]["job_id"] for index in (0, 1)]
    assert {state.state for state in job_states(ids, environment).values()} == {"RUNNING"}


def test_ranks_on_two_nodes(small_recipe, site, root):
    recipe, site = small_recipe(), site(resources={"train_decomp": {"nodes": 2, "tasks_per_node": 2}})
    assert main(["train-decomp", "--recipe", str(recipe), "--cluster", site, "--wait"]) == 0
    event = last_events(root)[("train_decomp", 0)]
    logs = [root / event["log"].replace("_0_log.out", f"_{rank}_log.out") for rank in range(4)]
    ranks = rank_variables(logs)
    assert [rank["RANK"] for rank in ranks] == ["0", "1", "2", "3"]
    assert [rank["LOCAL_RANK"] for rank in ranks] == ["0", "1", "0", "1"]
    assert {rank["WORLD_SIZE"] for rank in ranks} == {"4"}
    assert len({rank["MASTER_PORT"] for rank in ranks}) == 1


def test_a_dead_rank_ends_the_job(small_recipe, site, root):
    behave(root, {"train-decomp[0]": "rank 1 dies"})
    recipe, site = small_recipe(), site(resources={"train_decomp": {"tasks_per_node": 2}})
    assert main(["train-decomp", "--recipe", str(recipe), "--cluster", site, "--wait"]) == 1
    assert done(root) == ["make_data/0", "prepare_data/0", "train_decomp/1"]


def test_a_large_pipeline_is_submitted_within_seconds(small_recipe, site, root):
    predictors = [{"name": f"p{number}", "predictor": "VanillaTransformer"} for number in range(4)]
    decomposition = {"model": "SAVi", "dataset": "CATER_Hard", "seeds": [0, 1, 2]}
    recipe = small_recipe(decomposition=decomposition, slots={"shards": 8}, predictors=predictors)
    site = site(extra_sbatch={"hold": True})
    started = time.time()
    assert submit(recipe, site) == 0
    assert time.time() - started < 5
    jobs = {event["job_id"].split("_")[0] for event in last_events(root).values()}
    assert len(last_events(root)) == 25
    assert len(jobs) == 10  # one array for each stage


def test_a_plan_shows_the_scripts_that_are_submitted(small_recipe, site, root, capsys):
    resources = {"train_decomp": {"nodes": 2, "time": "00:20:00"}}
    recipe, site = small_recipe(), site(extra_sbatch={"hold": True}, resources=resources)
    assert main(["plan", "--recipe", str(recipe), "--cluster", site]) == 0
    plan = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert not root.exists(), "a plan writes nothing"
    assert submit(recipe, site) == 0
    arrays = {event["job_id"].split("_")[0]: stage for (stage, _), event in last_events(root).items()}
    scripts = list(root.glob("jobs/*/logs/*_submission.sh"))
    assert len(scripts) == len(arrays) == 10
    for path in scripts:
        text = path.read_text()
        if "dependency" in text:  # the plan has names for the numbers of jobs
            named = lambda found: arrays[found[1]].upper().replace("_", "-")  # noqa: E731
            text = re.sub(r"(?<=[:,])(\d+)(?=[_:,'\n])", named, text)
        lines, stage = [line.strip() for line in text.splitlines()], path.parts[-3].replace("_", "-")
        first = plan.index(f"{stage}[{','.join(indices(path))}] is submitted as:") + 1
        assert plan[first : first + len(lines)] == lines, path


def indices(script):
    """Array indices in a batch script."""
    found = re.search(r"--array='?([\d,]+)", script.read_text())
    return found[1].split(",") if found else ["0"]


def test_more_tasks_than_an_array_takes_are_one_line(small_recipe, site, root, capsys):
    assert submit(small_recipe(slots={"shards": 1100}), site()) == 2
    error = capsys.readouterr().err
    parts = ("error: precompute-slots", "1100", "1001", "MaxArraySize", "shards")
    assert all(part in error for part in parts)
    assert not (root / "experiment_params.json").exists(), "nothing was written"


def test_the_image_is_built_by_a_job(site, tmp_path, capfd):
    """Its own work is tested elsewhere: here it finds that there is nothing to do."""
    cluster = load_cluster(site(container={"runtime": "apptainer"}))
    images = tmp_path / "images"
    images.mkdir()
    image = images / f"textocvp-cpu-{image_key(cluster)}.sif"
    image.write_text("an image")
    Path(f"{image}.json").write_text('{\n "bytes": 8,\n "base": "x",\n "built": "today"\n}\n')
    resources = {"image": {"mem_gb": 0.3, "time": "00:05:00"}}
    path = site(paths={"image_cache": str(images)}, container={"runtime": "apptainer"}, resources=resources)
    assert main(["image", "--cluster", path, "--wait"]) == 0
    said = capfd.readouterr().out
    assert "--job-name=textocvp.image" in said
    (log,) = images.glob("build-job-*.log")
    assert f"builds it, its log: {log}" in said
    assert main(["image", "--cluster", site(paths={"image_cache": str(images)}, partition="nowhere")]) == 1
    assert "its log" not in capfd.readouterr().out
    assert log.read_text().startswith(f"unchanged: {image}")


def test_what_sbatch_refuses_is_one_line(small_recipe, site, root, capsys):
    assert submit(small_recipe(), site(partition="nowhere")) == 2
    line = capsys.readouterr().err.splitlines()[-1]  # after what sbatch itself says
    assert line.startswith("error: sbatch refused exp.make-data: ")
    assert "nvalid partition" in line


def test_a_cluster_that_is_down_is_one_line(small_recipe, site, root, capsys, down_conf):
    assert submit(small_recipe(), site(extra_sbatch={"hold": True})) == 0
    site(extra_sbatch={"hold": True}, slurm_conf=down_conf)
    capsys.readouterr()
    assert main(["status", "--exp", str(root)]) == 2
    assert "does not answer" in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_pipeline(slurm_site, tmp_path, capsys):
    """Generated videos to report, two seeds on two ranks each with ZeRO-2, without a container."""
    recipe = smoke_recipe(tmp_path, training={"num_steps": 12, "zero_stage": 2})
    site = slurm_site(mem_gb=2, time="01:00:00", resources={"train_decomp": {"nodes": 2}})
    assert submit(recipe, site, "--wait") == 0, capsys.readouterr().out
    root = tmp_path / "smoke"
    summary = json.loads((root / "summary.json").read_text())
    assert set(summary["predictors"]) == {"TextOCVP_CustomTF", "VanillaTransformer"}
    assert set(summary["decomposition"]["seeds"]) == {"0", "1"}
    assert "object mIoU" in capsys.readouterr().out
    rows = status_of(root, capsys)
    assert (rows[("train-decomp", 0)]["step"], rows[("train-decomp", 0)]["total_steps"]) == (12, 12)

"""The whole path from a recipe to manifests, run here, with a stand-in for the work."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from launch import CODE
from launch.cli import main
from launch.state.ledger import last_events, read_ledger
from textocvp.config.experiment import create_experiment
from textocvp.files import Space

from .conftest import done, rank_variables, status_of, wait_for


class Experiment:
    """EXP of the small recipe, and what tests do to it."""

    def __init__(self, folder, recipe, site, capsys):
        self.root, self.capsys = folder / "experiments" / "exp", capsys
        self.options = ["--recipe", str(recipe), "--cluster", site]

    def run(self, *more, command="pipeline"):
        """Exit status and everything that was printed."""
        status = main([command, *self.options, *more])
        return status, "".join(self.capsys.readouterr())

    def behave(self, **behaviours):
        self.root.mkdir(parents=True, exist_ok=True)
        named = {f"{name.replace('__', '[').replace('_', '-')}]": how for name, how in behaviours.items()}
        (self.root / "behaviour.json").write_text(json.dumps(named))

    def done(self):
        return done(self.root)

    def forget(self, task, *outputs):
        (self.root / "jobs" / task / "manifest.json").unlink()
        for name in outputs:
            (self.root / name).unlink()

    def started(self, before=0):
        events = read_ledger(self.root)[before:]
        return {f"{event['stage']}/{event['task']}" for event in events if event["event"] == "started"}

    def start(self, command):
        """The command in a process of its own, once a task of it sleeps."""
        line = [sys.executable, "-m", "launch", command, *self.options]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(line, cwd=CODE, **pipes)
        wait_for((self.root / "jobs" / "train_decomp" / "0" / "asleep").exists)
        return process


@pytest.fixture
def exp(tmp_path, small_recipe, local_site, capsys):
    return Experiment(tmp_path, small_recipe(), local_site(), capsys)


@pytest.fixture
def finished(exp, finished_stub):
    """The same, all its tasks done."""
    shutil.copytree(finished_stub, exp.root)
    return exp


def test_a_pipeline_runs_once_and_the_second_time_has_nothing_to_do(finished):
    assert len(finished.done()) == 14
    events = [event["event"] for event in read_ledger(finished.root)]
    assert sorted(events) == ["finished"] * 14 + ["started"] * 14 + ["submitted"] * 14
    status, out = finished.run()
    assert status == 0 and "14 tasks, 14 done; nothing is left to do" in out and "note:" not in out
    assert len(read_ledger(finished.root)) == 42

    for name in ("make_data/0", "report/0"):
        path = finished.root / "jobs" / name / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "revision": "abcdef", "image": "123"}))
    status, out = finished.run()
    assert status == 0 and "14 tasks, 14 done" in out
    assert re.search(r"note: 2 done tasks were created by other code \(abcdef; now \w{12}\)", out)
    assert "note: 2 done tasks were created by another image (123; now none)" in out


def test_too_little_space_is_a_warning(exp, monkeypatch):
    monkeypatch.setattr("launch.views.plan.space_at", lambda path: Space(1000, 2000))
    monkeypatch.setattr("launch.local.LocalRunner.run", lambda runner, tasks: 0)
    assert re.search(rf"WARNING: {exp.root}: .*[MG]B.*`make prune EXP=", exp.run()[1])


def test_a_failure_is_told_and_only_the_rest_runs_next_time(finished):
    finished.forget("train_predictor/1")
    finished.forget("evaluate_predictor/1")
    finished.behave(train_predictor__1="fail")
    before = len(read_ledger(finished.root))
    status, out = finished.run()
    assert status == 1
    for part in (
        "train-predictor[1] (vanilla) failed: exit status 1",
        "log: ",
        "RuntimeError: train-predictor[1] is made to fail",
        "evaluate-predictor[1] (vanilla) not started: train-predictor[1] failed",
    ):
        assert part in out
    # figures and report wait for the end of the others, not for their success
    assert finished.started(before) == {"train_predictor/1", "figures/0", "report/0"}
    finished.behave()
    before = len(read_ledger(finished.root))
    assert finished.run()[0] == 0
    assert finished.started(before) == {"train_predictor/1", "evaluate_predictor/1", "figures/0", "report/0"}
    assert len(finished.done()) == 14


def test_a_failed_seed_is_left_out_and_made_up_for_later(finished):
    finished.forget("train_decomp/0")
    finished.behave(train_decomp__0="user error")
    status, out = finished.run()
    assert status == 1 and "error: the user did it" in out
    assert "precompute_slots/1" in finished.done() and "train_decomp/0" not in finished.done()
    rows = status_of(finished.root, finished.capsys)
    assert rows[("train-decomp", 0)]["state"] == "failed"
    for task in (("precompute-slots", 1), ("report", 0)):
        assert rows[task]["state"] == "done, may change"
    finished.behave()
    # the selection is the same: what was created from it is not created again
    assert finished.run()[0] == 0
    log = finished.root / last_events(finished.root)[("precompute_slots", 0)]["log"]
    assert "is done: same config, same inputs, complete outputs" in log.read_text()


def test_another_selection_is_not_mixed_with_the_old_slots(finished):
    finished.forget("select_decomp/0")
    (finished.root / "salt.txt").write_text("another choice")
    status, out = finished.run()
    assert status == 1 and "precompute-slots[0] already has outputs" in out
    assert re.search(r"note: precompute-slots\[0,1\], train-predictor\[[0-9,]+\] done; if their inputs", out)
    assert "models/checkpoint_epoch_final.pth" in out
    part = "slots/x/part_0000.json"
    old = (finished.root / part).read_text()
    status, out = finished.run("--rerun")
    assert status == 0 and "if their inputs" not in out
    assert (finished.root / part).read_text() != old
    assert (finished.root / "jobs/precompute_slots/0/aside/001" / part).read_text() == old


def test_a_task_that_writes_nothing_has_not_succeeded(finished):
    finished.forget("select_decomp/0", "selected.json")
    finished.behave(select_decomp__0="silent")
    status, out = finished.run()
    assert status == 1 and "did not write selected.json" in out


def test_a_log_opens_with_the_line_that_runs_the_task_by_hand(finished_stub):
    (log,) = (finished_stub / "jobs" / "train_decomp" / "logs").glob("*_1_0_log.out")
    first, second, third = log.read_text().splitlines()[:3]
    assert first == f"python -m textocvp train-decomp -d {finished_stub}/seeds/7"
    assert second == f"rank 0 of 1 on {socket.gethostname()}"
    variables = json.loads(third[len("variables ") :])
    assert variables["TEXTOCVP_ALWAYS_RESUME"] == "1"
    assert (variables["RANK"], variables["WORLD_SIZE"]) == ("0", "1")


def test_ranks_and_threads(exp, local_site):
    local_site(resources={"train-decomp": {"tasks_per_node": 2, "cpus_per_task": 3}})
    assert exp.run(command="train-decomp")[0] == 0
    ranks = rank_variables(sorted((exp.root / "jobs" / "train_decomp" / "logs").glob("*_0_?_log.out")))
    assert [rank["RANK"] for rank in ranks] == ["0", "1"]
    assert {(rank["WORLD_SIZE"], rank["OMP_NUM_THREADS"]) for rank in ranks} == {("2", "3")}
    assert len({rank["MASTER_PORT"] for rank in ranks}) == 1


def test_the_peers_of_a_dead_rank_are_ended(exp, local_site):
    local_site(resources={"train-decomp": {"tasks_per_node": 2}})
    exp.behave(train_decomp__0="rank 1 dies")
    started = time.time()
    status, out = exp.run(command="train-decomp")
    assert time.time() - started < 60  # the peer would sleep for five minutes
    assert status == 1
    assert "train-decomp[0] (seed 3) failed: exit status 9" in out and "rank 1 is lost" in out
    failures = [event for event in read_ledger(exp.root) if event["event"] == "failed"]
    assert ("rank 1: exit status 9", "exit_status") in [(each["error"], each["cause"]) for each in failures]


def test_ctrl_c_lets_tasks_save_and_a_rerun_continues(exp):
    exp.behave(train_decomp__0="sleep")
    runner = exp.start("pipeline")
    # a second runner on the same experiment would write into the same files
    status, said = exp.run()
    assert status == 2 and "another run" in said
    runner.send_signal(signal.SIGINT)
    out, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130 and "interrupted; the same command continues" in out
    assert (exp.root / "jobs" / "train_decomp" / "0" / "saved").exists()
    assert "select_decomp/0" not in exp.done()
    exp.behave()
    assert exp.run(command="train-decomp")[0] == 0
    assert exp.done() == ["make_data/0", "prepare_data/0", "train_decomp/0", "train_decomp/1"]


def test_orphans_keep_the_experiment_locked(exp):
    exp.behave(train_decomp__0="sleep")
    runner = exp.start("train-decomp")
    runner.kill()
    runner.communicate()
    status, said = exp.run(command="train-decomp")
    assert status == 2 and "another run" in said
    os.kill(last_events(exp.root)[("train_decomp", 0)]["pid"], signal.SIGKILL)
    exp.behave()
    wait_for(lambda: exp.run(command="train-decomp")[0] == 0)


def test_an_existing_experiment_with_another_config_is_refused(finished, small_recipe):
    small_recipe(decomposition={"model": "SAVi", "dataset": "CATER_Hard", "seeds": [3, 7]})
    status, said = finished.run()
    assert status == 2 and said.startswith("error: ") and "training.num_steps: 5 -> null" in said


def test_a_narrower_request_keeps_the_shared_outputs(finished):
    finished.options[:2] = ["--exp", str(finished.root)]
    for more in ((), ("--pred", "vanilla")):
        status, out = finished.run(*more, command="evaluate")
        assert status == 0 and "14 tasks, 14 done; nothing is left to do" in out
    finished.forget("train_predictor/0")
    status, out = finished.run("--pred", "vanilla", command="train-predictor")
    assert status == 0 and "11 done; nothing to do; not done: 3 tasks not requested" in out


def test_an_edited_model_is_refused_before_anything_is_planned(finished):
    finished.options[:2] = ["--exp", str(finished.root)]
    path = finished.root / "experiment_params.json"
    values = json.loads(path.read_text())
    before = values["model"]["model_params"]["slot_dim"]
    values["model"]["model_params"]["slot_dim"] = 2 * before
    path.write_text(json.dumps(values))
    for command in ("train-decomp", "plan"):
        status, out = finished.run(command=command)
        parts = "predictors/", "model.model_params.slot_dim", f"{2 * before} as in {path}", f"got {before}"
        assert status == 2 and out.count("\n") == 1 and all(part in out for part in parts)


def test_stages_one_by_one(exp):
    assert exp.run(command="train-decomp")[0] == 0
    exp.options[:2] = ["--exp", str(exp.root)]
    assert exp.done() == ["make_data/0", "prepare_data/0", "train_decomp/0", "train_decomp/1"]
    status, said = exp.run(command="train-predictor")
    assert status == 2 and "train-predictor[0] needs precompute-slots[0], which is not done" in said
    vanilla = ("--pred", "vanilla")
    for command, more, task in (
        ("select-decomp", (), "select_decomp/0"),
        ("precompute-slots", (), "precompute_slots/1"),
        ("train-predictor", vanilla, "train_predictor/1"),
        ("train-predictor", (*vanilla, "--seeds", "1 2"), "train_predictor/3"),
        ("evaluate", vanilla, "report/0"),
    ):
        assert exp.run(*more, command=command)[0] == 0
        assert task in exp.done()
    assert "train_predictor/0" not in exp.done() and "train_predictor/2" in exp.done()


def test_seeds_of_an_experiment_made_by_hand(exp):
    create_experiment(exp.root.parent, "exp", "SAVi", "CATER_Hard")
    exp.options[:2] = ["--exp", str(exp.root)]
    assert exp.run("--seeds", "0 1 2", command="train-decomp")[0] == 0
    assert exp.done() == ["prepare_data/0", "train_decomp/0", "train_decomp/1", "train_decomp/2"]
    values = json.loads((exp.root / "seeds" / "2" / "experiment_params.json").read_text())
    assert values["training"]["seed"] == 2


def test_plan_writes_nothing(exp):
    status, out = exp.run(command="plan")
    assert status == 0
    for part in (
        "train-decomp: 1 node\n",
        "report: 1 node\n  [0]: to run",
        "after the end of train-decomp[0,1]",
        f"python -m textocvp precompute-slots -d {exp.root} --shard 1 --num_shards 2",
    ):
        assert part in out
    assert not exp.root.exists()

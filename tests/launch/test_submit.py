"""The whole path from a recipe to manifests, run here, with a stand-in for the work."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.cli import main
from launch.state.ledger import read_ledger
from textocvp.files import Space

CODE = Path(__file__).parents[2]


@pytest.fixture
def root(tmp_path):
    return tmp_path / "experiments" / "exp"


def behave(root, **behaviours):
    root.mkdir(parents=True, exist_ok=True)
    (root / "behaviour.json").write_text(
        json.dumps({f"{name.replace('__', '[').replace('_', '-')}]": how for name, how in behaviours.items()})
    )


def done(root):
    return sorted("/".join(path.parts[-3:-1]) for path in root.glob("jobs/*/*/manifest.json"))


def pipeline(recipe, site, *more):
    return main(["pipeline", "--recipe", str(recipe), "--cluster", site, *more])


def test_a_pipeline_runs_once_and_the_second_time_has_nothing_to_do(small_recipe, local_site, root, capsys):
    recipe, site = small_recipe(), local_site()
    assert pipeline(recipe, site) == 0
    assert len(done(root)) == 14
    events = [event["event"] for event in read_ledger(root)]
    assert {name: events.count(name) for name in set(events)} == {
        "submitted": 14,
        "started": 14,
        "finished": 14,
    }
    capsys.readouterr()
    assert pipeline(recipe, site) == 0
    assert "14 tasks, 14 done; nothing is left to do" in capsys.readouterr().out
    assert len(read_ledger(root)) == 42


def test_done_by_other_code_is_done_and_said(small_recipe, local_site, root, capsys):
    recipe, site = small_recipe(), local_site()
    assert pipeline(recipe, site) == 0
    assert "note:" not in capsys.readouterr().out
    for name in ("make_data/0", "report/0"):
        path = root / "jobs" / name / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "revision": "abcdef", "image": "123"}))
    assert pipeline(recipe, site) == 0
    out = capsys.readouterr().out
    assert "14 tasks, 14 done" in out
    assert re.search(r"note: 2 done tasks were created by other code \(abcdef; now \w{12}\)", out)
    assert "note: 2 done tasks were created by another image (123; now none)" in out


def test_too_little_space_is_a_warning(small_recipe, local_site, root, capsys, monkeypatch):
    monkeypatch.setattr("launch.views.plan.space_at", lambda path: Space(1000, 2000))
    assert pipeline(small_recipe(), local_site()) == 0
    assert re.search(rf"WARNING: {root}: .*[MG]B.*`make prune EXP=", capsys.readouterr().out)


def test_a_failure_is_told_and_only_the_rest_runs_next_time(small_recipe, local_site, root, capsys):
    recipe, site = small_recipe(), local_site()
    behave(root, train_predictor__1="fail")
    assert pipeline(recipe, site) == 1
    out = capsys.readouterr().out
    assert "train-predictor[1] (vanilla) failed: exit status 1" in out
    assert "log: " in out
    assert "RuntimeError: train-predictor[1] is made to fail" in out
    assert "evaluate-predictor[1] (vanilla) not started: train-predictor[1] failed" in out
    assert "evaluate_predictor/0" in done(root)
    assert "report/0" in done(root)  # it waits for the end of the others, not for their success
    behave(root)
    before = len(read_ledger(root))
    assert pipeline(recipe, site) == 0
    events = [event for event in read_ledger(root)[before:] if event["event"] == "started"]
    assert {(event["stage"], event["task"]) for event in events} == {
        ("train_predictor", 1),
        ("evaluate_predictor", 1),
        ("figures", 0),
        ("report", 0),
    }
    assert len(done(root)) == 14


def test_a_failed_seed_is_left_out_and_made_up_for_later(small_recipe, local_site, root, capsys):
    recipe, site = small_recipe(), local_site()
    behave(root, train_decomp__0="user error")
    assert pipeline(recipe, site) == 1
    assert "error: the user did it" in capsys.readouterr().out
    assert "precompute_slots/1" in done(root)
    assert "train_decomp/0" not in done(root)
    assert main(["status", "--exp", str(root), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    states = {(row["stage"], row["task"]): row["state"] for row in rows}
    assert states[("train-decomp", 0)] == "failed"
    assert states[("precompute-slots", 1)] == states[("report", 0)] == "done, may change"
    behave(root)
    assert pipeline(recipe, site) == 0  # the selection is the same: what was made from it is not made again
    log = next((root / "jobs" / "precompute_slots" / "logs").glob("*")).parent
    texts = [path.read_text() for path in sorted(log.glob("local_*_0_0_log.out"))]
    assert len(texts) == 2
    assert "is done: same config, same inputs, outputs whole" in texts[1]


def test_another_selection_is_not_mixed_with_the_old_slots(small_recipe, local_site, root, capsys):
    recipe, site = small_recipe(), local_site()
    behave(root, train_decomp__0="fail")
    assert pipeline(recipe, site) == 1
    behave(root)
    (root / "salt.txt").write_text("another choice")
    assert pipeline(recipe, site) == 1
    out = capsys.readouterr().out
    assert re.search(r"note: precompute-slots\[0,1\], train-predictor\[[0-9,]+\] done; if their inputs", out)
    assert "precompute-slots[0] already has outputs" in out
    assert "models/checkpoint_epoch_final.pth" in out
    old = (root / "slots" / "x" / "part_0000.json").read_text()
    assert pipeline(recipe, site, "--rerun") == 0
    assert "come out different" not in capsys.readouterr().out
    assert (root / "slots" / "x" / "part_0000.json").read_text() != old
    aside = root / "jobs" / "precompute_slots" / "0" / "aside" / "001" / "slots" / "x" / "part_0000.json"
    assert aside.read_text() == old


def test_a_task_that_writes_nothing_has_not_succeeded(small_recipe, local_site, root, capsys):
    behave(root, select_decomp__0="silent")
    assert pipeline(small_recipe(), local_site()) == 1
    assert "did not write models/checkpoint_epoch_final.pth, selected.json" in capsys.readouterr().out


def test_a_log_opens_with_the_line_that_runs_the_task_by_hand(small_recipe, local_site, root):
    assert pipeline(small_recipe(), local_site()) == 0
    (log,) = (root / "jobs" / "train_decomp" / "logs").glob("*_1_0_log.out")
    first, second, third = log.read_text().splitlines()[:3]
    assert first == f"python -m textocvp train-decomp -d {root}/seeds/7"
    assert second == f"rank 0 of 1 on {socket.gethostname()}"
    variables = json.loads(third[len("variables ") :])
    assert variables["TEXTOCVP_ALWAYS_RESUME"] == "1"
    assert (variables["RANK"], variables["WORLD_SIZE"]) == ("0", "1")


def test_ranks_and_threads(small_recipe, local_site, root):
    resources = {"train_decomp": {"tasks_per_node": 2, "cpus_per_task": 3}}
    assert pipeline(small_recipe(), local_site(resources=resources)) == 0
    logs = sorted((root / "jobs" / "train_decomp" / "logs").glob("*_0_?_log.out"))
    ranks = [json.loads(log.read_text().split("variables ")[1].splitlines()[0]) for log in logs]
    assert [rank["RANK"] for rank in ranks] == ["0", "1"]
    assert {rank["WORLD_SIZE"] for rank in ranks} == {"2"}
    assert {rank["OMP_NUM_THREADS"] for rank in ranks} == {"3"}
    assert len({rank["MASTER_PORT"] for rank in ranks}) == 1


def test_the_peers_of_a_dead_rank_are_ended(small_recipe, local_site, root, capsys):
    behave(root, train_decomp__0="rank 1 dies")
    started = time.time()
    assert pipeline(small_recipe(), local_site(resources={"train_decomp": {"tasks_per_node": 2}})) == 1
    assert time.time() - started < 60  # the peer would sleep for five minutes
    out = capsys.readouterr().out
    assert "train-decomp[0] (seed 3) failed: exit status 9" in out
    assert "rank 1 is lost" in out
    failures = [event for event in read_ledger(root) if event["event"] == "failed"]
    assert any("rank 1: exit status 9" in event["error"] for event in failures)


def launch(recipe, site, **settings):
    command = [sys.executable, "-m", "launch", "pipeline", "--recipe", str(recipe), "--cluster", site]
    return subprocess.Popen(
        command, cwd=CODE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **settings
    )


def wait_for(condition, seconds=60):
    deadline = time.time() + seconds
    while not condition():
        assert time.time() < deadline, "timed out"
        time.sleep(0.05)


def test_ctrl_c_lets_tasks_save_and_a_rerun_continues(small_recipe, local_site, root, capsys):
    recipe, site = small_recipe(), local_site()
    behave(root, train_decomp__0="sleep")
    runner = launch(recipe, site)
    wait_for((root / "jobs" / "train_decomp" / "0" / "asleep").exists)
    # a second runner on the same experiment would write into the same files
    assert pipeline(recipe, site) == 2
    assert "another run" in capsys.readouterr().err
    runner.send_signal(signal.SIGINT)
    out, _ = runner.communicate(timeout=60)
    assert runner.returncode == 130
    assert "interrupted; the same command continues" in out
    assert (root / "jobs" / "train_decomp" / "0" / "saved").exists()
    assert "select_decomp/0" not in done(root)
    behave(root)
    assert pipeline(recipe, site) == 0
    assert len(done(root)) == 14


def test_orphans_keep_the_experiment_locked(small_recipe, local_site, root, capsys):
    recipe, site = small_recipe(), local_site()
    behave(root, train_decomp__0="sleep")
    runner = launch(recipe, site)
    wait_for((root / "jobs" / "train_decomp" / "0" / "asleep").exists)
    (started,) = [
        event
        for event in read_ledger(root)
        if event["event"] == "started" and (event["stage"], event["task"]) == ("train_decomp", 0)
    ]
    runner.kill()
    runner.wait()
    assert pipeline(recipe, site) == 2
    assert "another run" in capsys.readouterr().err
    os.kill(started["pid"], signal.SIGKILL)
    behave(root)
    wait_for(lambda: pipeline(recipe, site) == 0)


def test_an_existing_experiment_with_another_config_is_refused(small_recipe, local_site, root, capsys):
    site = local_site()
    assert pipeline(small_recipe(), site) == 0
    other = small_recipe(decomposition={"model": "SAVi", "dataset": "CATER_Hard", "seeds": [3, 7]})
    capsys.readouterr()
    assert pipeline(other, site) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "training.num_steps: 5 -> null" in err


def test_stages_one_by_one(small_recipe, local_site, root, capsys):
    recipe, site = small_recipe(), local_site()
    exp = ["--exp", str(root), "--cluster", site]
    assert main(["train-decomp", "--recipe", str(recipe), "--cluster", site]) == 0
    assert done(root) == ["make_data/0", "prepare_data/0", "train_decomp/0", "train_decomp/1"]
    assert main(["train-predictor", *exp]) == 2
    assert "train-predictor[0] needs precompute-slots[0], which is not done" in capsys.readouterr().err
    assert main(["select-decomp", *exp]) == 0
    assert main(["precompute-slots", *exp]) == 0
    assert main(["train-predictor", *exp, "--pred", "vanilla"]) == 0
    assert [name for name in done(root) if name.startswith("train_predictor")] == ["train_predictor/1"]
    assert main(["train-predictor", *exp, "--pred", "vanilla", "--seeds", "1 2"]) == 0
    assert [name for name in done(root) if name.startswith("train_predictor")] == [
        "train_predictor/1",
        "train_predictor/2",
        "train_predictor/3",
    ]
    assert main(["evaluate", *exp, "--pred", "vanilla"]) == 0
    assert "report/0" in done(root)


def test_seeds_of_an_experiment_made_by_hand(tmp_path, local_site, root):
    from textocvp.config.experiment import create_experiment

    create_experiment(root.parent, "exp", "SAVi", "CATER_Hard")
    assert main(["train-decomp", "--exp", str(root), "--seeds", "0 1 2", "--cluster", local_site()]) == 0
    assert done(root) == ["prepare_data/0", "train_decomp/0", "train_decomp/1", "train_decomp/2"]
    assert json.loads((root / "seeds" / "2" / "experiment_params.json").read_text())["training"]["seed"] == 2


def test_plan_writes_nothing(small_recipe, local_site, root, capsys):
    assert main(["plan", "--recipe", str(small_recipe()), "--cluster", local_site()]) == 0
    out = capsys.readouterr().out
    assert "train-decomp: 1 node, limit 01:00:00" in out
    assert "after the end of train-decomp[0,1]" in out
    assert f"python -m textocvp precompute-slots -d {root} --shard 1 --num_shards 2" in out
    assert not root.exists()


def test_progress_renews_itself_on_a_terminal_only(tmp_path):
    from launch.state.task import Task
    from launch.views.watch import Watch
    from textocvp.files import write_json

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    task = Task("train_decomp", 1, "seed 7", ())
    progress = {"step": 12, "total_steps": 50, "rate": 3.0, "seconds_left": 72, "loss": 0.123456}
    write_json(tmp_path / "jobs" / "train_decomp" / "1" / "progress.json", progress)
    for stream, expected in ((Terminal(), 2), (io.StringIO(), 0)):
        watch = Watch(tmp_path, stream)
        for _ in range(2):
            watch._last -= 1.0
            watch.running([task])
        assert (
            stream.getvalue().count("train-decomp[1] (seed 7)  12/50  3.0/s  1:12 left  loss 0.1235")
            == expected
        )
        assert stream.getvalue().count("\x1b[1F\x1b[J") == expected // 2

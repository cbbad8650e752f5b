from __future__ import annotations

import json
import os
import socket

import pytest

from launch.cli import main
from launch.pipeline import from_folder, from_recipe
from launch.recipe import load_recipe, write_experiment
from launch.state import ledger
from launch.state.task import Task
from launch.views.status import task_rows, task_state
from launch.views.watch import PATIENCE, Waiting
from slurm.queue import JobState
from textocvp.config.errors import UserError
from textocvp.files import write_json


@pytest.fixture
def root(small_recipe, tmp_path):
    path = small_recipe()
    pipeline = from_recipe(load_recipe(path), tmp_path, None)
    write_experiment(pipeline.root, pipeline.files, path)
    return pipeline.root


def submitted(root, stage, task, job_id="", **more):
    log = f"jobs/{stage}/logs/x_{task}_0_log.out"
    ledger.record(root, "submitted", stage, task, job_id=job_id, cluster="local", log=log, **more)
    (root / log).parent.mkdir(parents=True, exist_ok=True)
    (root / log).write_text("".join(f"line {number}\n" for number in range(100)))


def test_a_table_of_what_is_known(root, capsys):
    submitted(root, "train_decomp", 0)
    ledger.record(root, "started", "train_decomp", 0, job_id="", host=socket.gethostname(), pid=os.getpid())
    progress = {"step": 40, "total_steps": 100, "rate": 2.5, "loss": 0.25, "seconds_left": 24}
    write_json(root / "jobs" / "train_decomp" / "0" / "progress.json", progress)
    submitted(root, "train_decomp", 1)
    ledger.record(root, "failed", "train_decomp", 1, job_id="", error="RuntimeError: no luck")
    assert main(["status", "--exp", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 14 + 1
    assert lines[3].split()[:10] == [
        "train_decomp",
        "0",
        "seed",
        "3",
        "running",
        socket.gethostname(),
        "40/100",
        "2.5/s",
        "0:24",
        "0.25",
    ]
    assert lines[4].split()[:5] == ["train_decomp", "1", "seed", "7", "failed"]
    assert lines[5].split()[:6] == ["select_decomp", "0", "best", "seed", "not", "submitted"]
    assert lines[-1] == "train_decomp[1] failed: RuntimeError: no luck"
    assert main(["status", "--exp", str(root), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[2]
    assert {
        name: row[name] for name in ("stage", "task", "state", "step", "total_steps", "loss", "restarts")
    } == {
        "stage": "train_decomp",
        "task": 0,
        "state": "running",
        "step": 40,
        "total_steps": 100,
        "loss": 0.25,
        "restarts": 0,
    }
    assert row["log"].endswith("jobs/train_decomp/logs/x_0_0_log.out")


def test_one_word_for_each_task():
    here = {"host": socket.gethostname(), "job_id": ""}
    job = {"host": "n1", "job_id": "5_0"}
    assert task_state({}, None) == "not submitted"
    assert task_state({**here, "event": "started", "pid": os.getpid()}, None) == "running"
    assert task_state({**here, "event": "started", "pid": 2**22 + 1}, None) == "interrupted"
    assert task_state({**here, "event": "stopped"}, None) == "stopped"
    assert task_state({**job, "event": "submitted"}, JobState("PENDING", "Dependency")) == "pending"
    assert task_state({**job, "event": "started"}, JobState("OUT_OF_MEMORY")) == "out_of_memory"
    assert task_state({**job, "event": "failed"}, JobState("FAILED")) == "failed"
    assert task_state({**job, "event": "started"}, JobState("FAILED")) == "failed", "it was killed"
    assert task_state({**job, "event": "stopped"}, JobState("FAILED")) == "stopped"
    assert task_state({**job, "event": "started"}, JobState("RUNNING")) == "running"
    assert task_state({**job, "event": "submitted"}, None) == "lost"
    assert task_state({**job, "event": "finished"}, None) == "out of date"


def test_logs(root, capsys):
    submitted(root, "train_decomp", 1)
    assert main(["logs", "--exp", str(root), "--stage", "train-decomp", "--task", "1", "--lines", "2"]) == 0
    out = capsys.readouterr()
    assert out.out == "line 98\nline 99\n"
    assert out.err.endswith("jobs/train_decomp/logs/x_1_0_log.out:\n")
    assert main(["logs", "--exp", str(root), "--stage", "train-decomp", "--task", "1", "--lines", "0"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 100
    (root / "jobs/train_decomp/logs/x_1_1_log.out").write_text("the other rank\n")
    options = ["--exp", str(root), "--stage", "train-decomp", "--task", "1", "--rank"]
    assert main(["logs", *options, "1"]) == 0
    assert capsys.readouterr().out == "the other rank\n"
    assert main(["logs", *options, "2"]) == 2
    assert "train_decomp[1] has not started, or has no process 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "train-decom"], "--stage train-decom: no such stage, did you mean 'train-decomp'?"),
        (["--stage", "report"], "report[0] was never submitted; submitted: train_decomp[1]"),
    ],
)
def test_logs_that_are_not_there(root, capsys, arguments, message):
    submitted(root, "train_decomp", 1)
    assert main(["logs", "--exp", str(root), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_cluster_config_that_is_gone(root):
    ledger.record(root, "submitted", "report", 0, job_id="5", cluster="gone", log="x")
    with pytest.raises(UserError, match="no cluster 'gone'"):
        task_rows(from_folder(root))


def test_waiting_tells_each_change_once(tmp_path, capsys):
    tasks = [Task("train_decomp", 0, "seed 3", ()), Task("report", 0, "", ())]
    for task, job_id in zip(tasks, ("5", "6")):
        submitted(tmp_path, *task.id, job_id)
    waiting = Waiting(tmp_path, {("train_decomp", 0): "5", ("report", 0): "6"})
    running, pending = JobState("RUNNING", "", "n1"), JobState("PENDING", "Dependency")
    for _ in range(3):
        assert waiting.look(tasks, {"5": running, "6": pending}) == tasks
    ledger.record(tmp_path, "failed", "train_decomp", 0, job_id="5", error="RuntimeError: no luck")
    assert waiting.look(tasks, {"5": JobState("FAILED"), "6": pending}) == tasks[1:]
    assert waiting.look(tasks[1:], {"6": JobState("CANCELLED")}) == []
    assert waiting.failed == tasks
    lines = [line[10:] for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [
        "train_decomp[0] (seed 3) started on n1",
        "train_decomp[0] (seed 3) failed: job 5 is FAILED: RuntimeError: no luck",
    ]
    assert lines[-1] == "report[0] not started: job 6 was cancelled, what it needs failed"


def test_a_job_that_nobody_knows_is_lost_after_a_while(tmp_path, capsys):
    task = Task("report", 0, "", ())
    submitted(tmp_path, "report", 0, "6")
    waiting = Waiting(tmp_path, {("report", 0): "6"})
    for _ in range(PATIENCE):
        assert waiting.look([task], {}) == [task]
    assert waiting.look([task], {}) == []
    assert "job 6 is UNKNOWN" in capsys.readouterr().out


def test_restarts_and_the_node_have_their_columns(root, capsys):
    submitted(root, "train_decomp", 0)
    for host in ("n1", "n2", "n2"):
        ledger.record(root, "started", "train_decomp", 0, job_id="", host=host, pid=1)
    main(["status", "--exp", str(root)])
    header, *lines = capsys.readouterr().out.splitlines()
    line = lines[2]
    assert line[header.index("node") :].split()[0] == "n2"
    assert line[header.index("restarts") :].split()[0] == "2"


def test_watching_ends_when_nothing_runs_any_more(root, capsys, monkeypatch):
    submitted(root, "train_decomp", 0)
    here = {"job_id": "", "host": socket.gethostname(), "pid": os.getpid()}
    ledger.record(root, "started", "train_decomp", 0, **here)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        ledger.record(root, "stopped", "train_decomp", 0, **here)

    monkeypatch.setattr("launch.views.status.time.sleep", sleep)
    assert main(["status", "--exp", str(root), "--watch"]) == 0
    out = capsys.readouterr().out
    assert waits == [5.0] and out.count("seed 3") == 2
    assert out.index("running") < out.index("stopped")

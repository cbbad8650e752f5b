import json
import os
import socket

import pytest

from launch.cli import main
from launch.plan import make_plan
from launch.state import ledger
from launch.views import status
from launch.views.status import Overview, task_state
from slurm.queue import JobState
from textocvp.files import UserError, write_json

HERE = {"job_id": "", "host": socket.gethostname(), "pid": os.getpid()}


def test_a_table_of_what_is_known(written, submitted, capsys):
    submitted(written, "train_decomp", 0)
    ledger.record(written, "started", "train_decomp", 0, **HERE)
    progress = {"step": 40, "total_steps": 100, "rate": 2.5, "loss": 0.25, "seconds_left": 24}
    write_json(written / "jobs" / "train_decomp" / "0" / "progress.json", progress)
    submitted(written, "train_decomp", 1)
    ledger.record(written, "failed", "train_decomp", 1, job_id="", error="RuntimeError: no luck")
    assert main(["status", "--exp", str(written)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 14 + 1
    assert (
        lines[3].split()[:10]
        == f"train-decomp 0 seed 3 running {HERE['host']} 40/100 2.5/s 0:24 0.25".split()
    )
    assert lines[4].split()[:5] == ["train-decomp", "1", "seed", "7", "failed"]
    assert lines[5].split()[:6] == ["select-decomp", "0", "best", "seed", "not", "submitted"]
    assert lines[-1] == "train-decomp[1] failed: RuntimeError: no luck"
    assert main(["status", "--exp", str(written), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[2]
    known = {"stage": "train-decomp", "task": 0, "state": "running", "restarts": 0}
    assert {**row, **known, **progress} == row
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


def test_a_cluster_config_that_is_gone(written):
    ledger.record(written, "submitted", "report", 0, job_id="5", cluster="gone", log="x")
    with pytest.raises(UserError, match="no cluster 'gone'"):
        Overview(written).rows()


def test_restarts_and_the_node_have_their_columns(written, submitted, capsys):
    submitted(written, "train_decomp", 0)
    for host in ("n1", "n2", "n2"):
        ledger.record(written, "started", "train_decomp", 0, job_id="", host=host, pid=1)
    main(["status", "--exp", str(written)])
    header, *lines = capsys.readouterr().out.splitlines()
    line = lines[2]
    assert line[header.index("node") :].split()[0] == "n2"
    assert line[header.index("restarts") :].split()[0] == "2"


def test_watching_ends_when_nothing_runs_any_more(written, submitted, capsys, monkeypatch):
    submitted(written, "train_decomp", 0)
    ledger.record(written, "started", "train_decomp", 0, **HERE)
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        ledger.record(written, "stopped", "train_decomp", 0, **HERE)

    monkeypatch.setattr("launch.views.status.time.sleep", sleep)
    assert main(["status", "--exp", str(written), "--watch"]) == 0
    out = capsys.readouterr().out
    assert waits == [5.0] and out.count("seed 3") == 2
    assert out.index("running") < out.index("stopped")


def test_a_watched_status_is_planned_again_only_when_the_ledger_changes(written, submitted, monkeypatch):
    plans = []
    counted = lambda *args, **more: plans.append(1) or make_plan(*args, **more)  # noqa: E731
    monkeypatch.setattr(status, "make_plan", counted)
    submitted(written, "train_decomp", 0)
    ledger.record(written, "started", "train_decomp", 0, **HERE)
    overview = status.Overview(written)
    for step in (1, 2):
        progress = {"step": step, "total_steps": 9}
        write_json(written / "jobs" / "train_decomp" / "0" / "progress.json", progress)
        assert overview.rows()[2].step == step and len(plans) == 1
    ledger.record(written, "stopped", "train_decomp", 0, job_id="")
    assert overview.rows()[2].state == "stopped" and len(plans) == 2

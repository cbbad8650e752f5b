import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from launch import job
from launch.state.attempt import slurm_rank_variables
from launch.state.ledger import read_ledger
from launch.state.manifest import InputError, Records, check_upstream, write_manifest
from launch.state.task import ANY, Edge, Task, job_folder, write_task

from .conftest import wait_for

CODE = Path(__file__).parents[2]
FIRST = Task("make_data", 0, "", ("make-data",), {"n": 1}, outputs=("data.txt",))
AFTER = (Edge("make_data", 0),)
SECOND = Task("train_decomp", 0, "", ("train-decomp",), {"lr": 1}, ("data.txt",), ("model.txt",), after=AFTER)


def run(python, root, task):
    path = write_task(root, task)
    command = [python, "-u", "-m", "launch.job", str(path)]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment["PYTHONPATH"] = str(CODE)
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=root, timeout=60)


def test_a_raising_job_exits_non_zero_and_a_commands_own_status_is_kept(stub_python, tmp_path):
    (tmp_path / "behaviour.json").write_text('{"make-data[0]": "fail"}')
    result = run(stub_python, tmp_path, FIRST)
    assert result.returncode == 1
    assert "RuntimeError: make-data[0] is made to fail" in result.stderr
    assert not (job_folder(tmp_path, "make_data", 0) / "manifest.json").exists()
    started, failed = read_ledger(tmp_path)
    assert (started["event"], failed["event"]) == ("started", "failed")
    assert (failed["cause"], failed["error"]) == ("exception", "RuntimeError: make-data[0] is made to fail")
    (tmp_path / "behaviour.json").write_text('{"make-data[0]": "user error"}')
    assert run(stub_python, tmp_path, FIRST).returncode == 2


def test_the_real_command_runs_in_process(tmp_path):
    names = "--name x --model_name SAVi --dataset_name CATER_Hard".split()
    argv = ("create-experiment", "-d", str(tmp_path), *names)
    task = Task("make_data", 0, "", argv, outputs=("x/experiment_params.json",))
    result = run(sys.executable, tmp_path, task)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"python -m textocvp create-experiment -d {tmp_path} --name x ")
    manifest = Records(tmp_path).manifest(("make_data", 0))
    assert list(manifest.outputs) == ["x/experiment_params.json"]


def test_what_a_command_refuses_is_one_line_in_log_and_ledger(tmp_path):
    result = run(sys.executable, tmp_path, Task("report", 0, "", ("report", "-d", str(tmp_path))))
    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    last = read_ledger(tmp_path)[-1]
    assert line == f"error: report[0]: {last['error']}" and last["error"].startswith(str(tmp_path))
    assert (last["event"], last["cause"]) == ("failed", "refused")


def test_a_job_looks_at_its_inputs_itself(stub_python, tmp_path):
    result = run(stub_python, tmp_path, SECOND)
    assert result.returncode == 2
    assert "error: train-decomp[0] needs make-data[0], which was never submitted" in result.stderr
    write_task(tmp_path, FIRST)
    assert "make-data[0], which is not done: it has not run yet" in run(stub_python, tmp_path, SECOND).stderr
    assert run(stub_python, tmp_path, FIRST).returncode == 0
    assert run(stub_python, tmp_path, SECOND).returncode == 0
    (tmp_path / "data.txt").unlink()
    result = run(stub_python, tmp_path, replace(SECOND, index=1))
    assert "make-data[0], which is not done:" in result.stderr
    assert "data.txt: missing" in result.stderr


def test_what_was_made_from_something_older_is_not_read(stub_python, tmp_path):
    after = (Edge("train_decomp", 0),)
    third = Task("select_decomp", 0, "", ("x",), {}, ("model.txt",), ("c.txt",), after=after)
    for task in (FIRST, SECOND, third):
        assert run(stub_python, tmp_path, task).returncode == 0
    (tmp_path / "salt.txt").write_text("new data")
    (job_folder(tmp_path, "make_data", 0) / "manifest.json").unlink()
    assert run(stub_python, tmp_path, FIRST).returncode == 0
    # an edge that was dropped: train_decomp has not run again
    result = run(stub_python, tmp_path, third)
    assert result.returncode == 2
    parts = ("needs train-decomp[0], which is not done", "different inputs: data.txt")
    assert all(part in result.stderr for part in parts)


def test_done_means_done(stub_python, tmp_path):
    request = write_task(tmp_path, FIRST).with_name("requeue_request")
    request.touch()
    assert run(stub_python, tmp_path, FIRST).returncode == 0
    assert not request.exists(), "of an attempt that was killed"
    (tmp_path / "behaviour.json").write_text('{"make-data[0]": "fail"}')
    result = run(stub_python, tmp_path, FIRST)
    assert result.returncode == 0
    assert "make-data[0] is done: same config, same inputs, complete outputs" in result.stdout


def test_what_has_only_to_end_may_be_missing(tmp_path):
    task = replace(SECOND, after=(Edge("make_data", 0, ANY),))
    check_upstream(Records(tmp_path), task)
    with pytest.raises(InputError):
        check_upstream(Records(tmp_path), SECOND)


def test_rank_variables_come_from_srun():
    given = "PROCID=3 NTASKS=4 JOB_NUM_NODES=2 LOCALID=1 LAUNCH_NODE_IPADDR=10.0.0.7 JOB_ID=40017"
    made = "RANK=3 WORLD_SIZE=4 LOCAL_RANK=1 LOCAL_WORLD_SIZE=2 MASTER_ADDR=10.0.0.7 MASTER_PORT=24017"
    environment = dict(f"SLURM_{word}".split("=") for word in given.split())
    assert slurm_rank_variables(environment) == dict(word.split("=") for word in made.split())


def test_a_stage_without_handlers_leaves_sigterm_to_the_scheduler(stub_python, tmp_path):
    """By itself it would end in the grace time of a preemption, count as failed and not be queued again."""
    (tmp_path / "behaviour.json").write_text('{"make-data[0]": "sleep"}')
    path = write_task(tmp_path, FIRST)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0"}
    own = {"PYTHONPATH": str(CODE), "SUBMITIT_EXECUTOR": "slurm", "TEXTOCVP_TERM_WAIT": "1.5"}
    environment = {**os.environ, **slurm, **own}
    command = [stub_python, "-u", "-m", "launch.job", str(path)]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path)
    try:
        wait_for((path.parent / "asleep").exists, 30, 0.05)
        process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
    finally:
        process.kill()
    assert [event["event"] for event in read_ledger(tmp_path)] == ["started", "stopped"]


def test_a_job_waits_for_what_another_node_has_just_written(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "CACHE_SECONDS", 20.0)
    monkeypatch.setattr(job, "POLL_SECONDS", 0.1)
    write_task(tmp_path, FIRST)
    with pytest.raises(InputError):  # by hand or without a scheduler at once
        job.checked_records(tmp_path, SECOND)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "data.txt").write_text("data")
    about = {"revision": "", "image": "", "versions": {}}
    later = threading.Timer(0.5, write_manifest, (tmp_path, FIRST, {}, 1.0, about))
    later.start()
    assert job.checked_records(tmp_path, SECOND).manifest(("make_data", 0)) is not None
    later.join()

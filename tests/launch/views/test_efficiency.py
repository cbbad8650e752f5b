import os
import re
import shutil

import pytest
import yaml

from launch import CODE
from launch.cli import main
from launch.state import ledger
from launch.state.task import TaskId
from launch.views.efficiency import GB, MEMORY_STEPS, TIME_STEPS, Used, rounded_up, suggestion
from slurm.accounting import Usage
from slurm.options import format_time


def used(task=0, state="COMPLETED", seconds=100.0, **usage):
    values = {"cpu_seconds": 0.9 * seconds, "core_seconds": 4 * seconds, "limit_seconds": 3600.0}
    values.update({"memory": int(0.9 * GB), "asked_memory": 8 * GB, **usage})
    resources = {"cpus_per_task": 4, "time": "01:00:00", "mem_gb": 8.0}
    return Used(
        TaskId("train_decomp", task), f"7_{task}", Usage(state, 1, seconds, **values), resources, True
    )


def test_what_would_have_been_enough_or_was_too_little():
    text = suggestion("train-decomp", [used(), used(1, seconds=700.0, memory=GB)])
    assert text == (
        "train-decomp: time=00:20:00 mem_gb=1.5 cpus_per_task=1 would have been enough "
        "(resources.train-decomp in the cluster's config)"
    )
    fits = used(seconds=3000.0, cpu_seconds=11_000.0, memory=7 * GB)
    assert suggestion("train-decomp", [fits]) == "train-decomp: the requested resources fit"
    text = suggestion("x", [used(cpu_seconds=300.0, core_seconds=800.0, processes=2)])
    assert "cpus_per_task=2 " in text  # of four each, one and a half were busy
    assert suggestion("x", [used(), used(1, state="TIMEOUT")]) == (
        "x: time=01:00:00 was too little for task 1; raise resources.x.time in the cluster's config"
    )
    assert "mem_gb=8.0 was too little for task 0" in suggestion("x", [used(state="OUT_OF_MEMORY")])
    assert suggestion("x", [used(state="FAILED")]) == "x: no task has succeeded yet"


def test_times_and_memory_are_rounded_up():
    times = [format_time(rounded_up(seconds, TIME_STEPS)) for seconds in (1, 301, 3601, 7 * 3600 + 1, 90_000)]
    assert times == "00:05:00 00:10:00 01:15:00 08:00:00 1-06:00:00".split()
    assert [rounded_up(asked, MEMORY_STEPS) for asked in (0.1, 3.6, 4.1, 17, 65)] == [0.5, 4, 5, 20, 72]


def test_nothing_was_submitted(written, capsys):
    assert main(["efficiency", "--exp", str(written)]) == 2
    assert capsys.readouterr().err == f"error: {written}: nothing was submitted yet\n"


def test_without_a_scheduler_the_ledgers_seconds_count(written, capsys):
    resources = {"time": "01:00:00", "mem_gb": None, "cpus_per_task": None}
    ledger.record(written, "submitted", "make_data", 0, job_id="", cluster="local", resources=resources)
    ledger.record(written, "started", "make_data", 0, job_id="")
    ledger.record(written, "finished", "make_data", 0, job_id="", seconds=412.0)
    assert main(["efficiency", "--exp", str(written)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["make-data", "0", "completed", "1", "6:52"]
    assert lines[2].startswith("memory and cores are known only for jobs in Slurm")
    assert len(lines) == 3, "without limits there is nothing to suggest"


@pytest.mark.cluster
def test_on_a_cluster(slurm_site, tmp_path, capsys, monkeypatch):
    """Real generated data and stores, a training as an array; sacct is asked once."""
    recipe = yaml.safe_load((CODE / "experiments" / "recipes" / "smoke.yaml").read_text())
    recipe["predictors"] = []
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    counted = tmp_path / "bin" / "sacct"
    counted.parent.mkdir()
    counted.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\nexec {shutil.which("sacct")} "$@"\n')
    counted.chmod(0o755)
    site = slurm_site(mem_gb=3, time="00:30:00")
    arguments = ["--recipe", str(tmp_path / "recipe.yaml"), "--cluster", site]
    assert main(["train-decomp", *arguments, "--wait"]) == 0
    monkeypatch.setenv("PATH", f"{counted.parent}:{os.environ['PATH']}")
    for _ in range(10):  # the accounting lags
        (tmp_path / "calls").unlink(missing_ok=True)
        capsys.readouterr()
        assert main(["efficiency", "--exp", str(tmp_path / "smoke")]) == 0
        out = capsys.readouterr().out
        if out.count("completed") == 4 and "sacct" not in out:
            break
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    row = next(line for line in out.splitlines() if re.match(r"train-decomp +1 ", line))
    pattern = r"train-decomp +1 +\d+_1 +completed +1 +(\d+):(\d\d) +30:00 +(\d\.\d\d) GB +3\.00 GB +(\d+) %"
    found = re.fullmatch(pattern, row)
    assert found, out
    minutes, seconds, memory, cores = map(float, found.groups())
    assert 60 * minutes + seconds >= 3 and 0.1 < memory < 2 and 10 < cores <= 120
    enough = r"^train-decomp: time=00:05:00 mem_gb=\S+ would have been enough"
    assert re.search(enough, out, re.MULTILINE), out

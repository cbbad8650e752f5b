"""A training into a file system that gets full: a small tmpfs, where one can be mounted."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launch import CODE
from launch.cli import main
from launch.state.ledger import last_events, read_ledger
from launch.state.snapshot import tree_files
from textocvp.training.resume_state import ResumeFolder

from .conftest import smoke_recipe

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(mount_small):
    """A file system of 3 MB."""
    return mount_small("3m")


@pytest.fixture
def experiment(small_disk, tmp_path):
    """Arguments of the pipeline of a tiny SAVi that saves at each of its 24 steps, and keeps every epoch."""
    settings = {"num_steps": 24, "save_every_steps": 1, "save_frequency": 1, "zero_stage": 0}
    recipe = smoke_recipe(tmp_path, "full", settings, (), {"num_train": 8}, predictors=[])

    def arguments(ranks=1):
        site = {"scheduler": "local", "paths": {"experiments": str(small_disk)}}
        site["resources"] = {"train_decomp": {"tasks_per_node": ranks}}
        (tmp_path / "site.yaml").write_text(yaml.safe_dump(site))
        return ["--recipe", recipe, "--cluster", str(tmp_path / "site.yaml")]

    return arguments


def assert_ended_well(root, ledger, ranks):
    """One line in each log, the same in the ledger, older states whole, nothing half-written."""
    logs = [path.read_text() for path in sorted(root.glob("jobs/train_decomp/logs/*_log.out"))]
    assert len(logs) == ranks
    for log in logs:
        assert "Traceback" not in log, log
    lines = [line for log in logs for line in log.splitlines() if line.startswith("error: ")]
    assert 1 <= len(lines) <= ranks
    assert "no space left on device" in lines[0] and f"{root}/" in lines[0]
    assert re.search(rf"; `make prune EXP={root}` would free \d+ B$", lines[0])  # pickles of ended jobs
    last = ledger[-1]
    assert (last["event"], last["cause"]) == ("failed", "disk_full")
    assert last["error"].startswith(f"{root}/") and last["error"] in lines[0]
    state = ResumeFolder(root / "resume").newest_intact()
    checkpoints = {int(path.stem.split("_")[-1]) for path in root.glob("models/checkpoint_epoch_*.pth")}
    steps = 2 * max(checkpoints)  # an epoch is two steps, and a state is saved at each
    assert steps >= 4 and int(state.name.split("_")[1]) in (steps - 1, steps, steps + 1, steps + 2)
    assert not [path for path in root.rglob(".*") if path.name.endswith(".tmp")]
    assert not (root / "jobs/train_decomp/0/requeue_request").exists()


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_training_fills_the_disk_and_goes_on_when_there_is_more(
    small_disk, mount_small, experiment, capsys, ranks
):
    root = small_disk / "full"
    assert main(["train-decomp", *experiment(ranks), "--wait"]) == 1
    out = capsys.readouterr().out
    assert "train-decomp[0] failed: exit status 2" in out
    assert_ended_well(root, read_ledger(root), ranks)
    assert main(["why", "--exp", str(root)]) == 0
    why = capsys.readouterr().out.splitlines()
    assert why[0].startswith("train-decomp[0] failed, on ") and "no space left on device" in why[0]
    assert why[-1].startswith("what to do: free space") and "make prune" in why[-1]

    mount_small("64m")
    assert main(["train-decomp", *experiment(ranks), "--wait"]) == 0
    assert (root / "models" / "checkpoint_epoch_final.pth").is_file()
    logs = [path.read_text() for path in root.glob("jobs/train_decomp/logs/*_0_log.out")]
    assert sum("continuing from" in log for log in logs) == 1


def snapshot_bytes():
    """Of the code on a file system of pages."""
    return sum(-(-(CODE / name).lstat().st_size // 4096) * 4096 for name in tree_files(CODE))


@pytest.mark.cluster
def test_a_job_that_finds_no_space_fails_and_is_not_queued_again(
    mount_small, experiment, slurm_site, slurm, capsys
):
    small_disk, arguments = mount_small("3m"), experiment()
    slurm_site(mem_gb=2, paths={"experiments": str(small_disk)})
    root = small_disk / "full"
    stale = root / "jobs/train_decomp/0/requeue_request"  # of an attempt whose node died
    stale.parent.mkdir(parents=True)
    stale.touch()
    assert main(["train-decomp", *arguments]) == 2  # no place for the code's snapshot
    line = capsys.readouterr().err
    assert re.fullmatch(r"error: \S+/jobs/snapshots/\S+: no space left on device: .*\n", line)
    assert not list(root.glob("jobs/snapshots/.*"))
    mount_small(f"{snapshot_bytes() // 1024 + 3400}k")
    assert main(["train-decomp", *arguments, "--wait"]) == 1
    assert_ended_well(root, read_ledger(root), ranks=1)
    job = last_events(root)[("train_decomp", 0)]["job_id"]
    time.sleep(3)  # the accounting lags
    options = "--noheader --parsable2 --duplicates --allocations --format=State,ExitCode --jobs".split()
    assert slurm("sacct", *options, job) == "FAILED|2:0", "one attempt"


def by_hand(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "TEXTOCVP_JOB_DIR"}
    command = [sys.executable, "-m", "textocvp", *map(str, arguments)]
    return subprocess.run(command, cwd=CODE, text=True, capture_output=True, env=environment, timeout=300)


def assert_one_line(result, command):
    lines = [line for line in result.stderr.splitlines() if "space" in line or "Error" in line]
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith(f"error: {command}: "), result.stderr
    assert "no space left on device" in lines[0]
    assert lines[0].endswith("free some space or request quota and run it again; finished outputs are kept")
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("dataset", ["CATER_Hard", "CLIPort"])
def test_generated_data_fill_the_disk(small_disk, dataset):
    numbers = ("--num_train", 4000, "--num_valid", 2, "--num_test", 2, "--size", 64)
    out = small_disk / "data"
    made = by_hand("make-data", "--dataset", dataset, "--out", out, *numbers, "--workers", 2)
    assert_one_line(made, "make-data")
    assert not [path for path in (small_disk / "data").rglob(".*") if path.name != ".lock"]


def test_a_frame_store_fills_the_disk(small_disk, experiment):
    root = small_disk / "full"
    assert main(["train-decomp", *experiment(), "--wait"]) == 1
    for path in root.glob("models/checkpoint_epoch_[0-9]*.pth"):
        path.unlink()
    subprocess.run(["rm", "-r", root / "frames", root / "resume"], check=True)
    free = os.statvfs(root)
    (root / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - 100_000))
    assert_one_line(by_hand("prepare-data", "-d", root, "--workers", 2), "prepare-data")
    assert not [path for path in root.rglob(".*") if path.name.endswith(".tmp")]
    Path(root / "ballast").unlink()
    assert by_hand("prepare-data", "-d", root, "--workers", 2).returncode == 0

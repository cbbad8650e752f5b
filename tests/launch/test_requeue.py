"""Jobs that are stopped on a real Slurm: asked to save, preempted, cancelled; real training, two nodes."""

import os
import signal
import time

import pytest

from launch.cli import main
from launch.state.ledger import last_events, read_ledger

from .conftest import done, smoke_recipe, step_of, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
STEPS, TRAINED = 260, "train_decomp/0"


@pytest.fixture
def train(slurm_site, tmp_path):
    """Submits the training of a tiny SAVi on two nodes with ZeRO-2; returns EXP."""

    def submit(name, seeds=(), **values):
        settings = {"num_steps": STEPS, "zero_stage": 2, "save_every_steps": 1000, "batch_size": 2}
        recipe = smoke_recipe(tmp_path, name, settings, seeds, predictors=[])
        site = slurm_site(1.5, "01:00:00", {"train_decomp": {"nodes": 2, "mem_gb": 2}}, **values)
        assert main(["train-decomp", "--recipe", recipe, "--cluster", site]) == 0
        return tmp_path / name

    return submit


def log_of(root, task=0):
    return (root / last_events(root)[("train_decomp", task)]["log"]).read_text()


def state_of(slurm, job):
    return slurm("squeue", "--noheader", "--jobs", job, "--states=all", "--format=%T")


def weights(root):
    from textocvp.training.checkpoint import load_pth

    return load_pth(root / "models/checkpoint_epoch_final.pth")["model_state_dict"]


def test_stopped_and_preempted_jobs_end_as_if_nothing_had_happened(train, slurm):
    undisturbed = train("undisturbed")
    wait_for(lambda: TRAINED in done(undisturbed))

    root = train("disturbed")
    job = last_events(root)[("train_decomp", 0)]["job_id"]
    wait_for(lambda: 0 < step_of(root) < STEPS - 60)
    slurm("scancel", "--signal=USR2", job)
    wait_for(lambda: "continuing from" in log_of(root))
    wait_for(lambda: step_of(root) > 0 and log_of(root).count("continuing from") == 1)
    options = "--parsable --partition=urgent --nodes=2 --exclusive --output=/dev/null".split()
    urgent = slurm("sbatch", *options, "--wrap=sleep 2")
    wait_for(lambda: TRAINED in done(root))
    assert state_of(slurm, urgent) == "COMPLETED"
    log, ours, theirs = log_of(root), weights(root), weights(undisturbed)
    assert "stopped by SIGUSR2, state saved" in log and log.count("continuing from") >= 1
    for name, value in theirs.items():
        assert (ours[name] == value).all(), name
    stops = [event for event in read_ledger(root) if event["event"] == "stopped"]
    assert stops and all(event["step"] > 0 for event in stops)


def test_the_last_element_of_an_array_is_queued_again_alone(train, slurm):
    root = train("seeds", seeds=(0, 1))
    wait_for(lambda: all(0 < step_of(root, task) < STEPS - 60 for task in (0, 1)))
    slurm("scancel", "--signal=USR2", last_events(root)[("train_decomp", 1)]["job_id"])
    wait_for(lambda: {TRAINED, "train_decomp/1"} <= set(done(root)))
    assert "continuing from" in log_of(root, 1)
    assert "continuing from" not in log_of(root, 0) and last_events(root)[("train_decomp", 0)]["starts"] == 1


def test_a_cancelled_job_stays_cancelled_and_is_continued_by_the_same_command(train, slurm):
    root = train("cancelled")
    job = last_events(root)[("train_decomp", 0)]["job_id"]
    wait_for(lambda: 0 < step_of(root) < STEPS - 60)
    slurm("scancel", job)
    wait_for(lambda: state_of(slurm, job) == "CANCELLED")
    time.sleep(8)
    assert state_of(slurm, job) == "CANCELLED"
    train("cancelled")
    wait_for(lambda: TRAINED in done(root))
    assert last_events(root)[("train_decomp", 0)]["job_id"] != job


def test_a_training_that_hangs_ends_with_stacks_and_its_node(train, slurm, pid_of_rank, capsys):
    root = train("hanging", hang_minutes=0.1)
    job = last_events(root)[("train_decomp", 0)]["job_id"]
    wait_for(lambda: step_of(root) > 0)
    os.kill(pid_of_rank(job, 1), signal.SIGSTOP)
    wait_for(lambda: state_of(slurm, job) == "FAILED")
    log = log_of(root)
    assert "rank 0 of 2 on n1" in log
    assert "Timeout (0:00:06)!" in log and 'training/loop.py", line' in log
    assert main(["why", "--exp", str(root)]) == 0
    said = capsys.readouterr().out
    assert "failed, job " in said and ", on n[1-2], exit code 1:0" in said
    assert "  Timeout (0:00:06)!" in said
    assert "what to do: a process made no progress" in said and "make logs" in said

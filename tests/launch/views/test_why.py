from __future__ import annotations

import pytest

from launch.cli import main
from launch.pipeline import from_recipe
from launch.recipe import load_recipe, write_experiment
from launch.state import ledger
from launch.state.manifest import Manifest, describe_outputs
from launch.views.why import AGAIN, first_broken, why_lines


@pytest.fixture
def root(small_recipe, tmp_path):
    path = small_recipe()
    pipeline = from_recipe(load_recipe(path), tmp_path, None)
    write_experiment(pipeline.root, pipeline.files, path)
    return pipeline.root


def failed(root, stage, task, error, log):
    name = f"jobs/{stage}/logs/x_{task}_0_log.out"
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(log)
    ledger.record(root, "submitted", stage, task, job_id="", cluster="local", log=name)
    ledger.record(root, "failed", stage, task, job_id="", error=error)


def why(root, capsys):
    capsys.readouterr()
    assert main(["why", "--exp", str(root)]) == 0
    return capsys.readouterr().out


def test_the_first_failure_with_its_log_and_advice(root, capsys):
    trace = 'python\nTraceback (most recent call last):\n  File "x.py", line 1\nRuntimeError: no luck\n'
    failed(root, "train_predictor", 1, "RuntimeError: later", trace)
    failed(root, "train_decomp", 1, "RuntimeError: no luck", trace)
    lines = why(root, capsys).splitlines()
    assert lines[0] == "train_decomp[1] (seed 7) failed: RuntimeError: no luck"
    assert "  RuntimeError: no luck" in lines
    assert lines[-3] == f"log: {root / 'jobs/train_decomp/logs/x_1_0_log.out'}"
    assert lines[-2] == "failed too: train_predictor[1]"
    assert lines[-1].startswith("what to do: read the log; once the cause is mended, run the same")


@pytest.mark.parametrize(
    ("log", "advice"),
    [
        ("error: train-decomp: data: no such data folder\n", "mend what the line says"),
        ("Traceback (most recent call last):\ntorch.OutOfMemoryError: CUDA\n", "lower training.batch_size"),
        ("Traceback (most recent call last):\nOSError: [Errno 28] No space left on device\n", "free space"),
        (
            "Traceback (most recent call last):\nModuleNotFoundError: No module named 'h5py'\n",
            "lacks a package",
        ),
    ],
)
def test_known_causes_have_their_advice(root, capsys, log, advice):
    failed(root, "train_decomp", 0, "Error: x", log)
    assert advice in why(root, capsys).splitlines()[-1]


@pytest.mark.parametrize(
    ("state", "error", "advice"),
    [
        ("timeout", "", "raise resources.train_decomp.time"),
        ("preempted", "", "the site ends preempted jobs for good"),
        ("stopped", "", "run the same command again"),
        ("node_fail", "", "the node died"),
        ("failed", "TimeoutError: rank 0 gave no word in 600 s", "read the log"),
    ],
)
def test_each_state_that_ends_a_task_is_told(state, error, advice):
    row = {
        "stage": "train_decomp",
        "task": 0,
        "label": "",
        "state": state,
        "job_id": "5",
        "node": "n1",
        "exit_code": "",
        "error": error,
        "log": "",
    }
    lines = why_lines([{**row, "state": "done"}, row])
    assert lines[0].startswith(f"train_decomp[0] {state}, job 5, on n1")
    assert lines[-1].startswith(f"what to do: {advice}")


def test_nothing_failed(root, capsys):
    assert why(root, capsys).startswith("nothing failed: 14 not submitted")


def test_cancel_without_jobs(root, capsys):
    assert main(["cancel", "--exp", str(root)]) == 0
    assert "0 jobs cancelled" in capsys.readouterr().out


def test_verify_finds_what_changed_behind_its_back(root, capsys):
    assert main(["verify", "--exp", str(root)]) == 2
    assert "no task has finished there" in capsys.readouterr().err
    (root / "a.txt").write_text("whole")
    (root / "b.txt").write_text("whole")
    outputs = describe_outputs(root, [root / "a.txt", root / "b.txt"])
    manifest = Manifest("make_data", 0, "key", outputs=outputs)
    manifest.write(root / "jobs/make_data/0/manifest.json")
    assert main(["verify", "--exp", str(root)]) == 0
    assert "2 files, 0 missing or damaged" in capsys.readouterr().out
    (root / "a.txt").write_text("WHOLE")
    (root / "b.txt").unlink()
    assert main(["verify", "--exp", str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "make_data[0]" in lines[0] and "a.txt: content differs" in lines[0]
    assert "b.txt: missing" in lines[1] and "2 missing or damaged; remove what is damaged, then" in lines[2]


def row(stage, state, node="", exit_code="", error=""):
    return {
        "stage": stage,
        "task": 0,
        "label": "",
        "state": state,
        "node": node,
        "exit_code": exit_code,
        "error": error,
        "log": "",
        "job_id": "7",
    }


def test_a_task_that_was_cancelled_while_it_ran_comes_before_what_failed_for_its_sake():
    training = row("train_decomp", "cancelled", "n1", "0:15")
    report = row("report", "failed", "n1", "2:0", "incomplete: seed 0")
    assert first_broken([training, report]) is training
    waiting = row("train_decomp", "cancelled", exit_code="0:0")
    assert first_broken([waiting, report]) is report, "cancelled in the queue"
    assert first_broken([row("make_data", "done"), waiting]) is waiting
    assert why_lines([training, report])[1:3] == ["failed too: report[0]", f"what to do: {AGAIN}"]
    assert why_lines([report])[0] == "report[0] failed, job 7, on n1, exit code 2:0: incomplete: seed 0"


def test_a_damaged_manifest_says_what_to_do(root, capsys):
    path = root / "jobs/make_data/0/manifest.json"
    path.parent.mkdir(parents=True)
    for text, what in (
        ("{bad", "damaged, not valid JSON"),
        ("{}", "no manifest of schema 1"),
        ('{"schema": 1, "stage": "x"}', "damaged manifest"),
    ):
        path.write_text(text)
        assert main(["status", "--exp", str(root)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {path}: {what}") and "remove the file, then its task" in line
    path.unlink()
    assert main(["status", "--exp", str(root)]) == 0

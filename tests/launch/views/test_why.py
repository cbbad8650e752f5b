from dataclasses import replace

import pytest

from launch.cli import main
from launch.state import ledger
from launch.state.manifest import Manifest, describe_outputs
from launch.views.status import TaskRow
from launch.views.why import AGAIN, first_broken, why_lines

TRACE = 'python\nTraceback (most recent call last):\n  File "x.py", line 1\n'


def why(root, capsys):
    capsys.readouterr()
    assert main(["why", "--exp", str(root)]) == 0
    return capsys.readouterr().out


def test_the_first_failure_with_its_log_and_advice(written, submitted, capsys):
    for stage, error in (("train_predictor", "later"), ("train_decomp", "no luck")):
        log = submitted(written, stage, 1, log=f"{TRACE}RuntimeError: {error}\n")
        ledger.record(written, "failed", stage, 1, job_id="", error=f"RuntimeError: {error}")
    lines = why(written, capsys).splitlines()
    assert lines[0] == "train-decomp[1] (seed 7) failed: RuntimeError: no luck"
    assert "  RuntimeError: no luck" in lines
    assert lines[-3:-1] == [f"log: {log}", "failed too: train-predictor[1]"]
    assert lines[-1].startswith("what to do: read the log, fix the cause")


@pytest.mark.parametrize(
    ("state", "facts", "log", "advice"),
    [
        ("failed", {}, "error: train-decomp: data: no such data folder\n", "fix the reported problem"),
        ("failed", {"cause": "refused", "error": "no such data folder"}, "", "fix the reported problem"),
        ("failed", {}, f"{TRACE}torch.OutOfMemoryError: CUDA\n", "lower training.batch_size"),
        ("failed", {}, f"{TRACE}OSError: [Errno 28] No space left on device\n", "free space"),
        ("failed", {"cause": "disk_full", "error": "any words"}, "", "free space"),
        ("failed", {}, f"{TRACE}ModuleNotFoundError: No module named 'h5py'\n", "the jobs' python lacks"),
        ("failed", {"error": "TimeoutError: no decision of rank 0"}, "", "read the log"),
        ("timeout", {}, "", "raise resources.train-decomp.time"),
        ("preempted", {}, "", "the site does not requeue preempted jobs"),
        ("stopped", {}, "", "run the same command again"),
        ("node_fail", {}, "", "the node failed"),
    ],
)
def test_what_is_known_decides_what_to_do(tmp_path, state, facts, log, advice):
    (tmp_path / "log").write_text(log)
    row = TaskRow("train_decomp", 0, state=state, job_id="5", node="n1", log=str(tmp_path / "log"), **facts)
    lines = why_lines([replace(row, state="done"), row])
    assert lines[0].startswith(f"train-decomp[0] {state}, job 5, on n1")
    assert lines[-1].startswith(f"what to do: {advice}")


def test_nothing_failed_and_nothing_to_cancel(written, capsys):
    assert why(written, capsys).startswith("nothing failed: 14 not submitted")

    assert main(["cancel", "--exp", str(written)]) == 0
    assert "0 jobs cancelled" in capsys.readouterr().out


def test_verify_finds_what_changed_behind_its_back(written, capsys):
    assert main(["verify", "--exp", str(written)]) == 2
    assert "no task has finished" in capsys.readouterr().err
    (written / "a.txt").write_text("whole")
    (written / "b.txt").write_text("whole")
    outputs = describe_outputs(written, [written / "a.txt", written / "b.txt"])
    manifest = Manifest("make_data", 0, "key", outputs=outputs)
    manifest.write(written / "jobs/make_data/0/manifest.json")
    assert main(["verify", "--exp", str(written)]) == 0
    assert "2 files, 0 missing or damaged" in capsys.readouterr().out
    (written / "a.txt").write_text("WHOLE")
    (written / "b.txt").unlink()
    assert main(["verify", "--exp", str(written)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "make-data[0]" in lines[0] and "a.txt: content differs" in lines[0]
    assert "b.txt: missing" in lines[1] and "2 missing or damaged" in lines[2]


def row(stage, state, node="", exit_code="", error=""):
    return TaskRow(stage, 0, state=state, node=node, exit_code=exit_code, error=error, job_id="7")


def test_a_task_that_was_cancelled_while_it_ran_comes_before_what_failed_for_its_sake():
    training = row("train_decomp", "cancelled", "n1", "0:15")
    report = row("report", "failed", "n1", "2:0", "incomplete: seed 0")
    assert first_broken([training, report]) is training
    waiting = row("train_decomp", "cancelled", exit_code="0:0")
    assert first_broken([waiting, report]) is report, "cancelled in the queue"
    assert first_broken([row("make_data", "done"), waiting]) is waiting
    assert why_lines([training, report])[1:3] == ["failed too: report[0]", f"what to do: {AGAIN}"]
    assert why_lines([report])[0] == "report[0] failed, job 7, on n1, exit code 2:0: incomplete: seed 0"


def test_a_damaged_manifest_says_what_to_do(written, capsys):
    path = written / "jobs/make_data/0/manifest.json"
    path.parent.mkdir(parents=True)
    for text, what in (
        ("{bad", "damaged, not valid JSON"),
        ("{}", "expected a manifest of schema 1"),
        ("[]", "expected a manifest of schema 1"),
        ('{"schema": 9}', "expected a manifest of schema 1"),
        ('{"schema": 1, "stage": "x"}', "damaged manifest"),
    ):
        path.write_text(text)
        assert main(["status", "--exp", str(written)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {path}: {what}") and "delete the file, and its task" in line
    path.unlink()
    assert main(["status", "--exp", str(written)]) == 0

import io

from launch.state import ledger
from launch.state.task import Task
from launch.views.watch import PATIENCE, Waiting, Watch
from slurm.queue import JobState
from textocvp.files import write_json


def test_waiting_tells_each_change_once(tmp_path, submitted, capsys):
    tasks = [Task("train_decomp", 0, "seed 3", ()), Task("report", 0, "", ())]
    for task, job_id in zip(tasks, ("5", "6")):
        submitted(tmp_path, *task.id, job_id)
    waiting = Waiting(tmp_path, {("train_decomp", 0): "5", ("report", 0): "6"})
    running, pending = JobState("RUNNING", "", "n1"), JobState("PENDING", "Dependency")
    for _ in range(3):
        assert waiting.update(tasks, {"5": running, "6": pending}) == tasks
    ledger.record(tmp_path, "failed", "train_decomp", 0, job_id="5", error="RuntimeError: no luck")
    assert waiting.update(tasks, {"5": JobState("FAILED"), "6": pending}) == tasks[1:]
    assert waiting.update(tasks[1:], {"6": JobState("CANCELLED")}) == []
    assert waiting.failed == tasks
    lines = [line[10:] for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [
        "train-decomp[0] (seed 3) started on n1",
        "train-decomp[0] (seed 3) failed: job 5 is FAILED: RuntimeError: no luck",
    ]
    assert lines[-1] == "report[0] not started: job 6 was cancelled, upstream failed"


def test_a_job_that_nobody_knows_is_lost_after_a_while(tmp_path, submitted, capsys):
    task = Task("report", 0, "", ())
    submitted(tmp_path, "report", 0, "6")
    waiting = Waiting(tmp_path, {("report", 0): "6"})
    for _ in range(PATIENCE):
        assert waiting.update([task], {}) == [task]
    assert waiting.update([task], {}) == []
    assert "job 6 is UNKNOWN" in capsys.readouterr().out


def test_progress_renews_itself_on_a_terminal_only(tmp_path):
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
        line = "train-decomp[1] (seed 7): 12/50  3.0/s  1:12 left  loss 0.1235"
        assert stream.getvalue().count(line) == expected
        assert stream.getvalue().count("\x1b[1F\x1b[J") == expected // 2

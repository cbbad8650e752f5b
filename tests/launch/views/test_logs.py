import pytest

from launch.cli import main
from launch.views.logs import failure_lines, tail


@pytest.fixture
def root(written, submitted):
    submitted(written, "train_decomp", 1)
    return written


def test_logs(root, capsys):
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
    assert "train-decomp[1] has not started, or has no process 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "train-decom"], "--stage train-decom: no such stage, did you mean 'train-decomp'?"),
        (["--stage", "report"], "report[0] was never submitted; submitted: train-decomp[1]"),
    ],
)
def test_logs_that_are_not_there(root, capsys, arguments, message):
    assert main(["logs", "--exp", str(root), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_how_a_log_tells_of_a_failure(tmp_path):
    log = tmp_path / "log"
    frames = [f'  File "x.py", line {number}' for number in range(20)]
    trace = ["before", "Traceback (most recent call last):", *frames, "RuntimeError: no luck"]
    log.write_text("\n".join(trace))
    assert failure_lines(log, 3) == [*frames[-2:], "RuntimeError: no luck"]
    log.write_text("\n".join([*trace, "srun: error: n1: task 0: Exited with exit code 1"]))
    assert failure_lines(log, 3) == [*frames[-2:], "RuntimeError: no luck"], "what srun says comes after it"
    log.write_text("\n".join([*trace, "error: the disk is full"]))
    assert failure_lines(log) == ["error: the disk is full"]
    log.write_text("\n".join(str(number) for number in range(9)))
    assert failure_lines(log, 2) == ["7", "8"]
    assert failure_lines(tmp_path / "none") == []
    stacks = [
        "Timeout (0:30:00)!",
        "Thread 0x1 (most recent call first):",
        '  File "other.py", line 1',
        "Thread 0x2 (most recent call first):",
        *frames,
        "srun: error: n1: task 0: Exited",
    ]
    log.write_text("\n".join(stacks))
    assert failure_lines(log, 2) == ["Timeout (0:30:00)!", *frames[:2]]
    log.write_text("x" * 10**6 + "\nlast\n")
    assert tail(log, 1) == ["last"]

from __future__ import annotations

import pytest

from launch.views.why import failure_lines, tail
from textocvp.config.job import read_progress
from textocvp.terminal import duration, progress_line


def test_a_line_says_what_is_known():
    assert progress_line({}) == ""
    assert progress_line({"step": 3, "total_steps": 9}) == "3/9"
    known = {"step": 1200, "total_steps": 5500, "rate": 22.44, "seconds_left": 192.7, "loss": 0.00412}
    assert progress_line(known) == "1200/5500  22.4/s  3:12 left  loss 0.00412"


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (3725.9, "1:02:05"), (None, "")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_damaged_progress_file_is_nothing_known(tmp_path):
    folder = tmp_path / "jobs" / "report" / "0"
    folder.mkdir(parents=True)
    for text in ('{"step": 1', "[1]"):
        (folder / "progress.json").write_text(text)
        assert read_progress(tmp_path, "report", 0) == {}
    assert read_progress(tmp_path, "report", 1) == {}


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


def test_the_end_of_a_large_file(tmp_path):
    log = tmp_path / "log"
    log.write_text("x" * 10**6 + "\nlast\n")
    assert tail(log, 1) == ["last"]

import json
import logging
import re
import sys

import pytest
import torch

from textocvp import terminal
from textocvp.terminal import Progress, duration, format_table, progress_line, set_up_logging

log = logging.getLogger("textocvp.test")


@pytest.fixture(autouse=True)
def logging_on():
    set_up_logging()


class Clock:
    now, strftime, localtime = 100.0, lambda self, form, at: "12:34:56", lambda self, at: at

    def monotonic(self):
        return self.now


def run(monkeypatch, seconds_per_step, steps=1000, first=0):
    clock = Clock()
    monkeypatch.setattr(terminal, "time", clock)
    with Progress("train", steps, first) as progress:
        for done in range(first + 1, steps + 1):
            clock.now += seconds_per_step
            progress.update(done, torch.tensor(0.25))


def test_a_log_gets_a_line_every_quarter_minute_of_its_own_steps(monkeypatch, capsys):
    run(monkeypatch, 0.1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 + 6 + 1, "the first step, every 15 s of 100 s, the last step"
    assert lines[0] == "12:34:56 train: step 1/1000 (0%), loss 0.25, 10.0 steps/s, 1:40 left"
    assert lines[-1] == "12:34:56 train: step 1000/1000 (100%), loss 0.25, 10.0 steps/s, 0:00 left"

    run(monkeypatch, 0.1, first=900)
    assert capsys.readouterr().err.splitlines()[-1].endswith("10.0 steps/s, 0:00 left")


def test_a_terminal_gets_a_bar_which_log_lines_do_not_break(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("train", 10) as progress:
        progress.update(1, 0.25)
        log.warning("look")
        progress.update(10, 0.25)
    captured = capsys.readouterr()
    assert captured.out == "" and "10/10" in captured.err and "loss 0.25" in captured.err
    assert re.search(r"[\r\n]warning: look\n", captured.err)


def test_progress_file_of_a_job(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTOCVP_JOB_DIR", str(tmp_path))
    run(monkeypatch, 0.1, steps=80)
    written = json.loads((tmp_path / "progress.json").read_text())
    assert (written["step"], written["total_steps"], written["loss"]) == (80, 80, 0.25)
    assert written["seconds_left"] == 0
    assert progress_line(written) == "80/80  10.0/s  0:00 left  loss 0.25"
    assert progress_line({}) == ""


def test_units_without_a_loss_and_silent_other_processes(capsys):
    Progress("precompute-slots", 10, unit="window").update(10)
    Progress("decode", None, unit="video").update(3)
    lines = capsys.readouterr().err.splitlines()
    assert "precompute-slots: window 10/10 (100%), " in lines[0] and lines[1].endswith("decode: video 3")

    Progress("train", 10, is_main=False).update(10, 0.5)
    assert capsys.readouterr() == ("", "")


def test_log_lines_name_level_and_rank(monkeypatch, capsys):
    set_up_logging()  # again: no line comes twice
    log.info("one process")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    log.error("two processes")
    log.debug("not shown")
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d one process", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d rank 1 error: two processes", second)


def test_durations_and_tables():
    assert [duration(s) for s in (None, 0, 59.6, 3599, 3600)] == ["", "0:00", "1:00", "59:59", "1:00:00"]

    assert format_table(("a", "b", "c"), [("1", "", "x"), ("22", "", "yy")]) == ["a   c", "1   x", "22  yy"]
    assert format_table(("a", "b"), [("x", "1.5")], figures=True) == ["a    b", "------", "x  1.5"]

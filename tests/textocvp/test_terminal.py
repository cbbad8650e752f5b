from __future__ import annotations

import json
import sys

import torch

from textocvp import terminal as module
from textocvp.terminal import Progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now


def run(monkeypatch, seconds_per_step, steps=1000, first=0):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    progress = Progress("train", steps, first)
    for done in range(first + 1, steps + 1):
        clock.now += seconds_per_step
        progress.update(done, torch.tensor(0.25))
    progress.close()


def test_a_log_gets_a_line_every_quarter_minute(monkeypatch, capsys):
    run(monkeypatch, 0.1)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 6 + 1, "the first step, every 15 s of 100 s, the last step"
    assert lines[0] == "train: step 1/1000 (0%), loss 0.25, 10.0 steps/s, 1:40 left"
    assert lines[-1] == "train: step 1000/1000 (100%), loss 0.25, 10.0 steps/s, 0:00 left"


def test_a_resumed_run_counts_its_own_steps(monkeypatch, capsys):
    run(monkeypatch, 0.1, first=900)
    assert capsys.readouterr().out.splitlines()[-1].endswith("10.0 steps/s, 0:00 left")


def test_a_terminal_gets_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run(monkeypatch, 0.1)
    captured = capsys.readouterr()
    assert captured.out == "" and "1000/1000" in captured.err and "loss 0.25" in captured.err


def test_progress_file_of_a_job(monkeypatch, tmp_path):
    monkeypatch.setenv("TEXTOCVP_JOB_DIR", str(tmp_path))
    run(monkeypatch, 0.1, steps=80)
    written = json.loads((tmp_path / "progress.json").read_text())
    assert (written["step"], written["total_steps"], written["loss"]) == (80, 80, 0.25)
    assert written["seconds_left"] == 0


def test_other_processes_are_silent(capsys):
    progress = Progress("train", 10, is_main=False)
    progress.update(10, 0.5)
    progress.note("text")
    assert capsys.readouterr() == ("", "")


def test_units_without_a_loss(capsys):
    Progress("precompute-slots", 10, unit="window").update(10)
    assert capsys.readouterr().out.startswith("precompute-slots: window 10/10 (100%), ")

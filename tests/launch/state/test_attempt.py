import json
import os
from dataclasses import replace

import pytest

from launch.state import attempt, ledger
from launch.state.task import Task
from textocvp.config.job import ATTEMPT_VARIABLE, JOB_DIR_VARIABLE, refuse_if_superseded
from textocvp.files import UserError

FIRST = Task("make_data", 0, "", ("make-data",), outputs=("data.txt",))
SECOND = Task("train_decomp", 0, "", ("train-decomp",), outputs=("model.txt",))


def test_other_ranks_wait_for_the_decision_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(attempt, "PATIENCE", 0.3)
    monkeypatch.setenv(ATTEMPT_VARIABLE, "second")
    (tmp_path / "attempt.json").write_text(json.dumps({"attempt": "first", "word": attempt.RUN}))
    with pytest.raises(TimeoutError, match="attempt.json: rank 0"):
        attempt.await_decision(tmp_path)
    attempt.announce(tmp_path, attempt.SKIP)
    assert attempt.await_decision(tmp_path) == attempt.SKIP


def test_three_starts_without_anything_new_saved_end_a_job(tmp_path, monkeypatch):
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    task = replace(SECOND, leftovers=("models", "resume"))

    def started(*times, job_id="7"):
        for saved in times:
            ledger.record(tmp_path, "started", *task.id, job_id=job_id, saved=saved)

    started("a", "a")
    attempt.check_progress(tmp_path, task, "a")
    started("a")
    attempt.check_progress(tmp_path, task, "b")
    attempt.check_progress(tmp_path, FIRST, "a")
    with pytest.raises(UserError, match=r"was started 3 times without saving anything new.*RES="):
        attempt.check_progress(tmp_path, task, "a")
    started("b", "b", job_id="8")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    attempt.check_progress(tmp_path, task, "b")
    monkeypatch.delenv("SUBMITIT_EXECUTOR")
    started("b", "b", "b", job_id="")
    attempt.check_progress(tmp_path, task, "b")  # by hand and locally nobody restarts but the user


def test_what_was_saved_last_is_a_whole_state_or_an_output(tmp_path):
    task = replace(SECOND, leftovers=("models", "resume"))
    nothing = attempt.last_saved(tmp_path, task)
    assert nothing == "no state, 0 outputs"
    for name in ("resume/step_00000001", "resume/.step_00000003.tmp", "models"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "resume" / "latest").write_text("step_00000001")
    assert attempt.last_saved(tmp_path, task) == "step_00000001, 0 outputs"
    (tmp_path / "resume/step_00000002").mkdir()
    os.utime(tmp_path / "resume/step_00000002", (1, 1))  # by a node whose clock is slow
    (tmp_path / "model.txt").touch()
    assert attempt.last_saved(tmp_path, task) == "step_00000002, 1 outputs"


def test_an_attempt_that_was_given_up_writes_no_more(tmp_path, monkeypatch):
    monkeypatch.setenv(JOB_DIR_VARIABLE, str(tmp_path))
    monkeypatch.delenv(ATTEMPT_VARIABLE, raising=False)
    refuse_if_superseded()  # by hand: nobody counts attempts
    monkeypatch.setenv(ATTEMPT_VARIABLE, "40.0")
    refuse_if_superseded()
    attempt.announce(tmp_path, attempt.RUN)
    refuse_if_superseded()
    (tmp_path / "attempt.json").write_text(json.dumps({"attempt": "40.1", "word": attempt.RUN}))
    with pytest.raises(UserError, match=r"attempt 40.0 was superseded by attempt 40.1"):
        refuse_if_superseded()

import errno
import fcntl
import os

import pytest

from launch.state import ledger
from launch.state.ledger import locked
from textocvp.files import UserError


def test_a_tasks_last_submission_and_what_its_job_said_since(tmp_path):
    ledger.record(tmp_path, ledger.SUBMITTED, "train_decomp", 0, job_id="7_0", log="old")
    ledger.record(tmp_path, ledger.FAILED, "train_decomp", 0, job_id="7_0", error="X")
    ledger.record(tmp_path, ledger.SUBMITTED, "train_decomp", 0, job_id="9_0", log="new")
    last = ledger.last_events(tmp_path)[("train_decomp", 0)]
    assert (last["event"], last["job_id"], last["log"], last["starts"]) == ("submitted", "9_0", "new", 0)
    assert "error" not in last
    for _ in range(2):
        ledger.record(tmp_path, ledger.STARTED, "train_decomp", 0, job_id="9_0", host="n1")
    last = ledger.last_events(tmp_path)[("train_decomp", 0)]
    assert (last["event"], last["host"], last["log"], last["starts"]) == ("started", "n1", "new", 2)

    ledger.record(tmp_path, ledger.STARTED, "report", 0, job_id="9")
    ledger.record(tmp_path, ledger.SUBMITTED, "report", 0, job_id="9")
    assert ledger.last_events(tmp_path)[("report", 0)]["event"] == "started"


def test_a_line_cut_short_is_left_out(tmp_path):
    ledger.record(tmp_path, ledger.SUBMITTED, "report", 0, job_id="")
    with open(ledger.ledger_path(tmp_path), "a") as file:
        file.write('{"event": "fini')
    assert len(ledger.read_ledger(tmp_path)) == 1
    ledger.record(tmp_path, ledger.FINISHED, "report", 0, job_id="")
    assert [event["event"] for event in ledger.read_ledger(tmp_path)] == ["submitted", "finished"]
    with open(ledger.ledger_path(tmp_path), "a") as file:
        file.write('[1, 2]\n{"foo": 1}\n7\n')
    assert len(ledger.read_ledger(tmp_path)) == 2
    assert ledger.read_ledger(tmp_path / "none") == []


def test_one_at_a_time(tmp_path):
    with locked(tmp_path), pytest.raises(UserError, match="another run"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


@pytest.mark.parametrize(
    ("module", "name", "number", "message"),
    [(fcntl, "flock", errno.ENOSYS, "jobs/lock: .*locks"), (os, "open", errno.EACCES, "permission denied")],
)
def test_a_file_system_without_locks_and_another_users_experiment(
    tmp_path, monkeypatch, module, name, number, message
):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, name, refuse)
    with pytest.raises(UserError, match=message), locked(tmp_path):
        pass

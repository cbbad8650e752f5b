import os

import pytest

from slurm.queue import JobState, SlurmError, cancel, job_states


@pytest.fixture
def programs(program, tmp_path, monkeypatch):
    """Puts stand-ins for Slurm's programs on the PATH; each call is noted."""

    def put(**outputs):
        for name, text in outputs.items():
            program(name, f'echo "{name} $*" >> {tmp_path}/calls\ncat <<EOF\n{text}\nEOF')
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
        return tmp_path / "calls"

    return put


def test_one_question_however_many_jobs(programs):
    calls = programs(
        squeue="5_0|RUNNING|None|n1|0|\n5_1|PENDING|Dependency||0|\n6|COMPLETED|None|n2|0|\n99|RUNNING|None|n1|0|\n"
        "9|FAILED|NonZeroExitCode|n2|768|",
        sacct="7|CANCELLED by 0|None assigned|0:0\n8_1|FAILED|n1|1:0",
    )
    assert job_states([], {}) == {} and not calls.exists(), "no job, no question"
    states = job_states(["5_0", "5_1", "6", "7", "8_1", "9", "10"], {})
    assert states == {
        "5_0": JobState("RUNNING", "", "n1"),
        "5_1": JobState("PENDING", "Dependency", ""),
        "6": JobState("COMPLETED", "", "n2", "0:0"),
        "9": JobState("FAILED", "", "n2", "3:0"),
        "7": JobState("CANCELLED", "", "", "0:0"),
        "8_1": JobState("FAILED", "", "n1", "1:0"),
    }
    assert [state.active for state in states.values()] == [True, True, False, False, False, False]
    lines = calls.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["squeue", "sacct"]
    assert lines[1].endswith("--jobs 10,7,8_1")


def test_it_works_without_accounting(programs, tmp_path, monkeypatch):
    programs(squeue="5|RUNNING|None|n1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    monkeypatch.setattr("slurm.queue.shutil.which", lambda name: None)
    assert set(job_states(["5", "4"], {})) == {"5"}


def test_a_scheduler_that_does_not_answer_is_an_error(programs, tmp_path):
    programs(squeue="")
    (tmp_path / "squeue").write_text("#!/bin/sh\necho 'error: Unable to contact' >&2\nexit 1\n")
    with pytest.raises(SlurmError):
        job_states(["5"], {})


def test_an_accounting_that_does_not_answer_is_none(programs, tmp_path, monkeypatch):
    programs(squeue="5|RUNNING|None|n1", sacct="")
    (tmp_path / "sacct").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr("slurm.queue.SECONDS", 1)
    assert set(job_states(["5", "4"], {})) == {"5"}


@pytest.mark.parametrize("state", ["REQUEUE_HOLD", "SPECIAL_EXIT", "SIGNALING", "COMPLETING"])
def test_a_job_that_may_start_again_is_active(state):
    """Else its task would be submitted a second time beside it."""
    assert JobState(state).active


def test_jobs_that_scancel_did_not_end_are_an_error(programs, tmp_path):
    programs(squeue="5|RUNNING|None|n1|\n6|COMPLETED|None|n1|0|\n7|COMPLETING|None|n1|", scancel="")
    cancel(["5"], {})
    (tmp_path / "scancel").write_text("#!/bin/sh\necho 'scancel: error: no answer' >&2\nexit 1\n")
    cancel(["6", "7"], {})
    with pytest.raises(SlurmError):
        cancel(["5", "6"], {})

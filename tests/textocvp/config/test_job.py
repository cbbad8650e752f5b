from textocvp.config import job
from textocvp.files import read_json


def test_progress_goes_to_the_job_folder_only_in_a_job(tmp_path, monkeypatch):
    monkeypatch.delenv(job.JOB_DIR_VARIABLE, raising=False)
    job.report_progress(1, 10, loss=0.5)
    monkeypatch.setenv(job.JOB_DIR_VARIABLE, str(tmp_path / "job"))
    job.report_progress(2, 10, loss=0.25)
    progress = read_json(tmp_path / "job" / "progress.json")
    assert (progress["step"], progress["total_steps"], progress["loss"]) == (2, 10, 0.25)


def test_a_damaged_progress_file_is_nothing_known(tmp_path):
    folder = tmp_path / "jobs" / "report" / "0"
    folder.mkdir(parents=True)
    for text in ('{"step": 1', "[1]"):
        (folder / "progress.json").write_text(text)
        assert job.read_progress(tmp_path, "report", 0) == {}
    assert job.read_progress(tmp_path, "report", 1) == {}

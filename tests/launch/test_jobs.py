import pytest

from launch import CODE
from launch.jobs import Submission
from launch.plan import Action, Plan, Step
from launch.state.ledger import read_ledger
from launch.state.manifest import Records
from launch.state.task import Edge, Task, TaskId
from launch.submit import submit_jobs
from slurm.executor import sbatch_text
from slurm.site import parse_cluster
from textocvp.files import UserError

ABOUT = {"cluster": "site", "revision": "abc", "dirty": True, "image": "sha"}


def cluster(**values):
    values = {"scheduler": "slurm", "python": "python3", **values}
    return parse_cluster(values, "site.yaml", "site", CODE, {"train_decomp": True})


def test_the_batch_script_of_a_task(tmp_path):
    resources = {"train-decomp": {"cpus_per_task": 8}}
    site = cluster(environment={"NCCL_DEBUG": "a b"}, paths={"weights": "weights"}, resources=resources)
    job = Submission(site, tmp_path / "exp", CODE, ABOUT).array_job("train_decomp", [1, 3])
    lines = sbatch_text(site, job).splitlines()
    for line in (
        "#SBATCH --job-name=exp.train-decomp",
        "#SBATCH --array=1,3%2",
        f"export PYTHONPATH={CODE}",
        "export PYTHONSAFEPATH=1",
        "export OMP_NUM_THREADS=8",
        "export NCCL_DEBUG='a b'",
        f"export TEXTOCVP_WEIGHTS={CODE}/weights",
        "export TEXTOCVP_REVISION=abc",
        "export TEXTOCVP_DIRTY=1",
        "export TEXTOCVP_IMAGE=sha",
        "export TEXTOCVP_HANG_MINUTES=30.0",
    ):
        assert line in lines
    assert job.arguments[3] == str(tmp_path / "exp/jobs/train_decomp/3/task.json")
    request = f"{tmp_path}/exp/jobs/train_decomp/${{SLURM_ARRAY_TASK_ID:-0}}/requeue_request"
    assert any(request in line for line in lines)


def test_tasks_with_other_edges_are_other_arrays(tmp_path):
    tasks = [Task("train_decomp", index, "", (), after=(Edge("make_data", index),)) for index in range(3)]
    jobs = {TaskId("make_data", 2): "5"}
    arrays = Submission(cluster(), tmp_path, CODE, ABOUT).array_jobs(tasks, jobs, ["4"])
    assert [(job.dependency, job.indices) for job, _ in arrays] == [("", [0, 1]), ("afterok:5", [2])]
    assert [group for _, group in arrays] == [tasks[:2], tasks[2:]]


def test_what_was_submitted_is_recorded_before_sbatch_refuses_the_rest(tmp_path, monkeypatch):
    taken = []

    def submit_array(site, job):
        if taken:
            raise UserError("sbatch refused it")
        taken.append(job)
        return ["7_0"]

    monkeypatch.setattr("slurm.executor.submit_array", submit_array)
    monkeypatch.setattr("launch.submit.take_snapshot", lambda code, folder: folder / "abcd")
    tasks = [Task("train_decomp", 0, "", ("x",)), Task("train_predictor", 0, "", ("x",))]
    plan = Plan(tmp_path, tuple(Step(task, Action.RUN) for task in tasks), Records(tmp_path))
    with pytest.raises(UserError, match="sbatch refused it"):
        submit_jobs(plan, cluster(), ABOUT)
    (event,) = read_ledger(tmp_path)
    assert (event["event"], event["stage"], event["job_id"]) == ("submitted", "train_decomp", "7_0")
    assert (event["log"], event["snapshot"]) == ("jobs/train_decomp/logs/7_0_0_log.out", "abcd")
    assert event["image"] == "sha" and event["resources"]["nodes"] == 1 and event["depends_on"] == ""

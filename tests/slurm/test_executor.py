from __future__ import annotations

import os
import subprocess

import pytest

from launch.state.task import Edge, Task
from slurm.executor import (
    Submission,
    array_indices,
    make_executor,
    sbatch_parameters,
    sbatch_text,
    setup_lines,
    submit_stage,
    teardown_lines,
)
from slurm.site import CODE, Resources, parse_cluster
from textocvp.config.errors import UserError

ABOUT = {"cluster": "site", "revision": "abc", "dirty": True, "image": "sha"}


@pytest.fixture
def script(tmp_path, monkeypatch):
    """The batch script of a group of tasks, as it is submitted and as a plan shows it."""

    def text(cluster, indices, dependency=""):
        program = tmp_path / "srun"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        group = [Task("train_decomp", index, "", ()) for index in indices]
        submission = Submission(cluster, tmp_path / "my exp", CODE, ABOUT)
        executor = make_executor(submission, group, dependency)
        if max(indices) > 0:
            executor.parameters["map_count"] = len(indices)
        submitted = executor._make_submission_file_text(executor._submitit_command_str, "uid")
        assert sbatch_text(submission, group, dependency) == submitted
        return submitted

    return text


def cluster(**values):
    values = {"scheduler": "slurm", "python": "python3", **values}
    return parse_cluster(values, "site.yaml", "site", {"train_decomp": True, "report": False})


def test_everything_a_site_says_reaches_sbatch(script):
    site = cluster(
        partition="gpu; rm -rf $HOME",
        account="lab",
        qos="long",
        constraint="a100",
        setup=["module load cuda"],
        environment={"NCCL_DEBUG": "a b"},
        mail_user="me@lab",
        mail_type="FAIL",
        stop_seconds=120,
        extra_sbatch={"exclusive": True},
        resources={
            "train_decomp": {
                "nodes": 2,
                "gpus_per_node": 4,
                "cpus_per_task": 8,
                "mem_gb": 1.5,
                "time": "1-00:00:00",
            }
        },
    )
    lines = script(site, [0], "afterok:5_1").splitlines()
    for line in (
        "#SBATCH --partition='gpu; rm -rf $HOME'",
        "#SBATCH --account=lab",
        "#SBATCH --qos=long",
        "#SBATCH --constraint=a100",
        "#SBATCH --nodes=2",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=1536MB",
        "#SBATCH --time=1440",
        "#SBATCH --mail-type=FAIL",
        "#SBATCH --mail-user=me@lab",
        "#SBATCH --signal=USR2@120",
        "export TEXTOCVP_IMAGE=sha",
        "#SBATCH --exclusive",
        "#SBATCH --dependency=afterok:5_1",
        "#SBATCH --kill-on-invalid-dep=yes",
        "#SBATCH --job-name=my_exp.train_decomp",
        "module load cuda",
        "export NCCL_DEBUG='a b'",
        "export OMP_NUM_THREADS=8",
        "#SBATCH --requeue",
        "export TEXTOCVP_HANG_MINUTES=30.0",
        "export SRUN_CPUS_PER_TASK=8",
        "export SLURM_KILL_BAD_EXIT=1",
        "trap : TERM USR2",
        "rc=$?",
        "exit $rc",
    ):
        assert line in lines
    assert not any(line.startswith("#SBATCH --array") for line in lines)


def test_some_elements_of_a_stage_keep_their_indices(script):
    text = script(cluster(array_parallelism=2), [1, 3, 4])
    assert "#SBATCH --array=1,3,4%2\n" in text
    assert "--dependency" not in text
    assert "--gpus" not in text


def test_a_dependency_does_not_leak_into_the_next_stage(script):
    assert "--dependency" in script(cluster(), [0], "afterok:1")
    assert "--dependency" not in script(cluster(), [0])


def test_the_request_to_be_queued_again_is_that_of_the_array_element(tmp_path):
    (tmp_path / "a b" / "1").mkdir(parents=True)
    (tmp_path / "a b" / "1" / "requeue_request").touch()
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho scontrol "$@"\n')
    (tmp_path / "scontrol").chmod(0o755)
    script = "\n".join(["(exit 7)", *teardown_lines(tmp_path / "a b")])
    # the last element of an array has the array's id: by that alone all elements would be queued again
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "40"}
    element = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"}

    def run(**more):
        result = subprocess.run(
            ["bash", "-c", script], env={**environment, **more}, capture_output=True, text=True
        )
        return result.returncode, result.stdout.strip()

    assert run() == (7, "") and run(**{**element, "SLURM_ARRAY_TASK_ID": "0"}) == (7, "")
    assert run(**element) == (7, "scontrol requeue 40_1")
    assert run(**element) == (7, ""), "a request counts once"
    (tmp_path / "a b" / "0").mkdir()
    (tmp_path / "a b" / "0" / "requeue_request").touch()
    assert run() == (7, "scontrol requeue 40")


def test_a_controller_that_does_not_answer_is_asked_again(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "requeue_request").touch()
    (tmp_path / "scontrol").write_text('#!/bin/sh\necho asked >> "$0.log"; [ "$(wc -l < "$0.log")" = 3 ]\n')
    (tmp_path / "sleep").write_text("#!/bin/sh\n")
    for name in ("scontrol", "sleep"):
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "40"}
    subprocess.run(["bash", "-c", "\n".join(teardown_lines(tmp_path))], env=environment, check=True)
    assert (tmp_path / "scontrol.log").read_text() == "asked\n" * 3


def test_array_indices():
    assert array_indices([3, 1], 64) == "1,3%2"
    assert array_indices([5], 64) == "5%1"


def test_the_job_name_is_one_word(tmp_path):
    submission = Submission(cluster(), tmp_path / "a b;c", CODE, ABOUT)
    parameters = sbatch_parameters(submission, [Task("report", 0, "", ())], "")
    assert parameters["job_name"] == "a_b_c.report"


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """A stand-in that takes one array, notes its environment and refuses the next."""
    (tmp_path / "srun").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").write_text(f"""#!/bin/sh
[ ! -e {tmp_path}/environment ] || {{ echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }}
env > {tmp_path}/environment
echo "Submitted batch job 7"
""")
    for name in ("srun", "sbatch"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "environment"


def test_what_was_submitted_is_told_before_sbatch_refuses_the_rest(sbatch, tmp_path):
    tasks = [Task("train_decomp", 0, "", ()), Task("train_decomp", 1, "", (), after=(Edge("make_data", 0),))]
    submission = Submission(cluster(), tmp_path / "exp", CODE, ABOUT)
    submitted = submit_stage(submission, tasks, {("make_data", 0): "5"})
    task, details = next(submitted)
    assert (task.index, details["job_id"], details["depends_on"]) == (0, "7", "")
    with pytest.raises(UserError, match="sbatch refused train_decomp: .*QOSMaxSubmitJobPerUserLimit"):
        next(submitted)


def test_a_job_that_is_submitted_from_a_job_inherits_nothing_of_it(sbatch, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", "/site/slurm.conf")
    monkeypatch.setenv("SLURM_JOB_ID", "3")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "100")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "9")
    tasks = [Task("train_decomp", 0, "", ())]
    assert len(list(submit_stage(Submission(cluster(), tmp_path / "exp", CODE, ABOUT), tasks, {}))) == 1
    names = {line.partition("=")[0]: line for line in sbatch.read_text().splitlines()}
    assert names["SLURM_CONF"] == "SLURM_CONF=/site/slurm.conf"
    assert not {"SLURM_MEM_PER_CPU", "SLURM_ARRAY_TASK_ID"} & set(names)
    assert os.environ["SLURM_MEM_PER_CPU"] == "100"


def test_a_site_that_sets_errexit_keeps_the_teardown(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "requeue_request").touch()
    setup = setup_lines(Submission(cluster(setup=["set -eu"]), tmp_path, CODE, ABOUT), Resources())
    script = "\n".join([*setup, "scontrol() { echo queued again; }", "(exit 140)", *teardown_lines(tmp_path)])
    result = subprocess.run(
        ["bash", "-c", script],
        env={"PATH": "/usr/bin:/bin", "SLURM_JOB_ID": "4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (140, "queued again\n")

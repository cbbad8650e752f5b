import os

import pytest

from slurm.executor import make_executor, sbatch_parameters, sbatch_text, submit_array
from slurm.options import Resources
from textocvp.files import UserError


@pytest.fixture
def script(program, tmp_path, monkeypatch):
    """The batch script of a job, as it is submitted and as it is shown."""

    def text(cluster, job):
        program("srun")
        monkeypatch.setenv("PATH", str(tmp_path))
        executor = make_executor(cluster, job)
        if job.is_array:
            executor.parameters["map_count"] = len(job.indices)
        submitted = executor._make_submission_file_text(executor._submitit_command_str, "uid")
        assert sbatch_text(cluster, job) == submitted
        return submitted

    return text


def test_everything_a_site_says_reaches_sbatch(script, site, array):
    queue = {"partition": "gpu; rm -rf $HOME", "account": "lab", "qos": "long", "constraint": "a100"}
    mail = {"mail_user": "me@lab", "mail_type": "FAIL"}
    cluster = site(
        **queue, **mail, setup=["module load cuda"], stop_seconds=120, extra_sbatch={"exclusive": True}
    )
    resources = Resources(nodes=2, gpus_per_node=4, cpus_per_task=8, mem_gb=1.5, time="1-00:00:00")
    job = array(name="my exp.train", resources=resources, dependency="afterok:5_1")
    lines = script(cluster, job).splitlines()
    options = (
        "partition='gpu; rm -rf $HOME'|account=lab|qos=long|constraint=a100|nodes=2|gpus-per-node=4|"
        "ntasks-per-node=4|cpus-per-task=8|mem=1536MB|time=1440|mail-type=FAIL|mail-user=me@lab|signal=USR2@120|exclusive|"
        "dependency=afterok:5_1|kill-on-invalid-dep=yes|job-name=my_exp.train|requeue"
    )
    assert {f"#SBATCH --{option}" for option in options.split("|")} <= set(lines)
    shell = "module load cuda|export MINE='a b'|export SRUN_CPUS_PER_TASK=8|export SLURM_KILL_BAD_EXIT=1"
    assert {*shell.split("|"), "trap : TERM USR2", "rc=$?", "exit $rc"} <= set(lines)
    assert not any(line.startswith("#SBATCH --array") for line in lines)


def test_some_elements_of_an_array_keep_their_indices_and_no_dependency_leaks_into_the_next(
    script, site, array
):
    text = script(site(array_parallelism=2), array((1, 3, 4)))
    assert "#SBATCH --array=1,3,4%2\n" in text
    assert "--dependency" not in text
    assert "--gpus" not in text

    assert "--dependency" in script(site(), array(dependency="afterok:1"))
    assert "--dependency" not in script(site(), array())

    assert sbatch_parameters(site(), array(name="a b;c.report"))["job_name"] == "a_b_c.report"


@pytest.fixture
def sbatch(program, tmp_path, monkeypatch):
    """A stand-in that takes one array, notes its environment and refuses the next."""
    program("srun")
    refusal = '{ echo "error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1; }'
    noted = f"{tmp_path}/environment"
    program("sbatch", f'[ ! -e {noted} ] || {refusal}\nenv > {noted}\necho "Submitted batch job 7"')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path / "environment"


def test_what_sbatch_refuses_is_one_line(sbatch, site, array):
    assert submit_array(site(), array((1, 3))) == ["7_1", "7_3"]
    with pytest.raises(UserError) as error:
        submit_array(site(), array())
    assert all(part in str(error.value) for part in ("sbatch", "exp.train", "QOSMaxSubmitJobPerUserLimit"))


def test_a_job_that_is_submitted_from_a_job_inherits_nothing_of_it(sbatch, site, array, monkeypatch):
    given = {"CONF": "/site/slurm.conf", "JOB_ID": "3", "MEM_PER_CPU": "100", "ARRAY_TASK_ID": "9"}
    for name, value in given.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert submit_array(site(), array()) == ["7"]
    names = {line.partition("=")[0]: line for line in sbatch.read_text().splitlines()}
    assert names["SLURM_CONF"] == "SLURM_CONF=/site/slurm.conf"
    assert not {"SLURM_MEM_PER_CPU", "SLURM_ARRAY_TASK_ID"} & set(names)
    assert os.environ["SLURM_MEM_PER_CPU"] == "100"

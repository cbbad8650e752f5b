import subprocess
from pathlib import Path

import pytest

from slurm.options import Resources, array_indices, format_time, parse_time, setup_lines, teardown_lines


def test_times_as_slurm_writes_them():
    texts = "90 10:00 00:01.730 02:03:04 1-02 1-02:03:04".split()
    assert [parse_time(text) for text in texts] == [5400, 600, 1.73, 7384, 93600, 93784]
    assert [parse_time(text) for text in ("", "UNLIMITED", "1:2:3:4")] == [None] * 3
    assert [format_time(seconds) for seconds in (59, 3600, 93784)] == ["00:00:59", "01:00:00", "1-02:03:04"]


def test_resources_are_options():
    assert Resources(time="1-02:00:30").minutes == 26 * 60 + 1
    resources = Resources(nodes=2, gpus_per_node=4, cpus_per_task=8, mem_gb=1.5)
    assert (resources.ranks_per_node, resources.ranks) == (4, 8)
    sizes = {"nodes": 2, "ntasks_per_node": 4, "cpus_per_task": 8, "gpus_per_node": 4}
    assert resources.options == {**sizes, "mem": "1536MB", "time": 60}

    assert array_indices([3, 1], 64) == "1,3%2"
    assert array_indices([5], 64) == "5%1"


@pytest.fixture
def bash(program, tmp_path):
    """Runs shell lines with stand-ins for Slurm's programs first on PATH; returns status and output."""

    def run(lines, programs, **environment):
        for name, text in programs.items():
            program(name, text)
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "SLURM_JOB_ID": "40", **environment}
        command = ["bash", "-c", "\n".join(lines)]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
        return result.returncode, result.stdout.strip()

    return run


def request(job, index):
    """The element asks to be queued again."""
    path = Path(job.requeue_file.replace("{index}", str(index)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_the_request_to_be_queued_again_is_that_of_the_array_element(array, bash):
    job, scontrol = array(), {"scontrol": 'echo scontrol "$@"'}
    script = ["(exit 7)", *teardown_lines(job.requeue_file)]
    request(job, 1)
    # the last element of an array has the array's id: by that alone all elements would be queued again
    element = {"SLURM_ARRAY_JOB_ID": "40", "SLURM_ARRAY_TASK_ID": "1"}
    assert bash(script, scontrol) == (7, "")
    assert bash(script, scontrol, **{**element, "SLURM_ARRAY_TASK_ID": "0"}) == (7, "")
    assert bash(script, scontrol, **element) == (7, "scontrol requeue 40_1")
    assert bash(script, scontrol, **element) == (7, ""), "a request counts once"
    request(job, 0)
    assert bash(script, scontrol) == (7, "scontrol requeue 40")


def test_a_controller_that_does_not_answer_is_asked_again(array, bash, tmp_path):
    job = array()
    request(job, 0)
    scontrol = 'echo asked >> "$0.log"; [ "$(wc -l < "$0.log")" = 3 ]'
    bash(teardown_lines(job.requeue_file), {"scontrol": scontrol, "sleep": ""})
    assert (tmp_path / "scontrol.log").read_text() == "asked\n" * 3


def test_a_site_that_sets_errexit_keeps_the_teardown(array, bash):
    job = array()
    request(job, 0)
    lines = [*setup_lines(["set -eu"], job), "(exit 140)", *teardown_lines(job.requeue_file)]
    assert bash(lines, {"scontrol": "echo queued again"}) == (140, "queued again")

"""`doctor` on a real one-host Slurm: what would lose a night is made so, and its line is read."""

import functools
import getpass
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import CODE
from launch.cli import main
from launch.doctor.checks import FAIL, OK, WARN
from launch.pipeline import from_recipe
from launch.recipe import load_recipe, write_experiment
from slurm.container import find_image
from slurm.site import parse_cluster

pytestmark = pytest.mark.cluster
DOCTOR = [sys.executable, "-m", "launch", "doctor", "--cluster"]


@pytest.fixture
def site(slurm_site, tmp_path):
    """Writes a config of the dev cluster; returns its path. Unless `python` is given the node has none."""
    paths = {"experiments": str(tmp_path / "experiments")}
    return functools.partial(slurm_site, mem_gb=1, python="/bin/false", paths=paths)


@pytest.fixture
def partition(slurm):
    """Creates a partition with some settings; it is gone afterwards."""
    slurm("scontrol", "create", "PartitionName=odd", "Nodes=ALL")

    def change(**settings):
        values = [f"{name}={value}" for name, value in settings.items()]
        slurm("scontrol", "update", "PartitionName=odd", *values)

    yield change
    slurm("scontrol", "delete", "PartitionName=odd")


@pytest.fixture
def nothing_left(slurm, tmp_path):
    """No probe job and no folder remain after the test."""
    yield
    assert "textocvp-doctor" not in slurm("squeue", "--noheader", "--format=%j")
    assert not (tmp_path / "experiments").exists()


def assert_found(finding, level, *parts):
    assert finding[0] == level and all(part in finding[1] for part in parts), finding


@pytest.mark.slow
def test_a_healthy_cluster(site, nothing_left, tmp_path, capsys):
    path = site(python=sys.executable, resources={"train-decomp": {"nodes": 2, "mem_gb": 2}})
    assert main([*DOCTOR[3:], path]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    for start in (
        "ok    programs: sbatch, srun",
        "ok    accounting: sacct answers",
        "ok    MaxArraySize: 10",
        "ok    sbatch --test-only: all stages: accepted",
        "ok    partition main: State UP, MaxTime",
        "ok    preemption in main: PreemptMode REQUEUE, GraceTime 20 s",
        "ok    KillWait: 5",
        "ok    clock: less than 2 s from this host's (on n1, n2)",
        "ok    packages: Python 3",
        f"ok    shared folder: {tmp_path}/experiments: the node and this host can read",
        "ok    code: jobs import ",
        "ok    save: 268 MB",
    ):
        assert [line for line in lines if line.startswith(start)], start
    assert "stop_seconds is 90 s, GraceTime is 20 s (on n1)" in "".join(lines)
    assert lines[-1].endswith("0 warn, 0 FAIL")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"partition": "nowhere"}, "all stages: invalid partition specified: nowhere"),
        ({"constraint": "h900"}, "Invalid feature specification"),
        ({"resources": {"train-decomp": {"gpus_per_node": 8}}}, "train-decomp: "),
        ({"resources": {"train-decomp": {"nodes": 9, "tasks_per_node": 1}}}, "train-decomp: "),
        ({"extra_sbatch": {"no-such-option": True}}, "unrecognized option"),
    ],
)
def test_what_sbatch_refuses(site, doctor, values, text):
    """Each refusal once, in Slurm's own words, with the stages that it is for."""
    status, found = doctor(site(**values))
    answers = found["sbatch --test-only"]
    [refused] = [answer for answer in answers if answer[0] == FAIL]
    assert status == 1
    assert_found(refused, FAIL, text, "partition, account, qos, constraint")
    if text == "train-decomp: ":
        [accepted] = [answer for answer in answers if answer[0] == OK]
        assert_found(accepted, OK, "train-predictor")
    if "partition" in values:
        assert_found(found["partition nowhere"][0], FAIL, "unknown")
        assert_found(found["probe job"][0], FAIL, "sbatch --test-only failed above")


def test_limits_of_a_partition(site, doctor, partition):
    partition(MaxTime="00:05:00", MaxNodes=1, PreemptMode="CANCEL", GraceTime=0)
    resources = {"train-decomp": {"nodes": 2, "time": "1-00:00:00"}}
    status, found = doctor(site(partition="odd", resources=resources), "--timeout", "2")
    times, nodes = (finding for finding in found["partition odd"] if finding[0] == FAIL)
    assert status == 1
    assert_found(times, FAIL, "MaxTime is 00:05:00", "make-data, ", "1440 minutes", "wait forever")
    assert_found(nodes, FAIL, "MaxNodes is 1", "train-decomp", "2 nodes")
    assert_found(found["preemption in odd"][0], WARN, "PreemptMode CANCEL, GraceTime 0 s")
    partition(PreemptMode="REQUEUE", State="DOWN")
    _, found = doctor(site(partition="odd,main", resources=resources), "--timeout", "2")
    assert_found(found["partition odd"][0], FAIL, "DOWN")
    assert_found(found["preemption in odd"][0], WARN, "periodic save")
    assert_found(found["preemption in main"][0], OK)


def test_an_account_that_may_not(site, partition, run_as_nobody, doctor):
    """As an ordinary user: Slurm lets its administrators in anywhere."""
    partition(AllowAccounts="lab")
    paths = {"experiments": str(run_as_nobody.folder / "experiments")}
    result = run_as_nobody(site(partition="odd", account="other", paths=paths), "--json", "--timeout", "3")
    assert result.returncode == 1, result.stderr
    found = doctor.findings(result.stdout)
    assert_found(found["partition odd"][0], FAIL, "AllowAccounts is lab", "account other")
    assert_found(found["probe job"][0], FAIL, "PENDING (", "ccount", "may wait forever")


def test_few_jobs_at_once(site, doctor, slurm):
    user = getpass.getuser()
    slurm("sacctmgr", "--immediate", "add", "account", "few")
    slurm("sacctmgr", "--immediate", "add", "user", user, "account=few", "MaxSubmitJobs=5")
    try:
        found = doctor(site(account="few"))[1]["MaxSubmitJobs"]
        assert_found(found[0], WARN, "account few", "5 of", "25", "stage by stage")
        assert "MaxSubmitJobs" not in doctor(site(account="root"))[1]
    finally:
        slurm("sacctmgr", "--immediate", "delete", "user", user, "account=few", check=False)
        slurm("sacctmgr", "--immediate", "delete", "account", "few", check=False)


def test_a_cluster_that_does_not_answer(site, doctor, down_conf):
    status, found = doctor(site(slurm_conf=down_conf))
    assert status == 1 and "accounting" not in found
    assert_found(found["slurm"][0], FAIL, "slurm_conf")
    assert_found(found["probe job"][0], FAIL, "not started: slurm failed above")


def test_a_cluster_without_accounting(site, doctor, dev_cluster, tmp_path):
    lines = Path(dev_cluster["SLURM_CONF"]).read_text().splitlines()
    kept = [line for line in lines if not line.startswith("AccountingStorage")]
    (tmp_path / "plain.conf").write_text("\n".join(kept) + "\n")
    _, found = doctor(site(slurm_conf=str(tmp_path / "plain.conf")))
    assert_found(found["accounting"][0], WARN, "accounting storage is disabled")


def test_more_tasks_than_an_array_takes(site, doctor, tmp_path, small_recipe):
    """The sizes of an experiment: one more shard than the dev cluster takes into an array."""
    recipe = small_recipe(slots={"stride": 2, "shards": 1002})
    pipeline = from_recipe(load_recipe(recipe), tmp_path, None)
    write_experiment(pipeline.root, pipeline.files, recipe)
    _, found = doctor(site(), "--exp", str(pipeline.root))
    assert_found(found["MaxArraySize"][0], FAIL, "1001", "1002", "shards")


def test_what_the_node_says_before_python(site, doctor):
    status, found = doctor(site(setup=["module load cuda/99"]))
    assert status == 1
    assert_found(found["setup"][0], WARN, "module: command not found")
    assert_found(found["python"][1], FAIL, "(exit status 1)", "the nodes need that interpreter")
    status, found = doctor(site(setup=["echo no GPU driver; exit 3"]))
    assert_found(found["probe job"][0], FAIL, "did not start: no GPU driver")
    status, found = doctor(site(python=sys.executable, resources={"train-decomp": {"mem_gb": 0.1}}))
    assert status == 1
    assert_found(found["probe"][0], FAIL, "exit status 137", "exceeded memory limit")


def test_a_busy_cluster_is_no_fault_one_that_holds_jobs_is_and_the_probe_does_not_stay(
    site, doctor, slurm, nothing_left
):
    words = ["--nodes=2", "--exclusive", "--partition=main", "--output=/dev/null", "--wrap=srun sleep 100"]
    job = slurm("sbatch", "--parsable", *words).strip()
    while job not in slurm("squeue", "--noheader", "--states=RUNNING", "--format=%i"):
        time.sleep(0.2)
    status, found = doctor(site(), "--timeout", "5")
    assert status == 0
    assert_found(found["probe job"][0], WARN, "PENDING (Resources)", "TIMEOUT=")
    status, found = doctor(site(extra_sbatch={"hold": True}), "--timeout", "5")
    assert status == 1
    assert_found(found["probe job"][0], FAIL, "PENDING (JobHeldUser)")


def test_ctrl_c_leaves_no_job_behind(site, slurm, nothing_left):
    command = [*DOCTOR, site(extra_sbatch={"hold": True})]
    process = subprocess.Popen(command, cwd=CODE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "textocvp-doctor" not in slurm("squeue", "--noheader", "--format=%j"):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in error


@pytest.mark.slow
def test_folders_that_the_nodes_do_not_share(site, tmp_path, doctor):
    """This host has a file system of its own over both folders; the nodes see the ones below it."""
    for name in ("experiments", "data"):
        (tmp_path / name).mkdir()
    paths = {"experiments": str(tmp_path / "experiments"), "data": {"CATER_Easy": str(tmp_path / "data")}}
    mounts = "".join(f"mount -t tmpfs none {tmp_path / name}; " for name in ("experiments", "data"))
    lines = f'set -e; {mounts} touch {tmp_path}/data/video; exec "$@"'
    prefix = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    path = site(python=sys.executable, paths=paths)
    command = [*prefix, "bash", "-c", lines, "doctor", *DOCTOR, path, "--json"]
    result = subprocess.run(command, cwd=CODE, capture_output=True, text=True, timeout=120)
    if not result.stdout:
        pytest.skip(f"no mounts of one's own here: {result.stderr.splitlines()[-1]}")
    found = doctor.findings(result.stdout)
    assert result.returncode == 1
    assert_found(found["data CATER_Easy"][0], OK)
    unseen = f"does not see what this host wrote into {tmp_path}/experiments"
    assert_found(found["shared folder"][0], FAIL, unseen)
    assert_found(found["path"][0], FAIL, f"{tmp_path}/data is empty on the node (on n1)")
    assert_found(found["code"][0], FAIL, "No module named")


@pytest.mark.slow
@pytest.mark.container
def test_in_the_image(site, doctor, image, tmp_path):
    """With the image that `make image` built: whole, then with mistakes in the site's config."""
    cache, runtime = {"image_cache": str(image.parent)}, {"runtime": "apptainer"}
    values = {"scheduler": "slurm", "container": runtime, "paths": cache}
    built = find_image(parse_cluster(values, "s", "s", CODE, {}))
    for name in ("cater", "bound"):
        (tmp_path / name / "videos").mkdir(parents=True)
    data, resources = {"CATER_Easy": str(tmp_path / "cater")}, {"train-decomp": {"nodes": 2, "mem_gb": 2}}
    paths = {"experiments": str(tmp_path / "experiments"), "data": data, **cache}

    def check(**container):
        return doctor(site(container={**runtime, **container}, paths=paths, resources=resources))

    status, found = check(binds=[f"{tmp_path}/bound:/mnt/bound:ro"])
    assert status == 0, found
    assert_found(found["image"][0], OK, f"{built}, sha256 ")
    assert_found(found["packages"][0], OK, " in the image: torch 2")
    for path, finding in zip((tmp_path / "cater", "/mnt/bound"), found["path"], strict=True):
        assert finding[1] == f"{path} is readable in the image (on n1, n2); "
    assert found["image key"][0][0] == OK
    status, found = check(binds=[f"{tmp_path}/none:/mnt/none"])
    assert status == 1 and found["bind"][0][0] == WARN
    source = f"mount source {tmp_path}/none doesn't exist"
    assert_found(found["python"][0], FAIL, "FATAL", source, "see container.image")
    resources["train-decomp"].update(gpus_per_node=1)
    assert_found(check(options=["--no-such-option"])[1]["python"][0], FAIL, "unknown flag: --no-such-option")
    assert_found(check()[1]["GPUs"][0], FAIL, "container.lock: cuda")

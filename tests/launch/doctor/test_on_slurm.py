"""`doctor` on a real one-host Slurm: what would lose a night is made so, and its line is read."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launch import CODE
from launch.cli import main
from launch.doctor.checks import FAIL, OK, WARN
from launch.pipeline import from_recipe
from launch.recipe import load_recipe, write_experiment
from slurm.container import find_image
from slurm.site import parse_cluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def site(dev_cluster, tmp_path):
    """Writes a config of the dev cluster; returns its path. Unless `python` is given the node has none."""

    def write(**values):
        resources = {"default": {"mem_gb": 1, "cpus_per_task": 1, "time": "00:10:00"}}
        resources.update(values.pop("resources", {}))
        config = {
            "scheduler": "slurm",
            "slurm_conf": dev_cluster["SLURM_CONF"],
            "python": "/bin/false",
            "partition": "main",
            "paths": {"experiments": str(tmp_path / "experiments")},
        }
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump({**config, "resources": resources, **values}))
        return str(path)

    return write


@pytest.fixture
def slurm(dev_cluster):
    """Runs one of Slurm's programs."""

    def run(*command, check=True):
        return subprocess.run(
            command,
            env={**os.environ, **dev_cluster},
            check=check,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    return run


@pytest.fixture
def partition(slurm):
    """Creates a partition with some settings; it is gone afterwards."""
    slurm("scontrol", "create", "PartitionName=odd", "Nodes=ALL")

    def change(**settings):
        values = [f"{name}={value}" for name, value in settings.items()]
        slurm("scontrol", "update", "PartitionName=odd", *values)

    yield change
    slurm("scontrol", "delete", "PartitionName=odd")


@pytest.mark.slow
def test_a_healthy_cluster(site, slurm, tmp_path, capsys):
    path = site(python=sys.executable, resources={"train-decomp": {"nodes": 2, "mem_gb": 2}})
    assert main(["doctor", "--cluster", path]) == 0
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
        f"ok    shared folder: {tmp_path}/experiments: node and this host read",
        "ok    code: jobs import ",
        "ok    save: 268 MB",
    ):
        assert [line for line in lines if line.startswith(start)], start
    assert "stop_seconds is 90 s, GraceTime is 20 s (on n1)" in "".join(lines)
    assert lines[-1].endswith("0 warn, 0 FAIL")
    assert not (tmp_path / "experiments").exists()
    assert "textocvp-doctor" not in slurm("squeue", "--noheader", "--format=%j")


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
    refused = [line for level, line in found["sbatch --test-only"] if level == FAIL]
    assert status == 1 and len(refused) == 1 and text in refused[0]
    assert "partition, account, qos, constraint" in refused[0]
    if text.startswith("train-decomp"):
        assert "not available" in refused[0] or "satisf" in refused[0]
        accepted = [line for level, line in found["sbatch --test-only"] if level == OK]
        assert len(accepted) == 1 and "train-predictor" in accepted[0]
    if "partition" in values:
        assert any("unknown" in text for _, text in found["partition nowhere"])
        assert "sbatch --test-only failed above" in found["probe job"][0][1]


def test_limits_of_a_partition(site, doctor, partition):
    partition(MaxTime="00:05:00", MaxNodes=1, PreemptMode="CANCEL", GraceTime=0)
    resources = {"train-decomp": {"nodes": 2, "time": "1-00:00:00"}}
    status, found = doctor(site(partition="odd", resources=resources), "--timeout", "2")
    times, nodes = (text for level, text in found["partition odd"] if level == FAIL)
    assert status == 1
    assert all(
        part in times for part in ("MaxTime is 00:05:00", "make-data, ", "1440 minutes", "wait forever")
    )
    assert all(part in nodes for part in ("MaxNodes is 1", "train-decomp", "2 nodes"))
    level, text = found["preemption in odd"][0]
    assert level == WARN and text.startswith("PreemptMode CANCEL, GraceTime 0 s (preempt/partition_prio)")
    partition(PreemptMode="REQUEUE", State="DOWN")
    _, found = doctor(site(partition="odd,main", resources=resources, stop_seconds=600), "--timeout", "2")
    assert "DOWN" in found["partition odd"][0][1] and "periodic save" in found["preemption in odd"][0][1]
    assert found["preemption in main"][0][0] == OK and "make-data, " in found["stop_seconds"][0][1]


def test_an_account_that_may_not(site, partition, nobody, slurm, doctor):
    """As an ordinary user: Slurm lets its administrators in anywhere."""
    partition(AllowAccounts="lab")
    folder = Path(f"/tmp/doctor_{os.getpid()}")
    folder.mkdir()
    os.chown(folder, *nobody.ids)
    try:
        paths = {"experiments": str(folder / "experiments")}
        config = shutil.copy(site(partition="odd", account="other", paths=paths), folder)
        command = [
            *nobody.prefix,
            sys.executable,
            "-m",
            "launch",
            "doctor",
            "--json",
            "--timeout",
            "3",
            "--cluster",
            config,
        ]
        result = subprocess.run(
            command,
            cwd=CODE,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HOME": str(folder)},
        )
    finally:
        shutil.rmtree(folder)
    assert result.stdout, result.stderr
    assert result.returncode == 1
    found = doctor.findings(result.stdout)
    assert [
        text.startswith("AllowAccounts is lab, without account other") for _, text in found["partition odd"]
    ] == [True]
    level, text = found["probe job"][0]
    assert level == FAIL and "PENDING (" in text and "ccount" in text and "may wait forever" in text


def test_few_jobs_at_once(site, doctor, slurm):
    user = getpass.getuser()
    slurm("sacctmgr", "--immediate", "add", "account", "few")
    slurm("sacctmgr", "--immediate", "add", "user", user, "account=few", "MaxSubmitJobs=5")
    try:
        _, found = doctor(site(account="few"))
        [(level, text)] = found["MaxSubmitJobs"]
        assert level == WARN and all(part in text for part in ("account few", "5 of", "25", "stage by stage"))
        assert "MaxSubmitJobs" not in doctor(site(account="root"))[1]
    finally:
        slurm("sacctmgr", "--immediate", "delete", "user", user, "account=few", check=False)
        slurm("sacctmgr", "--immediate", "delete", "account", "few", check=False)


def test_a_cluster_that_does_not_answer(site, doctor, tmp_path):
    conf = tmp_path / "down.conf"
    conf.write_text(
        "ClusterName=down\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=2\n"
    )
    status, found = doctor(site(slurm_conf=str(conf)))
    assert status == 1 and found["slurm"][0][0] == FAIL
    assert "slurm_conf" in found["slurm"][0][1] and "accounting" not in found
    assert "not started: slurm failed above" in found["probe job"][0][1]


def test_a_cluster_without_accounting(site, doctor, dev_cluster, tmp_path):
    conf = tmp_path / "plain.conf"
    lines = Path(dev_cluster["SLURM_CONF"]).read_text().splitlines()
    kept = [line for line in lines if not line.startswith("AccountingStorage")]
    conf.write_text("\n".join(kept) + "\n")
    _, found = doctor(site(slurm_conf=str(conf)))
    assert found["accounting"][0][0] == WARN
    assert "accounting storage is disabled" in found["accounting"][0][1]


def test_more_tasks_than_an_array_takes(site, doctor, tmp_path, small_recipe):
    """The sizes of an experiment: one more shard than the dev cluster takes into an array."""
    recipe = small_recipe(slots={"stride": 2, "shards": 1002})
    pipeline = from_recipe(load_recipe(recipe), tmp_path, None)
    write_experiment(pipeline.root, pipeline.files, recipe)
    _, found = doctor(site(), "--exp", str(pipeline.root))
    level, text = found["MaxArraySize"][0]
    assert level == FAIL and all(part in text for part in ("1001", "1002", "shards"))


def test_what_the_node_says_before_python(site, doctor):
    status, found = doctor(site(setup=["module load cuda/99"]))
    assert status == 1
    assert found["setup"][0][0] == WARN and "module: command not found" in found["setup"][0][1]
    assert "the jobs' python did not start (exit status 1)" in found["python"][1][1]
    assert "the nodes need that interpreter" in found["python"][1][1]
    status, found = doctor(site(setup=["echo no GPU driver; exit 3"]))
    assert found["probe job"][0][0] == FAIL
    assert "did not start: no GPU driver" in found["probe job"][0][1]
    status, found = doctor(site(python=sys.executable, resources={"train_decomp": {"mem_gb": 0.1}}))
    level, text = found["probe"][0]
    assert status == 1 and level == FAIL
    assert "exit status 137" in text and "exceeded memory limit" in text


def test_a_busy_cluster_is_no_fault_and_the_probe_does_not_stay(site, doctor, slurm, capsys):
    job = slurm(
        "sbatch",
        "--parsable",
        "--nodes=2",
        "--exclusive",
        "--partition=main",
        "--output=/dev/null",
        "--wrap",
        "srun sleep 100",
    ).strip()
    try:
        while job not in slurm("squeue", "--noheader", "--states=RUNNING", "--format=%i"):
            time.sleep(0.2)
        status, found = doctor(site(), "--timeout", "5")
        level, text = found["probe job"][0]
        assert status == 0 and level == WARN
        assert "PENDING (Resources)" in text
        assert "textocvp-doctor" not in slurm("squeue", "--noheader", "--format=%j")
    finally:
        slurm("scancel", job)


def test_a_job_that_would_wait_for_ever(site, doctor, slurm, tmp_path):
    status, found = doctor(site(extra_sbatch={"hold": True}), "--timeout", "5")
    level, text = found["probe job"][0]
    assert status == 1 and level == FAIL and "PENDING (JobHeldUser)" in text
    assert "textocvp-doctor" not in slurm("squeue", "--noheader", "--format=%j")
    assert not (tmp_path / "experiments").exists()


def test_ctrl_c_leaves_no_job_behind(site, slurm, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "launch", "doctor", "--cluster", site(extra_sbatch={"hold": True})],
        cwd=CODE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while "textocvp-doctor" not in slurm("squeue", "--noheader", "--format=%j"):
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in error
    assert "textocvp-doctor" not in slurm("squeue", "--noheader", "--format=%j")
    assert not (tmp_path / "experiments").exists()


@pytest.mark.slow
def test_folders_that_the_nodes_do_not_share(site, tmp_path, doctor):
    """This host has a file system of its own over both folders; the nodes see the ones below it."""
    for name in ("experiments", "data"):
        (tmp_path / name).mkdir()
    paths = {"experiments": str(tmp_path / "experiments"), "data": {"CATER_Easy": str(tmp_path / "data")}}
    command = [
        sys.executable,
        "-m",
        "launch",
        "doctor",
        "--json",
        "--cluster",
        site(python=sys.executable, paths=paths),
    ]
    mounts = "".join(f"mount -t tmpfs none {tmp_path / name}; " for name in ("experiments", "data"))
    lines = f'set -e; {mounts} touch {tmp_path}/data/video; exec "$@"'
    prefix = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    result = subprocess.run(
        [*prefix, "bash", "-c", lines, "doctor", *command],
        cwd=CODE,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if not result.stdout:
        pytest.skip(f"no mounts of one's own here: {result.stderr.splitlines()[-1]}")
    found = doctor.findings(result.stdout)
    assert result.returncode == 1 and found["data CATER_Easy"][0][0] == OK
    level, text = found["shared folder"][0]
    assert level == FAIL
    assert f"the node does not see what this host wrote into {tmp_path}/experiments" in text
    level, text = found["path"][0]
    assert level == FAIL and f"{tmp_path}/data is empty on the node (on n1)" in text
    level, text = found["code"][0]
    assert level == FAIL and "No module named" in text


@pytest.mark.slow
@pytest.mark.container
def test_in_the_image(site, doctor, image, tmp_path, capsys):
    """With the image that `make image` built: whole, then with mistakes in the site's config."""
    cache, runtime = {"image_cache": str(image.parent)}, {"runtime": "apptainer"}
    built = find_image(
        parse_cluster({"scheduler": "slurm", "container": runtime, "paths": cache}, "s", "s", CODE, {})
    )
    for name in ("cater", "bound"):
        (tmp_path / name / "videos").mkdir(parents=True)
    data = {"CATER_Easy": str(tmp_path / "cater")}
    paths = {"experiments": str(tmp_path / "experiments"), "data": data, **cache}
    resources = {"train-decomp": {"nodes": 2, "mem_gb": 2}}
    bind = f"{tmp_path}/bound:/mnt/bound:ro"
    status, found = doctor(site(container={**runtime, "binds": [bind]}, paths=paths, resources=resources))
    assert status == 0, found
    assert found["image"][0][1].startswith(f"{built}, sha256 ") and found["image key"][0][0] == OK
    assert found["packages"][0][0] == OK and " in the image: torch 2" in found["packages"][0][1]
    assert [text for _, text in found["path"]] == [
        f"{tmp_path}/cater is readable in the image (on n1, n2); ",
        "/mnt/bound is readable in the image (on n1, n2); ",
    ]
    container = {**runtime, "binds": [f"{tmp_path}/none:/mnt/none"]}
    status, found = doctor(site(container=container, paths=paths, resources=resources))
    assert status == 1 and found["bind"][0][0] == WARN
    level, text = found["python"][0]
    assert level == FAIL and "FATAL" in text and f"mount source {tmp_path}/none doesn't exist" in text
    assert "see container.image, container.options and container.binds" in text
    resources["train_decomp"].update(gpus_per_node=1)
    container = {**runtime, "options": ["--no-such-option"]}
    status, found = doctor(site(container=container, paths=paths, resources=resources))
    assert status == 1 and "unknown flag: --no-such-option" in found["python"][0][1]
    status, found = doctor(site(container=runtime, paths=paths, resources=resources))
    level, text = found["GPUs"][0]
    assert status == 1 and level == FAIL and "container.lock: cuda" in text

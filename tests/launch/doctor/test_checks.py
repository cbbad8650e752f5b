"""Every row of the table: what it finds of a fact, at which level; no scheduler, no node."""

import json
import sys

import pytest

from launch import CODE
from launch.doctor import checks
from launch.doctor.checks import FAIL, OK, PROGRAMS, TABLE, WARN, Checks
from launch.stages import DISTRIBUTED
from slurm.container import image_key
from slurm.site import parse_cluster

UP = {"PartitionName": "p", "State": "UP", "MaxTime": "UNLIMITED", "MaxNodes": "4", "Nodes": "n[1-4]"}
IMAGE = {"container": {"runtime": "apptainer"}}
TORCH = {"version": "3.11.7", "executable": "/p", "packages": {"torch": {"version": "2", "seconds": 5}}}
GPUS = {"asked": 4, "count": 4, "cuda": "12.8", "names": ["A100"]}
KILLS = {"settings": {"DependencyParameters": "kill_invalid_depend"}}
LAB, FIVE = {**UP, "AllowAccounts": "a,b"}, {"train-decomp": {"nodes": 5}}
PRIO, NO_REQUEUE = "preempt/partition_prio", {"extra_sbatch": {"no-requeue": True}}


@pytest.fixture
def make(tmp_path):
    """Checks of a site with some values, of Slurm unless another scheduler is given."""

    def checks_of(exp=None, settings=(), partition=None, grace=None, **values):
        paths = {"experiments": str(tmp_path / "experiments"), **values.pop("paths", {})}
        cluster = parse_cluster({"scheduler": "slurm", **values, "paths": paths}, "s", "s", CODE, DISTRIBUTED)
        made = Checks(cluster, exp)
        made.settings, made.grace = dict(settings), grace
        made.partitions = {} if partition is None else dict([partition])
        return made

    return checks_of


def assert_found(made, test, name, level, parts, fact=()):
    """One finding of that name, of this level; its text and its advice hold these parts."""
    [row] = [row for row in TABLE if row.test.__name__ == test]
    found = [finding for finding in row.findings(made, dict(fact)) if finding.name == (name or row.name)]
    assert [finding.level for finding in found] == [level], found
    line = f"{found[0].found}; {found[0].advice}"
    assert all(str(part) in line for part in parts) and not (found[0].advice and level == OK), line


@pytest.mark.parametrize(
    ("programs", "site", "name", "level", "parts"),
    [
        (PROGRAMS, {}, "programs", OK, PROGRAMS),
        (PROGRAMS[1:], {}, "programs", FAIL, ("sbatch", "PATH", "login node")),
        (PROGRAMS, {}, "submission", FAIL, ("slurm.executor", "`make doctor CLUSTER=")),
        ((), {}, "sacct", WARN, ("PATH", "`make status`")),
        ((), {}, "git", WARN, ("PATH", "revision")),
        ((), IMAGE, "apptainer", WARN, ("PATH", "`make image`")),
        ((), {"scheduler": "local", **IMAGE}, "apptainer", FAIL, ("PATH", "`make image`")),
    ],
)
def test_programs(make, tmp_path, monkeypatch, programs, site, name, level, parts):
    for program in programs:
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "slurm.executor", None)
    test = "programs" if name in ("programs", "submission") else "optional_programs"
    assert_found(make(**site), test, name, level, parts)


@pytest.mark.parametrize(
    ("record", "name", "level", "parts"),
    [
        ({"digest": "sha256:abcdef", "bytes": 5, "key": "KEY"}, "image", OK, ("image.sif", "sha256 abcdef")),
        ({"digest": "sha256:abcdef", "bytes": 5, "key": "KEY"}, "image key", OK, ("KEY",)),
        ({"digest": "sha256:abcdef", "key": "1234"}, "image key", WARN, ("1234", "KEY", "`make image`")),
        ({"digest": "sha256:abcdef", "bytes": 500}, "image", FAIL, ("5 bytes", "500", "`make image`")),
        ({"bytes": 5}, "image", WARN, ("image.sif", "no digest", "`make image`")),
        ("{", "image", FAIL, ("image.sif.json",)),
        (None, "image", FAIL, ("image.sif", "container.image")),
    ],
)  # fmt: skip
def test_images(make, tmp_path, record, name, level, parts):
    made = make(container={"runtime": "apptainer", "image": str(tmp_path / "image.sif")})
    key = image_key(made.cluster)
    if record is not None:
        (tmp_path / "image.sif").write_bytes(b"image")
        text = record if isinstance(record, str) else json.dumps(record)
        (tmp_path / "image.sif.json").write_text(text.replace("KEY", key))
    assert_found(made, "image", name, level, [part.replace("KEY", key) for part in parts])


def test_images_and_interpreters_that_do_not_exist(make, tmp_path):
    cached = make(**IMAGE, paths={"image_cache": str(tmp_path)})
    assert_found(cached, "image", "", FAIL, ("`make image CLUSTER=",))
    assert_found(make(), "python", "", OK, ("python",))
    assert_found(make(python=f"{tmp_path}/none"), "python", "", FAIL, (f"{tmp_path}/none", "`make setup`"))


@pytest.mark.parametrize(
    ("free", "level", "parts"),
    [(3e10, OK, ("30.0 GB", "be created")), (3e9, WARN, ("3.0 GB", "paths.")), (3e8, FAIL, ("300",))],
)  # fmt: skip
def test_space_for_experiments(make, tmp_path, monkeypatch, free, level, parts):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    assert_found(make(), "experiments_folder", "", level, (f"{tmp_path}/experiments", *parts))
    assert not (tmp_path / "experiments").exists()
    (tmp_path / "experiments").write_text("a file")
    assert_found(make(), "experiments_folder", "", FAIL, (f"{tmp_path}/experiments", "paths.experiments"))


@pytest.mark.parametrize(
    ("paths", "binds", "name", "level", "parts"),
    [
        ({"data": {"A": "full"}}, [], "data A", OK, ("full",)),
        ({"data": {"A": "empty"}}, [], "data A", FAIL, ("empty is empty", "paths.data.A")),
        ({"data": {"A": "none"}}, [], "data A", FAIL, ("none does not exist", "paths.data.A")),
        ({"weights": "none"}, [], "weights", FAIL, ("none does not exist", "paths.weights")),
        ({}, ["full:/mnt", "none:/data:ro"], "bind", WARN, ("none", "container.binds")),
    ],
)
def test_folders_that_jobs_read(make, tmp_path, monkeypatch, paths, binds, name, level, parts):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "CODE", tmp_path)
    (tmp_path / "full" / "videos").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    made = make(paths=paths, container={"runtime": "apptainer", "binds": binds})
    assert_found(made, "data_and_weights", name, level, parts)


@pytest.mark.parametrize(
    ("test", "name", "site", "level", "parts"),
    [
        ("partition", "partition p", {"partition": ("p", UP)}, OK, ("State UP", "UNLIMITED", "n[1-4]")),
        ("partition", "partition p", {"partition": ("p", {})}, FAIL, ("unknown", "no access")),
        ("partition", "", {"partition": ("", {})}, WARN, ("no default",)),
        ("partition", "partition p", {"partition": ("p", {**UP, "State": "DOWN"})}, FAIL, ("DOWN", "ever")),
        ("partition", "partition p", {"partition": ("p", {**UP, "MaxTime": "00:30:00"})}, FAIL,
         ("MaxTime", "00:30:00", "train-decomp", "60 minutes")),
        ("partition", "partition p", {"partition": ("p", UP), "resources": FIVE}, FAIL,
         ("MaxNodes is 4", "train-decomp", "5 nodes")),
        ("partition", "partition p", {"partition": ("p", LAB), "account": "b"}, OK, ()),
        ("partition", "partition p", {"partition": ("p", LAB), "account": "c"}, FAIL,
         ("AllowAccounts", "a,b", "account c")),
        ("partition", "partition p", {"partition": ("p", {**UP, "AllowQos": "q"}), "qos": "r"}, FAIL,
         ("AllowQos", "qos r")),
        ("numbers", "MaxArraySize", {"settings": {"MaxArraySize": "1001"}}, OK, ("1001",)),
        ("numbers", "MaxArraySize", {"settings": {"MaxArraySize": "20"}}, FAIL, ("20", "26", "shards")),
        ("numbers", "MaxJobCount", {"settings": {"MaxJobCount": "10000"}}, OK, ("10000",)),
        ("numbers", "MaxJobCount", {"settings": {"MaxJobCount": "24"}}, FAIL, ("24", "25", "stage by stage")),
        ("endings", "JobRequeue", {"settings": {"JobRequeue": "1"}}, OK, ("1",)),
        ("endings", "JobRequeue", {"settings": {"JobRequeue": "0"}}, OK, ("not set", "request it")),
        ("endings", "JobRequeue", NO_REQUEUE, WARN, ("extra_sbatch.no-requeue", "remove")),
        ("endings", "kill_invalid_depend", KILLS, OK, ("set",)),
        ("endings", "kill_invalid_depend", {"settings": {}}, OK, ("request it",)),
        ("endings", "KillWait", {"settings": {"KillWait": "30 sec"}}, OK, ("30 sec",)),
    ],
)  # fmt: skip
def test_what_slurm_says(make, monkeypatch, test, name, site, level, parts):
    monkeypatch.setattr(checks.probe, "max_submit_jobs", lambda account, environment: [])
    assert_found(make(**site), test, name, level, parts)


@pytest.mark.parametrize(
    ("kind", "values", "level", "parts", "grace"),
    [
        ("preempt/none", {"PreemptMode": "REQUEUE"}, OK, ("none on this cluster",), None),
        (PRIO, {"PreemptMode": "OFF"}, OK, ("OFF",), None),
        (PRIO, {"PreemptMode": "REQUEUE", "GraceTime": "20"}, OK, ("REQUEUE", "20 s"), 20),
        (PRIO, {"PreemptMode": "REQUEUE"}, WARN, ("0 s", "last periodic save"), 0),
        (PRIO, {"PreemptMode": "SUSPEND"}, OK, ("SUSPEND",), 0),
        (PRIO, {"PreemptMode": "CANCEL"}, WARN, ("not requeued", "`make pipeline`"), 0),
        ("preempt/qos", {"PreemptMode": "REQUEUE", "GraceTime": "9"}, OK, ("QOS", "sacctmgr show qos"), 9),
    ],
)
def test_preemption(make, kind, values, level, parts, grace):
    made = make(settings={"PreemptType": kind}, partition=("p", values))
    assert_found(made, "preemption", "" if kind == "preempt/none" else "preemption in p", level, parts)
    assert made.grace == grace


@pytest.mark.parametrize(
    ("test", "fact", "site", "level", "parts"),
    [
        ("clock", {"skew": -1.5}, {}, OK, ("less than 2 s",)),
        ("clock", {"skew": -10}, {}, WARN, ("10 s behind", "NTP")),
        ("clock", {"skew": 90}, {}, FAIL, ("90 s ahead", "NTP")),
        ("packages", TORCH, {}, OK, ("Python 3.11.7", "/p", "torch 2")),
        ("packages", TORCH, IMAGE, OK, ("the image",)),
        ("packages", {**TORCH, "packages": {"torch": {"version": "2", "seconds": 70}}}, {}, WARN,
         ("70 s", "image-dir")),
        ("packages", {**TORCH, "packages": {"torch": {"error": "ImportError: x"}}}, {}, FAIL,
         ("torch in /p", "ImportError: x", "requirements-cpu.lock")),
        ("code", {"submitted": True, "file": "/s/launch/job.py"}, {}, OK, ("/s/launch/job.py",)),
        ("code", {"submitted": False, "file": "/old/launch/job.py"}, {}, FAIL, ("/old/launch", "PYTHONPATH")),
        ("code", {"error": "ImportError: no launch"}, {}, FAIL, ("no launch", "experiments folder")),
        ("user_packages", {"found": [], "folder": "/h/.local"}, {}, OK, ("none", "/h/.local")),
        ("user_packages", {"found": ["h5py"], "folder": "/h/.local"}, {}, WARN, ("h5py", "PYTHONNO")),
        ("user_packages", {"found": ["h5py"], "folder": "/h/.local"}, IMAGE, FAIL, ("h5py",)),
        ("path", {"problems": {"/data": ""}}, {}, OK, ("/data", "on the node")),
        ("path", {"problems": {"/data": "does not exist"}}, {}, FAIL, ("not exist", "container.binds")),
        ("path", {"problems": {"/data": "is empty"}}, IMAGE, FAIL, ("in the image",)),
        ("locks", {}, {}, OK, ("work",)),
        ("locks", {"error": "flock: No locks available"}, {}, FAIL, ("flock", "another file system")),
        ("hdf5", {"setting": "HDF5_USE_FILE_LOCKING=FALSE"}, {}, OK, ("HDF5_USE_FILE_LOCKING=FALSE",)),
        ("hdf5", {"error": "OSError"}, {}, FAIL, ("OSError", "{HDF5_USE_FILE_LOCKING:")),
        ("gpus", {**GPUS, "asked": 0}, {}, OK, ("none",)),
        ("gpus", GPUS, {}, OK, ("4 of 4", "12.8", "A100")),
        ("gpus", {**GPUS, "count": 1}, {}, FAIL, ("1 of 4", "partition")),
        ("gpus", {**GPUS, "cuda": "", "names": []}, {}, FAIL, ("of 4", "CPU", "container.lock: cuda")),
        ("gpus", {"error": "RuntimeError: CUDA driver"}, {}, FAIL, ("CUDA driver",)),
        ("shm", {"bytes": 64e9}, {}, OK, ("64.0 GB",)),
        ("shm", {"bytes": 64e6}, {}, WARN, ("64.0 MB", "SIGBUS", "num_workers=0")),
        ("shm", {"error": "FileNotFoundError"}, {}, FAIL, ("FileNotFoundError", "container.options")),
        ("save", {"error": "OSError: File too large"}, {}, FAIL, ("File too large",)),
        ("save", {"bytes": 0, "seconds": 0.0}, {}, FAIL, ("free some space",)),
        ("save", {"bytes": 200e6, "seconds": 2.0}, {"scheduler": "local"}, OK, ("100 MB/s", "1.0 s")),
        ("save", {"bytes": 200e6, "seconds": 2.0}, {"grace": 20}, OK, ("EXP=", "is 90 s", "is 20 s")),
        ("save", {"bytes": 5e6, "seconds": 1.0}, {"grace": 19}, WARN, ("20.0 s", "GraceTime is 19 s")),
        ("save", {"bytes": 5e6, "seconds": 1.0}, {"grace": 9, "stop_seconds": 9}, FAIL, ("stop_seconds",)),
    ],
)  # fmt: skip
def test_facts_of_a_node(make, test, fact, site, level, parts):
    assert_found(make(**site), test, "", level, parts, fact)


def test_a_saved_state_is_what_has_to_fit(make, tmp_path):
    state = tmp_path / "exp" / "seeds" / "3" / "resume" / "step_00000010" / "shards"
    state.mkdir(parents=True)
    with open(state / "model.pt", "wb") as file:
        file.truncate(3_000_000_000)
    parts = ("3.0 GB", f"a saved state of {tmp_path}/exp", "30.0 s", "GraceTime is 20 s")
    made = make(exp=tmp_path / "exp", grace=20)
    assert_found(made, "save", "", WARN, parts, {"bytes": 200e6, "seconds": 2.0})


@pytest.mark.parametrize(
    ("fact", "level", "parts"),
    [
        ({"nonce": "n", "trouble": ""}, OK, ("each other's files",)),
        ({"nonce": "n"}, OK, ("the node can read",)),
        ({"nonce": "", "trouble": ""}, FAIL, ("the node does not see", "paths.experiments")),
        ({"nonce": "n", "trouble": "", "node": "n2"}, FAIL, ("this host does not see", "0.2 s")),
        ({"nonce": "n", "trouble": "PermissionError"}, FAIL, ("PermissionError", "container.binds")),
    ],
)
def test_what_a_node_sees_of_the_experiments_folder(make, tmp_path, monkeypatch, fact, level, parts):
    monkeypatch.setattr(checks, "SEEN_SECONDS", 0.2)
    made = make()
    made.root, made.nonce = tmp_path, "n"
    (tmp_path / "node_n1").write_text("n")
    assert_found(made, "shared_folder", "", level, parts, {"node": "n1", **fact})

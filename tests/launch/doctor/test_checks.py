"""Every row of the table: what it finds of a fact, at which level; no scheduler, no node."""

from __future__ import annotations

import json
import os

import pytest

from launch import CODE
from launch.doctor import checks
from launch.doctor.checks import FAIL, OK, TABLE, WARN, Checks
from launch.stages import DISTRIBUTED
from slurm.container import image_key
from slurm.site import parse_cluster

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def ctx(tmp_path):
    """A context of a site with some values; Slurm unless another scheduler is given."""

    def make(exp=None, settings=(), partitions=None, grace=None, **values):
        paths = {"experiments": str(tmp_path / "experiments"), **values.pop("paths", {})}
        cluster = parse_cluster({"scheduler": "slurm", **values, "paths": paths}, "s", "s", CODE, DISTRIBUTED)
        made = Checks(cluster, exp)
        made.settings, made.partitions, made.grace = dict(settings), partitions or {}, grace
        return made

    return make


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """PATH with programs of these names and no others."""

    def only(*names):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in names:
            (folder / name).write_text("#!/bin/sh\n")
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return only


def find(made, name, test, **fact):
    """Findings of a name, of one test."""
    [row] = [row for row in TABLE if row.test.__name__ == test]
    return [finding for finding in row.findings(made, fact) if finding.name == name]


def assert_one(found, level, *parts):
    """One finding, of this level; its text and its advice hold these parts."""
    assert len(found) == 1, found
    assert found[0].level == level, found
    line = f"{found[0].found}; {found[0].advice}"
    assert all(str(part) in line for part in parts), line
    assert not (found[0].advice and level == OK), line


# this host


@pytest.mark.parametrize(
    ("there", "name", "level", "parts"),
    [
        (checks.PROGRAMS, "programs", OK, checks.PROGRAMS),
        (("srun",), "programs", FAIL, ("sbatch, squeue, scancel, scontrol", "PATH", "login node")),
        ((), "sacct", WARN, ("PATH", "`make status`")),
        ((), "git", WARN, ("PATH", "revision")),
        ((), "singularity", WARN, ("PATH", "`make image`")),
    ],
)
def test_programs(ctx, programs, there, name, level, parts):
    programs(*there)
    container = {"runtime": "singularity"}
    assert_one(
        find(ctx(container=container), name, "programs" if name == "programs" else "optional_programs"),
        level,
        *parts,
    )


def test_programs_of_a_machine_without_a_scheduler(ctx, programs):
    programs("git")
    local = ctx(scheduler="local", container={"runtime": "singularity"})
    assert_one(find(local, "singularity", "optional_programs"), FAIL, "`make image`")
    assert find(local, "programs", "programs") == find(local, "sacct", "optional_programs") == []


def test_submission_needs_submitit(ctx, programs, monkeypatch):
    programs(*checks.PROGRAMS)
    monkeypatch.setitem(__import__("sys").modules, "slurm.executor", None)
    assert_one(find(ctx(), "submission", "programs"), FAIL, "slurm.executor", "`make doctor CLUSTER=")


@pytest.mark.parametrize(
    ("record", "name", "level", "parts"),
    [
        ({"digest": DIGEST, "bytes": 5, "key": "KEY"}, "image", OK, ("image.sif", "sha256 abababababab")),
        ({"digest": DIGEST, "bytes": 5, "key": "KEY"}, "image key", OK, ("KEY",)),
        ({"digest": DIGEST, "key": "1234"}, "image key", WARN, ("1234", "KEY", "`make image`")),
        ({"digest": DIGEST, "bytes": 500}, "image", FAIL, ("image.sif", "5 bytes", "500", "`make image`")),
        ({"bytes": 5}, "image", WARN, ("image.sif", "no digest", "`make image`")),
        ("{", "image", FAIL, ("image.sif.json",)),
    ],
)
def test_images(ctx, tmp_path, record, name, level, parts):
    context = ctx(container={"runtime": "apptainer", "image": str(tmp_path / "image.sif")})
    (tmp_path / "image.sif").write_bytes(b"image")
    key = image_key(context.cluster)
    text = record if isinstance(record, str) else json.dumps(record).replace("KEY", key)
    (tmp_path / "image.sif.json").write_text(text)
    assert_one(find(context, name, "image"), level, *(part.replace("KEY", key) for part in parts))


def test_an_image_that_does_not_exist(ctx, tmp_path):
    named = ctx(container={"runtime": "apptainer", "image": str(tmp_path / "none.sif")})
    assert_one(find(named, "image", "image"), FAIL, tmp_path / "none.sif", "container.image")
    built = ctx(container={"runtime": "apptainer"}, paths={"image_cache": str(tmp_path)})
    assert_one(find(built, "image", "image"), FAIL, tmp_path, "`make image CLUSTER=")


def test_the_python_of_jobs_without_an_image(ctx, tmp_path):
    assert_one(find(ctx(), "python", "python"), OK, "python")
    assert_one(
        find(ctx(python=f"{tmp_path}/none"), "python", "python"), FAIL, f"{tmp_path}/none", "`make setup`"
    )


@pytest.mark.parametrize(
    ("free", "level", "parts"),
    [
        (3e10, OK, ("30.0 GB free", "will be created", "quota")),
        (3e9, WARN, ("3.0 GB", "paths.")),
        (3e8, FAIL, ("300",)),
    ],
)
def test_space_for_experiments(ctx, tmp_path, monkeypatch, free, level, parts):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    assert_one(
        find(ctx(), "experiments folder", "experiments_folder"), level, f"{tmp_path}/experiments", *parts
    )
    assert not (tmp_path / "experiments").exists()


def test_a_folder_for_experiments_that_cannot_be_used(ctx, tmp_path):
    (tmp_path / "experiments").write_text("a file")
    found = find(ctx(), "experiments folder", "experiments_folder")
    assert_one(found, FAIL, f"{tmp_path}/experiments", "paths.experiments")


@pytest.mark.parametrize(
    ("option", "name", "level", "parts"),
    [
        ("full", "data A", OK, ("full",)),
        ("empty", "data A", FAIL, ("empty is empty", "paths.data.A")),
        ("none", "data A", FAIL, ("none does not exist", "paths.data.A")),
        ("none", "weights", FAIL, ("none does not exist", "paths.weights")),
    ],
)
def test_folders_that_jobs_read(ctx, tmp_path, option, name, level, parts):
    (tmp_path / "full" / "videos").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    folder = str(tmp_path / option)
    paths = {"weights": folder} if name == "weights" else {"data": {"A": folder}}
    assert_one(find(ctx(paths=paths), name, "roots"), level, *parts)


def test_binds(ctx, tmp_path):
    container = {"runtime": "apptainer", "binds": [f"{tmp_path}/none:/data:ro", f"{tmp_path}:/mnt"]}
    assert_one(find(ctx(container=container), "bind", "binds"), WARN, f"{tmp_path}/none", "container.binds")


# Slurm


UP = {"PartitionName": "p", "State": "UP", "MaxTime": "UNLIMITED", "MaxNodes": "4", "Nodes": "n[1-4]"}


@pytest.mark.parametrize(
    ("name", "values", "site", "level", "parts"),
    [
        ("p", UP, {}, OK, ("State UP", "MaxTime UNLIMITED", "MaxNodes 4", "n[1-4]")),
        ("p", {}, {}, FAIL, ("unknown", "not for you")),
        ("", {}, {}, WARN, ("no default",)),
        ("p", {**UP, "State": "DOWN"}, {}, FAIL, ("State", "DOWN", "wait forever")),
        ("p", {**UP, "MaxTime": "00:30:00"}, {}, FAIL, ("MaxTime", "00:30:00", "train-decomp", "60 minutes")),
        (
            "p",
            UP,
            {"resources": {"train-decomp": {"nodes": 5}}},
            FAIL,
            ("MaxNodes", "4", "train-decomp", "5"),
        ),
        ("p", {**UP, "AllowAccounts": "a,b"}, {"account": "b"}, OK, ()),
        ("p", {**UP, "AllowAccounts": "a,b"}, {"account": "c"}, FAIL, ("AllowAccounts", "a,b", "account c")),
        ("p", {**UP, "AllowQos": "q"}, {"qos": "r"}, FAIL, ("AllowQos", "q", "qos r")),
    ],
)
def test_partitions(ctx, name, values, site, level, parts):
    title = f"partition {name}".strip()
    assert_one(find(ctx(partitions={name: values}, **site), title, "partition"), level, *parts)


@pytest.mark.parametrize(
    ("name", "settings", "level", "parts"),
    [
        ("MaxArraySize", {"MaxArraySize": "1001"}, OK, ("1001",)),
        ("MaxArraySize", {"MaxArraySize": "20"}, FAIL, ("20", "26", "shards")),
        ("MaxJobCount", {"MaxJobCount": "10000"}, OK, ("10000",)),
        ("MaxJobCount", {"MaxJobCount": "24"}, FAIL, ("24", "25", "stage by stage")),
    ],
)
def test_numbers_of_jobs(ctx, programs, name, settings, level, parts):
    programs()
    assert_one(find(ctx(settings=settings), name, "numbers"), level, *parts)


@pytest.mark.parametrize(
    ("name", "settings", "site", "level", "parts"),
    [
        ("JobRequeue", {"JobRequeue": "1"}, {}, OK, ("1",)),
        ("JobRequeue", {"JobRequeue": "0"}, {}, OK, ("not set", "ask for it")),
        (
            "JobRequeue",
            {},
            {"extra_sbatch": {"no-requeue": True}},
            WARN,
            ("extra_sbatch.no-requeue", "remove"),
        ),
        ("kill_invalid_depend", {"DependencyParameters": "kill_invalid_depend"}, {}, OK, ("set",)),
        ("kill_invalid_depend", {"DependencyParameters": "(null)"}, {}, OK, ("not set", "ask for it")),
        ("KillWait", {"KillWait": "30 sec"}, {}, OK, ("30 sec",)),
        ("stop_seconds", {}, {"stop_seconds": 3600}, FAIL, ("3600 s", "train-decomp", "raise")),
    ],
)
def test_how_jobs_end(ctx, name, settings, site, level, parts):
    test = "stop_seconds" if name == "stop_seconds" else "requeue"
    assert_one(find(ctx(settings=settings, **site), name, test), level, *parts)


def test_stop_seconds_that_fit_are_not_mentioned(ctx):
    assert find(ctx(), "stop_seconds", "stop_seconds") == []


@pytest.mark.parametrize(
    ("kind", "values", "level", "parts", "grace"),
    [
        ("preempt/none", {}, OK, ("none on this cluster",), None),
        ("preempt/partition_prio", {"PreemptMode": "OFF"}, OK, ("OFF",), None),
        (
            "preempt/partition_prio",
            {"PreemptMode": "REQUEUE", "GraceTime": "20"},
            OK,
            ("REQUEUE", "20 s"),
            20,
        ),
        ("preempt/partition_prio", {"PreemptMode": "REQUEUE"}, WARN, ("0 s", "last periodic save"), 0),
        ("preempt/partition_prio", {"PreemptMode": "SUSPEND"}, OK, ("SUSPEND",), 0),
        ("preempt/partition_prio", {"PreemptMode": "CANCEL"}, WARN, ("end for good", "`make pipeline`"), 0),
        ("preempt/qos", {"PreemptMode": "REQUEUE", "GraceTime": "9"}, OK, ("QOS", "sacctmgr show qos"), 9),
    ],
)
def test_preemption(ctx, kind, values, level, parts, grace):
    context = ctx(settings={"PreemptType": kind}, partitions={"p": values})
    name = "preemption" if kind == "preempt/none" else "preemption in p"
    assert_one(find(context, name, "preemption"), level, *parts)
    assert context.grace == grace


# a node


GPUS = {"asked": 4, "count": 4, "cuda": "12.8", "names": ["A100"]}
PACKAGES = {"version": "3.11.7", "executable": "/p", "packages": {"torch": {"version": "2", "seconds": 5}}}


@pytest.mark.parametrize(
    ("test", "fact", "site", "level", "parts"),
    [
        ("clock", {"skew": -1.5}, {}, OK, ("less than 2 s",)),
        ("clock", {"skew": -10}, {}, WARN, ("10 s behind", "NTP")),
        ("clock", {"skew": 90}, {}, FAIL, ("90 s ahead", "NTP")),
        ("packages", PACKAGES, {}, OK, ("Python 3.11.7", "/p", "torch 2")),
        ("packages", PACKAGES, {"container": {"runtime": "apptainer"}}, OK, ("the image",)),
        ("packages", {**PACKAGES, "packages": {"torch": {"version": "2", "seconds": 70}}}, {}, WARN,
         ("torch 2", "70 s", "`make image-dir`")),
        ("packages", {**PACKAGES, "packages": {"torch": {"error": "ImportError: x"}}}, {}, FAIL,
         ("torch in /p", "ImportError: x", "requirements-cpu.lock")),
        ("code", {"submitted": True, "file": "/s/launch/job.py"}, {}, OK, ("/s/launch/job.py",)),
        ("code", {"submitted": False, "file": "/old/launch/job.py"}, {}, FAIL, ("/old/launch/job.py", "PYTHONPATH")),
        ("code", {"error": "ImportError: no launch"}, {}, FAIL, ("no launch", "experiments folder")),
        ("user_packages", {"found": [], "folder": "/h/.local"}, {}, OK, ("none", "/h/.local")),
        ("user_packages", {"found": ["h5py"], "folder": "/h/.local"}, {}, WARN, ("h5py", "PYTHONNOUSERSITE")),
        ("user_packages", {"found": ["h5py"], "folder": "/h/.local"}, {"container": {"runtime": "apptainer"}}, FAIL,
         ("h5py",)),
        ("path", {"problems": {"/data": ""}}, {}, OK, ("/data", "on the node")),
        ("path", {"problems": {"/data": "does not exist"}}, {}, FAIL, ("/data does not exist", "container.binds")),
        ("path", {"problems": {"/d": "is empty"}}, {"container": {"runtime": "apptainer"}}, FAIL, ("in the image",)),
        ("locks", {}, {}, OK, ("work",)),
        ("locks", {"error": "flock: No locks available"}, {}, FAIL, ("flock", "another folder")),
        ("hdf5", {"setting": "HDF5_USE_FILE_LOCKING=FALSE"}, {}, OK, ("HDF5_USE_FILE_LOCKING=FALSE",)),
        ("hdf5", {"error": "OSError"}, {}, FAIL, ("OSError", "environment: {HDF5_USE_FILE_LOCKING: 'FALSE'}")),
        ("gpus", {**GPUS, "asked": 0}, {}, OK, ("none asked for",)),
        ("gpus", GPUS, {}, OK, ("4 of 4", "12.8", "A100")),
        ("gpus", {**GPUS, "count": 1}, {}, FAIL, ("1 of 4", "partition")),
        ("gpus", {**GPUS, "names": []}, {}, FAIL, ("partition",)),
        ("gpus", {**GPUS, "cuda": "", "names": []}, {}, FAIL, ("of 4", "CPU", "container.lock: cuda")),
        ("gpus", {"error": "RuntimeError: CUDA driver"}, {}, FAIL, ("CUDA driver",)),
        ("shm", {"bytes": 64e9}, {}, OK, ("64.0 GB",)),
        ("shm", {"bytes": 64e6}, {}, WARN, ("64.0 MB", "SIGBUS", "num_workers=0")),
        ("shm", {"error": "FileNotFoundError"}, {}, FAIL, ("FileNotFoundError", "container.options")),
        ("save", {"error": "OSError: File too large"}, {}, FAIL, ("File too large",)),
        ("save", {"bytes": 0, "seconds": 0.0}, {}, FAIL, ("free some space",)),
        ("save", {"bytes": 200e6, "seconds": 2.0}, {"scheduler": "local"}, OK, ("100 MB/s", "1.0 s")),
        ("save", {"bytes": 200e6, "seconds": 2.0}, {"grace": 20}, OK,
         ("200 MB", "2.0 s", "EXP=", "stop_seconds is 90 s", "GraceTime is 20 s")),
        ("save", {"bytes": 5e6, "seconds": 1.0}, {"grace": 19}, WARN, ("20.0 s", "GraceTime is 19 s")),
        ("save", {"bytes": 5e6, "seconds": 1.0}, {"grace": 19, "stop_seconds": 9}, FAIL, ("stop_seconds is 9",)),
    ],
)  # fmt: skip
def test_facts_of_a_node(ctx, test, fact, site, level, parts):
    name = next(row.name for row in TABLE if row.test.__name__ == test)
    assert_one(find(ctx(**site), name, test, **fact), level, *parts)


def test_a_saved_state_is_what_has_to_fit(ctx, tmp_path):
    state = tmp_path / "exp" / "seeds" / "3" / "resume" / "step_00000010" / "shards"
    state.mkdir(parents=True)
    with open(state / "model.pt", "wb") as file:
        file.truncate(3_000_000_000)
    found = find(ctx(exp=tmp_path / "exp", grace=20), "save", "save", bytes=200e6, seconds=2.0)
    assert_one(found, WARN, "3.0 GB", f"a saved state of {tmp_path}/exp", "30.0 s", "GraceTime is 20 s")


@pytest.mark.parametrize(
    ("fact", "level", "parts"),
    [
        ({"nonce": "n", "trouble": ""}, OK, ("node and this host read",)),
        ({"nonce": "n"}, OK, ("the node reads",)),
        ({"nonce": "", "trouble": ""}, FAIL, ("the node does not see", "paths.experiments")),
        ({"nonce": "n", "trouble": "", "node": "n2"}, FAIL, ("this host does not see", "0.2 s")),
        ({"nonce": "n", "trouble": "it reads another file"}, FAIL, ("another file", "container.binds")),
    ],
)
def test_what_a_node_sees_of_the_experiments_folder(ctx, tmp_path, monkeypatch, fact, level, parts):
    monkeypatch.setattr(checks, "SEEN_SECONDS", 0.2)
    context = ctx()
    context.root, context.nonce = tmp_path, "n"
    (tmp_path / "node_n1").write_text("n")
    assert_one(find(context, "shared folder", "shared_folder", **{"node": "n1", **fact}), level, *parts)


def test_a_folder_that_only_others_may_read(tmp_path):
    if os.getuid() == 0:
        pytest.skip("root may read everything")
    (tmp_path / "secret").mkdir(mode=0)
    assert "not readable" in checks.problem(tmp_path / "secret")

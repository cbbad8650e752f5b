"""`doctor` without a scheduler: each check is made to fail for real, and its line is read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from launch import CODE
from launch.cli import main
from launch.doctor import storage
from launch.doctor.findings import FAIL, OK, WARN
from launch.doctor.node import check_nodes
from launch.doctor.probing import Outcome, Probe
from slurm.container import image_key
from slurm.site import parse_cluster

BASE_PYTHON = sys._base_executable


@pytest.fixture
def site(tmp_path):
    """Writes a site's config; returns its path."""

    def write(**values):
        paths = {"experiments": str(tmp_path / "experiments"), **values.pop("paths", {})}
        path = tmp_path / "site.yaml"
        path.write_text(yaml.safe_dump({"scheduler": "local", "paths": paths, **values}))
        return str(path)

    return write


def node_python(tmp_path, body='exec {python} "$@"'):
    """A program that stands for the node's python."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{body.format(python=sys.executable)}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.slow
def test_a_healthy_machine(site, tmp_path, capsys):
    (tmp_path / "cater" / "videos").mkdir(parents=True)
    assert main(["doctor", "--cluster", site(paths={"data": {"CATER_Easy": str(tmp_path / "cater")}})]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "this host:"
    for start in (
        "  ok    cluster config: ",
        "  ok    python: ",
        "  ok    data CATER_Easy: ",
        "  ok    packages: Python 3",
        "  ok    shared folder: ",
        "  ok    file locks: work",
        "  ok    hdf5: written and read with HDF5_USE_FILE_LOCKING=FALSE",
        "  ok    save: 268 MB",
    ):
        assert [line for line in lines if line.startswith(start)], start
    assert lines[-1].endswith("0 warn, 0 FAIL") and lines[-1].startswith("doctor: ")
    assert not (tmp_path / "experiments").exists(), "it leaves nothing behind"


def test_a_wrong_config_is_one_finding(site, doctor, capsys):
    status, found = doctor(site(partion="main"))
    assert status == 1 and list(found) == ["cluster config"]
    assert "partion: unknown key, did you mean 'partition'?" in found["cluster config"][0][1]
    assert doctor("nowhere")[1]["cluster config"][0][1].startswith("no cluster 'nowhere'")
    assert main(["doctor", "--cluster", site(), "--exp", "experiments/none"]) == 2
    assert "no such experiment" in capsys.readouterr().err


def test_what_is_missing_is_named_and_nothing_is_probed(site, doctor, tmp_path):
    (tmp_path / "empty").mkdir()
    paths = {
        "data": {"A": str(tmp_path / "none"), "B": str(tmp_path / "empty")},
        "weights": str(tmp_path / "w"),
    }
    status, found = doctor(site(paths=paths, python=str(tmp_path / "no_python")))
    assert status == 1
    assert found["data A"] == [(FAIL, f"{tmp_path}/none does not exist; mend paths.data.A")]
    assert found["data B"] == [
        (FAIL, f"{tmp_path}/empty is empty; mend paths.data.B, or fetch what belongs there")
    ]
    assert found["weights"] == [(FAIL, f"{tmp_path}/w does not exist; mend paths.weights")]
    assert f"{tmp_path}/no_python does not exist" in found["python"][0][1]
    assert found["probe job"] == [(FAIL, "not started: python failed above; mend that first")]


def test_programs_that_are_not_there(site, doctor, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, found = doctor(site(scheduler="slurm"))
    assert status == 1
    assert found["programs"][0][1].startswith("sbatch, srun, squeue, scancel, scontrol not on PATH; run this")
    assert found["sacct"][0][0] == WARN and "`make status`" in found["sacct"][0][1]
    assert found["git"][0] == (
        WARN,
        "not on PATH; without it jobs take along every file here that is not "
        "hidden, and no code revision is recorded",
    )
    assert found["probe job"] == [(FAIL, "not started: programs failed above; mend that first")]
    image = tmp_path / "image.sif"
    image.touch()
    status, found = doctor(site(container={"runtime": "singularity", "image": str(image)}))
    assert found["singularity"][0][0] == FAIL
    assert "singularity failed above; mend that first" in found["probe job"][0][1]


@pytest.fixture
def image(tmp_path, monkeypatch):
    """An image file with the record that `make image` writes beside it."""
    monkeypatch.setenv("PATH", "/nowhere")  # no runtime: the image is looked at, not started
    path = tmp_path / "image.sif"
    path.write_bytes(b"image")

    def record(**values):
        path.with_name("image.sif.json").write_text(json.dumps(values) if values else "{")
        return {"runtime": "apptainer", "image": str(path)}

    return record


def test_images(site, doctor, image, tmp_path):
    key = image_key(parse_cluster({"scheduler": "local"}, "s", "s", CODE, {}))
    _, found = doctor(site(container=image(digest="sha256:" + "ab" * 32, key=key, bytes=5)))
    assert found["image"][0] == (OK, f"{tmp_path}/image.sif, sha256 abababababab; ")
    assert found["image key"] == [(OK, f"{key}: made from lock and definition as they are; ")]
    _, found = doctor(site(container=image(digest="sha256:ab", key="1234")))
    assert found["image key"][0][0] == WARN
    assert found["image key"][0][1].startswith(f"1234, but lock and definition make {key}; `make image ")
    _, found = doctor(site(container=image(digest="sha256:ab", bytes=500)))
    assert found["image"] == [
        (
            FAIL,
            f"{tmp_path}/image.sif has 5 bytes, not 500; it was not copied to its "
            "end: copy or build it again",
        )
    ]
    _, found = doctor(site(container=image(bytes=5)))
    assert found["image"][0][0] == WARN and "no digest is recorded beside it" in found["image"][0][1]
    assert "is no JSON" in doctor(site(container=image()))[1]["image"][0][1]
    (tmp_path / "image.sif").unlink()
    status, found = doctor(site(container=image(bytes=5)))
    assert status == 1
    assert "does not exist" in found["image"][0][1] and "see container.image" in found["image"][0][1]
    container = {"runtime": "apptainer", "binds": [f"{tmp_path}/none:/data:ro"]}
    _, found = doctor(site(container=container, paths={"image_cache": str(tmp_path)}))
    assert "`make image CLUSTER=" in found["image"][0][1]
    assert found["bind"][0][0] == WARN and f"{tmp_path}/none is not here" in found["bind"][0][1]


def run_as(prefix, site, *options):
    command = [*prefix, sys.executable, "-m", "launch", "doctor", "--cluster", site, *options]
    return subprocess.run(
        command, cwd=CODE, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": "/tmp"}
    )


def test_a_folder_of_somebody_else(site, tmp_path, nobody):
    if not nobody.prefix:
        pytest.skip("needs root, to have a folder that another user may not write")
    folder = Path(f"/tmp/doctor_{os.getpid()}")
    folder.mkdir()
    try:
        (folder / "secret").mkdir(mode=0o700)
        paths = {"experiments": str(folder), "data": {"A": str(folder / "secret")}}
        config = shutil.copy(site(paths=paths), folder)
        result = run_as(nobody.prefix, config)
        assert result.returncode == 1, result.stderr
        assert (
            f"FAIL  experiments folder: {folder}: Permission denied; set paths.experiments to a folder "
            "that you may write and lock files in"
        ) in result.stdout
        assert f"FAIL  data A: {folder}/secret may not be read; ask its owner" in result.stdout
        assert "FAIL  probe job: not started: experiments folder failed above" in result.stdout
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_node_with_many_faults(site, doctor, tmp_path):
    """Its clock is ahead, its file system has no locks and takes no large file, its torch sees no GPU."""
    faults = "\n".join(
        [
            "import errno, fcntl, resource, sys, time",
            "real, source, sys.argv = time.time, sys.argv[3], ['-c', *sys.argv[4:]]",
            "time.time = lambda: real() + 90",
            "def none(*arguments): raise OSError(errno.ENOLCK, 'No locks available')",
            "fcntl.lockf = fcntl.flock = none",
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))",
            "exec(compile(source, 'probe', 'exec'))",
        ]
    )
    (tmp_path / "faults.py").write_text(faults)
    python = node_python(tmp_path, 'exec {python} -c "$(cat ' + str(tmp_path / "faults.py") + ')" "$@"')
    resources = {"train_decomp": {"gpus_per_node": 1}}
    status, found = doctor(site(python=python, resources=resources))
    node = os.uname().nodename
    assert status == 1
    assert found["clock"] == [
        (
            FAIL,
            f"90 s ahead of this host's (on {node}); file times and certificates "
            "mislead: tell the administrators (NTP)",
        )
    ]
    assert found["file locks"][0][0] == FAIL
    assert found["file locks"][0][1].startswith("lockf: No locks available")
    level, text = found["hdf5"][0]
    assert level == FAIL and text.startswith("with HDF5_USE_FILE_LOCKING=FALSE: ") and "exit status" in text
    assert found["save"][0][0] == FAIL and "File too large" in found["save"][0][1]
    assert found["GPUs"][0][0] == FAIL
    assert "1 asked for, but this torch is a build for CPUs" in found["GPUs"][0][1]
    assert found["packages"][0][0] == OK and found["shared folder"][0][0] == OK


def test_another_python_and_packages_of_the_user(site, doctor, tmp_path, monkeypatch):
    """The interpreter below the environment has no torch; its h5py lies in the user's own folder."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    user = tmp_path / "user" / "lib" / version / "site-packages"
    user.mkdir(parents=True)
    import h5py

    for package in ("h5py", "h5py.libs", "numpy", "numpy.libs"):
        source = Path(h5py.__file__).parents[1] / package
        if source.exists():
            (user / package).symlink_to(source)
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "user"))
    monkeypatch.delenv("PYTHONNOUSERSITE", raising=False)
    status, found = doctor(site(python=BASE_PYTHON, environment={"HDF5_USE_FILE_LOCKING": "TRUE"}))
    assert status == 1
    missing = [text for level, text in found["packages"] if level == FAIL]
    assert any(text.startswith(f"torch in {BASE_PYTHON}: ModuleNotFoundError") for text in missing), found
    assert all("install containers/requirements-cpu.lock" in text for text in missing)
    assert found["user packages"][0][0] == WARN
    assert found["user packages"][0][1].startswith(f"h5py from {user}")
    assert found["hdf5"][0][1].startswith("written and read with HDF5_USE_FILE_LOCKING=TRUE")


def test_a_python_that_does_not_start(site, doctor, tmp_path):
    python = node_python(tmp_path, "echo libpython3.so: cannot open shared object file >&2; exit 127")
    status, found = doctor(site(python=python))
    assert status == 1
    level, text = found["python"][1]
    assert level == FAIL
    assert text.startswith("the jobs' python did not start (exit status 127): libpython3.so: cannot open")


def test_a_probe_that_hangs_is_ended(site, doctor, tmp_path):
    started = time.time()
    status, found = doctor(site(python=node_python(tmp_path, "sleep 600; true")), "--timeout", "1")
    assert status == 1 and time.time() - started < 10
    assert "cancelled after the time-out" in found["python"][1][1]
    asleep = [
        path
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"sleep\x00600" in path.read_bytes() and str(tmp_path).encode() in path.read_bytes()
    ]
    assert asleep == []
    assert list((tmp_path).glob("experiments*")) == []


@pytest.fixture
def facts(tmp_path):
    """Findings on a healthy node's facts with some of them changed."""

    def judge(cluster=None, grace=None, exp=None, **changes):
        folder = tmp_path / "experiments" / ".doctor-x"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "node_n1").write_text(changes.pop("answer", "nonce"))
        told = {
            "node": {"nonce": "nonce"},
            "folder": {"same": True},
            "shm": {"bytes": 64e9},
            "save": {"bytes": 200_000_000, "seconds": 2.0},
            "done": {},
            **changes,
        }
        listed = [
            {"node": "n1", "time": 5.0, "arrived": 5.1, "fact": fact, **values}
            for fact, values in told.items()
            if values is not None
        ]
        values = {"scheduler": "slurm", "stop_seconds": 60, **(cluster or {})}
        site = parse_cluster(values, "s", "s", CODE, {"train_decomp": True})
        probe = Probe(site, folder, "nonce", 1, grace, exp)
        return {found.name: found for found in check_nodes(Outcome(listed, status=0), probe)}

    return judge


def test_a_save_has_to_fit(facts, tmp_path):
    assert facts(grace=20)["save"].found == (
        "200 MB safe on disk in 2.0 s, 100 MB/s; 100 MB (an example: EXP= takes its own) take at least "
        "1.0 s: within GraceTime 20 s and stop_seconds 60 s (on n1)"
    )
    state = tmp_path / "exp" / "seeds" / "3" / "resume" / "step_00000010" / "shards"
    state.mkdir(parents=True)
    with open(state / "model.pt", "wb") as file:
        file.truncate(3_000_000_000)
    found = facts(grace=20, exp=tmp_path / "exp")["save"]
    assert found.level == WARN and "3.0 GB (a saved state of" in found.found
    assert "take at least 30.0 s: more than GraceTime 20 s" in found.found
    assert facts(exp=tmp_path / "exp")["save"].level == OK
    found = facts(grace=20, exp=tmp_path / "exp", cluster={"stop_seconds": 10})["save"]
    assert found.level == FAIL and "more than stop_seconds 10 s" in found.found


def test_what_a_node_may_see_of_the_folder(facts, monkeypatch):
    monkeypatch.setattr(storage, "SEEN_SECONDS", 0.3)
    assert facts()["shared folder"].level == OK
    assert "on the node" in facts(node={"nonce": ""})["shared folder"].found
    found = facts(answer="another")["shared folder"]
    assert found.level == FAIL and "what the node wrote into" in found.found and "is not here" in found.found
    found = facts(folder={"error": "PermissionError: [Errno 13]"})["shared folder"]
    assert found.level == FAIL and "may not use it: PermissionError" in found.found
    assert "see container.binds" in found.advice


@pytest.mark.parametrize(
    ("name", "changes", "level", "text"),
    [
        ("clock", {"done": {"time": 2.0}, "node": {"nonce": "nonce", "time": 1.0}}, OK, "less than 2 s"),
        ("/dev/shm", {"shm": {"bytes": 64e6}}, WARN, "only 64.0 MB (on n1); data workers may die of SIGBUS"),
        ("/dev/shm", {"shm": {"error": "FileNotFoundError"}}, FAIL, "data workers need it"),
        (
            "code",
            {"code": {"file": "/old/slurm/job.py", "wanted": "/new"}},
            FAIL,
            "jobs would run /old/slurm",
        ),
        (
            "path",
            {"path": {"path": "/data", "there": False}},
            FAIL,
            "/data does not exist on the node (on n1)",
        ),
        (
            "path",
            {"path": {"path": "/data", "there": True, "empty": True}},
            FAIL,
            "/data is empty on the node",
        ),
        ("GPUs", {"gpus": {"count": 1, "cuda": "12.8", "available": True, "names": ["A"]}}, FAIL, "1 of 4"),
        (
            "GPUs",
            {"gpus": {"count": 4, "cuda": "12.8", "available": True, "names": ["A"]}},
            OK,
            "4 of 4 visible",
        ),
        ("GPUs", {"gpus": {"error": "RuntimeError: CUDA driver"}}, FAIL, "driver and CUDA build have to fit"),
        (
            "probe",
            {"done": None, "python": {"version": "3", "executable": "p"}},
            FAIL,
            "broke off (exit status",
        ),
    ],
)
def test_facts_that_no_healthy_machine_tells(facts, name, changes, level, text):
    found = facts({"resources": {"train_decomp": {"gpus_per_node": 4}}}, **changes)[name]
    assert found.level == level and text in found.line

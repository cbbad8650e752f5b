"""`doctor` on this machine, without a scheduler: what is wrong is made so, and its line is read."""

import functools
import os
import sys
import time
from pathlib import Path

import pytest

from launch import CODE
from launch.cli import main
from launch.doctor import facts_by_node, job_findings, unfinished
from launch.doctor.checks import FAIL, OK, WARN, Checks
from launch.doctor.probe import MARK
from slurm.probe import Outcome
from slurm.site import parse_cluster

BASE_PYTHON = sys._base_executable


@pytest.fixture
def site(local_site):
    """Writes a site's config; returns its path."""
    return functools.partial(local_site, python=None)


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
    assert lines[0] == "this host:" and "this host, as a task sees it:" in lines
    found = {line[8:].split(":")[0]: line for line in lines if line.startswith("  ok    ")}
    names = {"cluster config", "python", "data CATER_Easy", "packages", "file locks", "code", "clock"}
    assert names <= set(found)
    assert "each other's files" in found["shared folder"] and "on " in found["shared folder"]
    assert "HDF5_USE_FILE_LOCKING=FALSE" in found["hdf5"] and "268 MB" in found["save"]
    assert lines[-1] == f"doctor: {len(found)} ok, 0 warn, 0 FAIL"
    assert not (tmp_path / "experiments").exists(), "it leaves nothing behind"


def test_a_wrong_config_is_one_finding(site, doctor, capsys):
    status, found = doctor(site(partion="main"))
    assert status == 1 and list(found) == ["cluster config"]
    assert all(part in found["cluster config"][0][1] for part in ("site.yaml", "partion", "'partition'"))
    assert "nowhere" in doctor("nowhere")[1]["cluster config"][0][1]
    assert main(["doctor", "--cluster", site(), "--exp", "experiments/none"]) == 2
    assert "experiments/none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"python": "/no/python"}, "python"),
        ({"scheduler": "slurm"}, "programs"),
        ({"container": {"runtime": "singularity", "image": "/no/image"}}, "image, singularity"),
    ],
)
def test_no_node_is_probed_where_a_needed_check_failed(site, doctor, tmp_path, monkeypatch, values, names):
    monkeypatch.setenv("PATH", str(tmp_path))
    status, found = doctor(site(**values))
    assert status == 1
    [(level, text)] = found["probe job"]
    assert level == FAIL and text == f"not started: {names} failed above; fix that first"
    assert "slurm" not in found


def test_a_folder_of_somebody_else(site, nobody, run_as_nobody):
    if not nobody.prefix:
        pytest.skip("needs root, to have a folder that another user may not write")
    folder = run_as_nobody.folder
    os.chown(folder, 0, 0)
    (folder / "secret").mkdir(mode=0o700)
    result = run_as_nobody(site(paths={"experiments": str(folder), "data": {"A": str(folder / "secret")}}))
    assert result.returncode == 1, result.stderr
    lines = {line.split(": ")[0]: line for line in result.stdout.splitlines() if "  FAIL  " in line}
    assert f"{folder}" in lines["  FAIL  experiments folder"] and "Permission denied" in result.stdout
    assert f"{folder}/secret is not readable" in lines["  FAIL  data A"]
    assert "experiments folder failed above" in lines["  FAIL  probe job"]


@pytest.mark.slow
def test_a_node_with_many_faults(site, doctor, tmp_path):
    """Its clock is ahead, its file system has no locks and takes no large file, its torch sees no GPU."""
    faults = [
        "import errno, fcntl, resource, sys, time",
        "real, source, sys.argv = time.time, sys.argv[3], ['-c', *sys.argv[4:]]",
        "time.time = lambda: real() + 90",
        "def none(*arguments): raise OSError(errno.ENOLCK, 'No locks available')",
        "fcntl.lockf = fcntl.flock = none",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))",
        "exec(compile(source, 'probe', 'exec'))",
    ]
    (tmp_path / "faults.py").write_text("\n".join(faults))
    python = node_python(tmp_path, 'exec {python} -c "$(cat ' + str(tmp_path / "faults.py") + ')" "$@"')
    status, found = doctor(site(python=python, resources={"train-decomp": {"gpus_per_node": 1}}))
    assert status == 1
    for name, level, parts in (
        ("clock", FAIL, (f"90 s ahead of this host's (on {os.uname().nodename})", "NTP")),
        ("file locks", FAIL, ("No locks available",)),
        ("hdf5", FAIL, ("HDF5_USE_FILE_LOCKING=FALSE", "exit status")),
        ("save", FAIL, ("File too large",)),
        ("GPUs", FAIL, ("0 of 1", "CPUs")),
        ("packages", OK, ("torch",)),
        ("shared folder", OK, ()),
    ):
        assert found[name][0][0] == level and all(part in found[name][0][1] for part in parts), found[name]


def test_another_python_and_packages_of_the_user(site, doctor, tmp_path, monkeypatch):
    """The interpreter below the environment has no torch; its h5py is in the user's own folder."""
    import h5py

    user = tmp_path / "user" / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
    user.mkdir(parents=True)
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
    level, text = found["user packages"][0]
    assert level == WARN and text.startswith(f"h5py from {user}")
    assert "HDF5_USE_FILE_LOCKING=TRUE" in found["hdf5"][0][1]


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("echo lib.so: cannot open >&2; exit 127", ("exit status 127", "lib.so: cannot", "(`python`)")),
        ("sleep 600; true", ("cancelled after the timeout",)),
    ],
)
def test_a_python_that_does_not_start_or_hangs(site, doctor, tmp_path, body, parts):
    started = time.time()
    status, found = doctor(site(python=node_python(tmp_path, body)), "--timeout", "1")
    level, text = found["python"][1]
    assert status == 1 and level == FAIL and all(part in text for part in parts), text
    assert found["shared folder"][0][0] == OK and time.time() - started < 10
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not any(b"sleep\x00600" in words and str(tmp_path).encode() in words for words in commands)
    assert not (tmp_path / "experiments").exists()


LATER = MARK + '{"node": "n1", "fact": "python", "time": 6.0}'
FACT = MARK + '{"node": "n1", "fact": "shared_folder", "time": 5.0, "nonce": "x"}'


@pytest.mark.parametrize(
    ("lines", "status", "state", "reason", "name", "level", "parts"),
    [
        ([], None, "PENDING", "Resources", "probe job", WARN, ("job 7", "Resources", "TIMEOUT=")),
        ([], None, "PENDING", "ReqNodeNotAvail, Reserved", "probe job", WARN, ("ReqNodeNotAvail",)),
        ([], None, "PENDING", "JobHeldUser", "probe job", FAIL, ("JobHeldUser", "wait forever")),
        (["srun: error: no"], 1, "", "", "probe job", FAIL, ("job 7", "no (exit status 1)", "`setup`")),
        (["srun: x", "no module"], 3, "", "", "probe job", FAIL, (": no module (exit status 3)",)),
        (["module: not found", FACT], 0, "", "", "setup", WARN, ("module: not found",)),
        ([FACT, "killed"], 137, "", "", "python", FAIL, ("exit status 137", "killed")),
        ([FACT, LATER], None, "", "", "probe", FAIL, ("mem_gb",)),
    ],
)
def test_a_job_that_did_not_do_what_it_should(lines, status, state, reason, name, level, parts):
    first = next((i for i, line in enumerate(lines) if line.startswith(MARK)), len(lines))
    outcome = Outcome(lines[:first], [(5.0, line) for line in lines[first:]], status, "7", state, reason)
    checks = Checks(parse_cluster({"scheduler": "slurm"}, "s", "s", CODE, {}))
    found = [*job_findings(outcome)]
    for facts in facts_by_node(outcome).values():
        found += unfinished(checks, outcome, facts)
    [finding] = [one for one in found if one.name == name]
    assert finding.level == level
    assert all(part in f"{finding.found}; {finding.advice}" for part in parts), finding

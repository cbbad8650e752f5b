"""What tests of launching share: a stand-in for the work, one real one-host Slurm, and the real image."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # started by nohup or &: the programs under test would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

CODE = Path(__file__).resolve().parents[1]
DEV_CLUSTER = CODE / "slurm" / "dev_cluster" / "cluster.sh"


@pytest.fixture(scope="session")
def stub_python(tmp_path_factory):
    """An interpreter for jobs that only write what each task should write (tests/stub_work.py)."""
    path = tmp_path_factory.mktemp("stub") / "python"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {CODE / "tests" / "stub_work.py"} "$@"\n')
    path.chmod(0o755)
    return str(path)


def write_recipe(folder, name="exp", **changes):
    """A recipe of two seeds, two shards and two predictors; returns its path."""
    settings = {"training.num_steps": 5, "dataset.tokenizer": "CustomTokenizer"}
    predictors = (("text", "TextOCVP_CustomTF"), ("vanilla", "VanillaTransformer"))
    values = {
        "name": name,
        "data": {"dataset": "CATER_Hard", "num_train": 4, "num_valid": 1, "num_test": 1},
        "decomposition": {"model": "SAVi", "dataset": "CATER_Hard", "seeds": [3, 7], "set": settings},
        "slots": {"stride": 2, "shards": 2},
        "predictors": [{"name": name, "predictor": predictor} for name, predictor in predictors],
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return path


def write_site(folder, python, paths=(), **values):
    """The config of a site that is this machine; returns its path."""
    paths = {"experiments": str(folder / "experiments"), **dict(paths)}
    site = {"scheduler": "local", "parallel": 4, "python": python, "paths": paths, **values}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    return str(folder / "site.yaml")


@pytest.fixture
def small_recipe(tmp_path):
    """Writes a recipe of two seeds, two shards and two predictors; returns its path."""
    return functools.partial(write_recipe, tmp_path)


@pytest.fixture
def local_site(tmp_path, stub_python):
    """Writes a site's config for this machine; returns its path."""
    return functools.partial(write_site, tmp_path, python=stub_python)


@pytest.fixture(scope="session")
def finished_stub(tmp_path_factory, stub_python):
    """EXP of the small recipe, all its tasks done by the stand-in for the work; not to be changed."""
    from launch.cli import main

    folder = tmp_path_factory.mktemp("stub_experiment")
    options = ["--recipe", str(write_recipe(folder)), "--cluster", write_site(folder, stub_python)]
    assert main(["pipeline", *options]) == 0
    return folder / "experiments" / "exp"


def run_dev_cluster(action, environment):
    environment = {**os.environ, **environment}
    return subprocess.run([DEV_CLUSTER, action], env=environment, text=True, capture_output=True, timeout=180)


def free_ports(count=20):
    """The first of `count` ports in a row that nobody listens on."""
    for first in range(28000, 32000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")


@pytest.fixture(scope="session")
def dev_cluster():
    """Environment of a running dev cluster: SLURM_CONF, DEV_CLUSTER_DIR, DEV_CLUSTER_PORT."""
    # not below pytest's own folder: Unix sockets need a short path
    folder = Path("/tmp") / f"dev_cluster_{os.getpid()}"
    environment = {"DEV_CLUSTER_DIR": str(folder), "DEV_CLUSTER_PORT": str(free_ports())}
    started = run_dev_cluster("start", environment)
    if started.returncode != 0:
        shutil.rmtree(folder, ignore_errors=True)
        if "apt-get install" in started.stderr and not os.environ.get("CI"):
            pytest.skip(started.stderr.strip())
        pytest.fail(f"the dev cluster does not start:\n{started.stdout}{started.stderr}")
    environment["SLURM_CONF"] = str(folder / "etc" / "slurm.conf")
    yield environment
    run_dev_cluster("purge", environment)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def free_port_range():
    """Finds ports for one more dev cluster."""
    return free_ports


@pytest.fixture
def nobody():
    """An ordinary user: this one, or, for root, `nobody` (prefix of a command, user and group id)."""
    from types import SimpleNamespace

    if os.getuid() != 0:
        return SimpleNamespace(prefix=[], ids=(os.getuid(), os.getgid()))
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    return SimpleNamespace(prefix=prefix, ids=(65534, 65534))


@pytest.fixture(scope="session")
def runtime():
    """The path of apptainer or singularity."""
    path = shutil.which("apptainer") or shutil.which("singularity")
    if path is None:
        absent = "needs Apptainer (on Debian 12: .ci/install-apptainer)"
        pytest.fail(absent) if os.environ.get("CI") else pytest.skip(absent)
    return path


@pytest.fixture(scope="session")
def image(runtime):
    """The image of the cpu lock, in TEXTOCVP_TEST_IMAGES or .images; built where it is missing (minutes)."""
    images = Path(os.environ.get("TEXTOCVP_TEST_IMAGES") or CODE / ".images")
    build = [str(CODE / "containers" / "build.sh"), "--images", str(images)]

    def said(*more):
        return subprocess.run([*build, *more], capture_output=True, text=True)

    if not said("--dry").stdout.startswith("unchanged"):
        base = ("--base", "debootstrap") if shutil.which("debootstrap") else ()
        built = said(*base)
        assert built.returncode == 0, built.stderr
    return images / f"textocvp-cpu-{said('--key').stdout.strip()}.sif"


@pytest.fixture
def mount_small(tmp_path):
    """Mounts a file system of a size ("3m"), called again makes it larger; returns its folder."""
    folder, mounted = tmp_path / "small", []
    folder.mkdir()

    def mount(size):
        options = f"{'remount,' if mounted else ''}size={size}"
        command = ["mount", "-t", "tmpfs", "-o", options, "small", str(folder)]
        try:
            result = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            pytest.skip(f"nothing can be mounted here: {error}")
        if result.returncode:
            pytest.skip(f"nothing can be mounted here: {result.stderr.strip()}")
        mounted.append(size)
        return folder

    yield mount
    if mounted:
        subprocess.run(["umount", str(folder)], check=True)


def doctor_findings(text):
    """{name: [(level, text)]} of what `doctor --json` prints."""
    found = {}
    for entry in json.loads(text):
        found.setdefault(entry["name"], []).append((entry["level"], f"{entry['found']}; {entry['advice']}"))
    return found


@pytest.fixture
def doctor(capsys):
    """Runs `doctor`; returns the exit status and its findings."""
    from launch.cli import main

    def run(site, *options):
        capsys.readouterr()
        status = main(["doctor", "--cluster", site, "--json", *options])
        return status, doctor_findings(capsys.readouterr().out)

    run.findings = doctor_findings
    return run


@pytest.fixture
def slurm(dev_cluster):
    """Runs one of Slurm's programs on the dev cluster; cancels all jobs in the end."""

    def run(*command, check=True):
        result = subprocess.run(command, env={**os.environ, **dev_cluster}, capture_output=True, text=True)
        assert result.returncode == 0 or not check, result.stderr
        return result.stdout.strip()

    yield run
    subprocess.run(["scancel", "--user", str(os.getuid())], env={**os.environ, **dev_cluster}, check=False)


@pytest.fixture
def pid_of_rank():
    """Finds the process of one rank of a job on this machine, which is all of the dev cluster's nodes."""

    def find(job, rank):
        array, _, index = job.partition("_")
        wanted = {f"SLURM_PROCID={rank}"}
        element = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={index}"}
        wanted |= element if index else {f"SLURM_JOB_ID={job}"}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                variables = set((folder / "environ").read_bytes().decode(errors="replace").split("\0"))
                name = (folder / "comm").read_text()
            except OSError:
                continue
            if wanted <= variables and name.startswith("python"):
                return int(folder.name)
        raise AssertionError(f"no process of rank {rank} of job {job}")

    return find

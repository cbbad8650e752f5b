"""build.sh: keys and errors, without an image; with Apptainer, what goes wrong while building."""

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile

import pytest

from .conftest import key_of, run


def one_line(result):
    """The error of a failed build, which is one line."""
    assert result.returncode == 2, result.stdout + result.stderr
    [line] = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("lock", ["cpu", "cuda"])
def test_the_key_is_the_hash_of_lock_definition_and_selftest(containers, lock):
    keys = {containers.build("--key", "--lock", lock).stdout.strip()}
    assert keys == {key_of(containers.folder, lock)}
    for name in (f"requirements-{lock}.lock", "textocvp.def", "selftest.py"):
        with (containers.folder / name).open("a") as file:
            file.write("# changed\n")
        keys.add(containers.build("--key", "--lock", lock).stdout.strip())
    assert len(keys) == 4
    (containers.folder / "exec.sh").write_text("changed")
    assert containers.build("--key", "--lock", lock).stdout.strip() in keys


def test_dry_says_what_would_be_built_and_writes_nothing(containers):
    base = "docker://somewhere/python:3.11"
    result = containers.build("--dry", "--lock", "cuda", "--base", base)
    image = containers.images / f"textocvp-cuda-{key_of(containers.folder, 'cuda')}.sif"
    lines = [f"would build {image}", f"base {base}", f"scratch {containers.images}/scratch"]
    assert result.stdout.splitlines() == lines
    assert "base docker://python:3.11-slim\n" in containers.build("--dry").stdout
    assert not containers.images.exists()


def test_an_image_under_its_key_is_not_built_again(containers):
    image = containers.images / f"textocvp-cpu-{key_of(containers.folder, 'cpu')}.sif"
    containers.images.mkdir()
    image.write_bytes(b"four")
    sidecar = {"bytes": 4, "base": "docker://python:3.11-slim", "built": "2026-01-02T03:04:05Z"}
    image.with_name(image.name + ".json").write_text(json.dumps(sidecar, indent=2))
    unchanged = f"unchanged: {image} (base docker://python:3.11-slim, built 2026-01-02T03:04:05Z)\n"
    assert containers.build(APPTAINER="none").stdout == unchanged
    assert containers.build("--base", "docker://python:3.11-slim").stdout == unchanged
    assert "would build" in containers.build("--base", "debootstrap", "--dry", MIRROR="x").stdout
    image.write_bytes(b"fo")  # what a full disk or a killed copy leaves
    assert "would build" in containers.build("--dry").stdout


@pytest.mark.parametrize(
    ("arguments", "environment", "words"),
    [
        (("--lock", "gpu"), {}, "--lock gpu: expected cpu or cuda"),
        (("--lok", "cpu"), {}, "unknown option --lok"),
        (("--base",), {}, "--base needs a value"),
        (("--base", "nowhere.sif"), {}, "--base nowhere.sif: no such image"),
        ((), {"APPTAINER": "nothing-of-this-name"}, "nothing-of-this-name is not on PATH"),
    ],
)
def test_wrong_arguments_are_one_line(containers, arguments, environment, words):
    assert words in one_line(containers.build(*arguments, **environment))
    assert not containers.images.exists()


def test_a_missing_lock_is_one_line(containers):
    (containers.folder / "requirements-cuda.lock").unlink()
    line = one_line(containers.build("--lock", "cuda"))
    assert "requirements-cuda.lock does not exist; run make lock" in line


def small_lock(containers, requires):
    """A lock of torch alone, and the folder of a wheel that fits it; requires: what the wheel asks for."""
    (containers.folder / "requirements-cpu.lock").write_text("torch==0.0.1\n")
    wheels = containers.folder.parent / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "torch-0.0.1-py3-none-any.whl", "w") as wheel:
        info = "torch-0.0.1.dist-info"
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n{requires}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}


@pytest.mark.container
class TestWithApptainer:
    pytestmark = pytest.mark.usefixtures("runtime")

    def test_packages_that_pip_cannot_find_are_one_line(self, containers):
        nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
        line = one_line(containers.build("--base", "/", **nowhere))
        assert "the wheels of requirements-cpu.lock could not be fetched: " in line
        assert "No matching distribution found for " in line
        assert not list(containers.images.glob("**/*.partial"))

    def test_the_cuda_build_of_torch_is_no_cpu_image(self, containers):
        offline = small_lock(containers, "Requires-Dist: nvidia-cublas\n")
        line = one_line(containers.build("--base", "/", **offline))
        assert "pip found torch's cuda build for the cpu lock: name an index" in line

    def test_a_base_without_python_is_one_line(self, containers, tmp_path):
        base = tmp_path / "base"
        shell = run("ldd", "/bin/sh").stdout.split()
        for path in ["/bin/sh", *(word for word in shell if word.startswith("/"))]:
            (base / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, base / path[1:])
        for name in ("proc", "sys", "dev", "tmp", "etc", "root", "var/tmp", "mnt", "opt"):
            (base / name).mkdir(parents=True)
        result = containers.build("--base", base, **small_lock(containers, ""))
        assert f"--base {base}: the base has no Python 3.11" in one_line(result)
        assert not list(containers.images.glob("*.sif*"))

    def test_a_base_that_cannot_be_reached_is_one_line(self, containers):
        base = "docker://127.0.0.1:9/python:3.11-slim"  # the port of no registry
        line = one_line(containers.build("--base", base, **small_lock(containers, "")))
        assert f"the base {base} cannot be reached: " in line
        assert "connection refused" in line
        assert all(part in line for part in ("--base IMAGE", "--base debootstrap"))

    def test_too_small_a_disk_is_one_line(self, containers, tmp_path):
        small = tmp_path / "small"
        small.mkdir()
        build = f"{containers.folder}/build.sh --base / --images {small}"
        result = run("unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=9m none {small} && {build}")
        if "unshare" in result.stderr or "mount:" in result.stderr:
            pytest.skip(f"no small disk can be mounted here: {result.stderr}")
        assert one_line(result).startswith(f"error: 9 MB free in {small}/scratch, but a build needs about ")

    @pytest.mark.slow
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_a_killed_build_leaves_nothing_that_looks_like_an_image(self, containers, image, number):
        environment = {**os.environ, **small_lock(containers, "")}
        command = [containers.folder / "build.sh", "--images", containers.images, "--base", image]
        building = subprocess.Popen(command, env=environment, start_new_session=True)
        log = containers.images / "scratch" / f"build-cpu-{key_of(containers.folder, 'cpu')}.log"
        wait_for(lambda: log.exists() and "Extracting local image" in log.read_text())
        os.killpg(building.pid, number)
        building.wait(timeout=120)
        assert not list(containers.images.glob("*.sif*"))
        if number == signal.SIGKILL:  # nothing could be tidied up: the next build does
            (containers.folder / "requirements-cpu.lock").write_text("torch==0.0.2\n")
            one_line(containers.build("--base", "/", **environment))
        assert not [*containers.images.glob(".*.partial*"), *containers.images.glob("scratch/*.partial")]


def wait_for(condition):
    for _ in range(1200):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("waited two minutes")

"""The image: what is in it, that it works, that it is built once, that it unpacks."""

import hashlib
import json
import time

import pytest

from .conftest import CONTAINERS, run

UNPACK = CONTAINERS / "unpack.sh"
pytestmark = [pytest.mark.container, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(image):
    """The image, unpacked beside its file."""
    result = run(UNPACK, image)
    assert result.returncode == 0, result.stderr
    return image.with_suffix("")


def test_the_sidecar_tells_what_the_image_is(image):
    sidecar = json.loads(image.with_name(image.name + ".json").read_text())
    with image.open("rb") as file:
        assert sidecar["digest"] == hashlib.file_digest(file, "sha256").hexdigest()
    assert sidecar["bytes"] == image.stat().st_size
    assert (sidecar["lock"], sidecar["key"]) == tuple(image.stem.split("-")[1:])
    assert sidecar.keys() == {"digest", "bytes", "lock", "key", "base", "built", "apptainer"}


def test_unchanged_it_is_not_built_again(image):
    started = time.monotonic()
    result = run(CONTAINERS / "build.sh", "--images", image.parent)
    assert result.stdout.startswith(f"unchanged: {image} (base ")
    assert len(result.stdout.splitlines()) == 1
    assert time.monotonic() - started < 2


PARTS = {"packages": "packages as locked", "training": "DeepSpeed ZeRO-2 step on 2 ranks"}
PARTS["compiler"] = "torch.compile builds kernels"


@pytest.mark.parametrize(("part", "words"), PARTS.items())
def test_it_works_as_a_job_starts_it(in_image, part, words):
    result = in_image("python3", "/opt/textocvp/selftest.py", part)
    assert result.returncode == 0, result.stderr
    assert words in result.stdout


def test_its_own_test_can_fail(in_image, tmp_path):
    """A lock that asks for another version: selftest.py notices."""
    for name in ("selftest.py", "requirements-cpu.lock"):
        (tmp_path / name.replace("-cpu", "")).write_text((CONTAINERS / name).read_text())
    with (tmp_path / "requirements.lock").open("a") as lock:
        lock.write("tqdm==0.1\n")
    result = in_image("python3", "selftest.py", "packages", cwd=tmp_path)
    assert result.returncode == 1
    assert "AssertionError: tqdm: " in result.stderr


def test_it_unpacks_once_and_works_unpacked(image, folder, in_image):
    again = run(UNPACK, image)
    assert again.stdout == f"unchanged: {folder}\n"
    sidecar = image.with_name(image.name + ".json").read_text()
    assert (folder / ".textocvp-image.json").read_text() == sidecar
    assert not list(image.parent.glob(".*.partial"))
    result = in_image("python3", "/opt/textocvp/selftest.py", "training", image=folder)
    assert "DeepSpeed ZeRO-2 step on 2 ranks" in result.stdout, result.stderr


def test_unpacking_refuses_in_one_line(image, tmp_path):
    stray = tmp_path / "stray.sif"
    stray.write_bytes(b"no image")
    (tmp_path / "mine").mkdir()
    commands = [
        ((tmp_path / "none.sif",), "none.sif does not exist; build it with make image"),
        ((stray,), "stray.sif.json is missing"),
        ((image, tmp_path / "mine"), "mine exists and is not an unpacked image"),
        ((stray,), "stray.sif could not be unpacked: "),
    ]
    for number, (arguments, words) in enumerate(commands):
        if number == 3:
            (tmp_path / "stray.sif.json").write_text("{}")
        result = run(UNPACK, *arguments)
        assert result.returncode == 2
        [line] = result.stderr.splitlines()
        assert words in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "stray.sif", "stray.sif.json"]

import subprocess
from pathlib import Path

import pytest

from slurm.container import bind_specs, find_image, image_digest, image_key, interpreter, python_words
from textocvp.files import UserError

CODE = Path(__file__).parents[2]


def test_an_interpreter_that_is_not_there(site):
    with pytest.raises(UserError, match="none/bin/python does not exist; `make setup`"):
        interpreter(site(python="none/bin/python"))
    assert interpreter(site(python="python3")) == "python3"


@pytest.fixture
def image(site, tmp_path):
    """An empty file under the name of the image that `make image` would build."""
    key = image_key(site(container={"runtime": "apptainer"}))
    path = tmp_path / f"textocvp-cpu-{key}.sif"
    path.touch()
    path.with_name(f"{path.name}.json").write_text('{"digest": "abc"}')
    return path


@pytest.fixture
def contained(site, tmp_path):
    """A site whose jobs run in that image."""

    def make(**container):
        container = {"runtime": "apptainer", **container}
        return site(container=container, paths={"image_cache": str(tmp_path)}, environment={"MINE": "1"})

    return make


def test_the_image_is_the_one_that_make_image_builds(image, site, contained):
    words = ["bash", CODE / "containers" / "build.sh", "--key"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.stdout.strip() == image_key(site(container={"runtime": "apptainer"}))
    assert find_image(contained()) == image and image_digest(contained()) == "abc"
    folder = image.with_suffix("")
    folder.mkdir()
    (folder / ".textocvp-image.json").write_text('{"digest": "abc"}')
    assert find_image(contained()) == folder, "an unpacked image is faster"
    assert image_digest(contained()) == "abc"
    with pytest.raises(UserError, match=r"site: image .*textocvp-cuda-.*`make image CLUSTER=site` builds"):
        find_image(contained(lock="cuda"))
    with pytest.raises(UserError, match=r"image .*/none.sif does not exist; see container.image"):
        find_image(contained(image="none.sif"))


def test_a_job_in_an_image_starts_with_the_wrapper(image, contained, tmp_path, monkeypatch):
    (tmp_path / "exp").mkdir()
    cluster = contained(binds=["/data:/mnt:ro"], env=["WANDB_*"], options=["--userns"])
    words = python_words(cluster, tmp_path / "code", tmp_path / "exp", gpus=True)
    rest = (
        f"--bind /data:/mnt:ro --env MINE --env WANDB_* --option --userns apptainer {image} python3".split()
    )
    wrapper = ["bash", f"{tmp_path}/code/containers/exec.sh", "--nv"]
    assert words == [*wrapper, "--bind", f"{tmp_path}/code", "--bind", f"{tmp_path}/exp", *rest]
    monkeypatch.chdir(tmp_path)  # which the wrapper binds itself
    assert python_words(cluster, tmp_path / "code", tmp_path / "exp", gpus=True) == [*wrapper, *rest]


def test_a_linked_folder_is_bound_under_both_names(image, tmp_path):
    link, real = tmp_path / "link", tmp_path / "real"
    real.mkdir()
    link.symlink_to(real)
    assert bind_specs([link, real / "below"]) == [str(link), str(real)]
    with pytest.raises(UserError, match="a,b: .*cannot be bound"):
        bind_specs([tmp_path / "a,b"])

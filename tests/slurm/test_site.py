from __future__ import annotations

import subprocess

import pytest

from slurm.container import bind_specs
from slurm.site import CODE, CONFIGS, Resources, load_cluster, parse_cluster
from textocvp.config.errors import ConfigError, UserError

STAGES = {"make_data": False, "train_decomp": True}


def parse(**values):
    return parse_cluster({"scheduler": "slurm", **values}, "site.yaml", "site", STAGES)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path):
    from launch.stages import DISTRIBUTED

    cluster = load_cluster(path.stem, DISTRIBUTED)
    assert cluster.name == path.stem
    for stage in DISTRIBUTED:
        assert cluster.stage_resources(stage).minutes > 0


def test_a_stage_has_its_own_values_on_top_of_the_default():
    cluster = parse(resources={"default": {"mem_gb": 4, "time": "1-02:00:30"}, "train_decomp": {"nodes": 2}})
    assert cluster.stage_resources("train_decomp") == Resources(nodes=2, mem_gb=4, time="1-02:00:30")
    assert cluster.stage_resources("train_decomp").minutes == 26 * 60 + 1
    assert cluster.stage_resources("make_data").nodes == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"partion": "main"}, "partion: unknown key, did you mean 'partition'?"),
        ({"scheduler": "slurmm"}, "scheduler: 'slurmm' is not allowed, did you mean 'slurm'?"),
        (
            {"partition": "main\n#SBATCH --wrap=x"},
            "partition: 'main\\n#SBATCH --wrap=x'",
        ),
        ({"setup": ["module load x", "a\nb"]}, "setup[1]: 'a\\nb'"),
        ({"extra_sbatch": {"mail-user\nx": "a"}}, "control character"),
        ({"extra_sbatch": {"--exclusive": True}}, "extra_sbatch.--exclusive: no option of sbatch"),
        ({"extra_sbatch": {"licenses": ["a"]}}, "extra_sbatch.licenses: ['a'] is not allowed"),
        ({"extra_sbatch": {"wrap": "x"}}, "extra_sbatch.wrap: the suite sets this option itself"),
        ({"container": {"runtime": "docker"}}, "container.runtime: 'docker' is not allowed"),
        ({"container": {"image": "a\nb"}}, "container.image: 'a\\nb'"),
        ({"container": {"bind": []}}, "container.bind: unknown key, did you mean 'binds'?"),
        ({"environment": {"A-B": 1}}, "environment.A-B: no variable's name"),
        ({"resources": {"train-decomp": {}}}, "train-decomp: unknown stage, did you mean 'train_decomp'?"),
        (
            {"resources": {"default": {"mem": 4}}},
            "resources.default.mem: unknown key, did you mean 'mem_gb'?",
        ),
        ({"resources": {"default": {"time": "soon"}}}, "time: 'soon' is no [days-]hours:minutes:seconds"),
        ({"resources": {"default": None}}, "resources.default: None is no section"),
        ({"resources": {"make_data": {"tasks_per_node": 2}}}, "resources.make_data: more than one process"),
        ({"array_parallelism": 0}, "array_parallelism: 0 is not allowed, at least 1"),
    ],
)
def test_a_wrong_config_is_one_line(values, message):
    with pytest.raises(ConfigError) as error:
        parse(**values)
    assert message in str(error.value)
    assert str(error.value).startswith("site.yaml: ")
    assert "\n" not in str(error.value)


def test_an_unknown_cluster_names_the_nearest():
    with pytest.raises(UserError, match=r"no cluster 'dev_clustre' .*did you mean 'dev_cluster'\?"):
        load_cluster("dev_clustre", STAGES)


def test_without_a_name_a_machine_with_sbatch_refuses_to_run_stages_itself(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert load_cluster(None, _all_stages()).scheduler == "local"
    program = tmp_path / "sbatch"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    with pytest.raises(UserError, match=r"CLUSTER=local for this machine, or one of dev_cluster, .*local"):
        load_cluster("", _all_stages())


def _all_stages():
    from launch.stages import DISTRIBUTED

    return DISTRIBUTED


def test_an_interpreter_that_is_not_there():
    with pytest.raises(UserError, match="none/bin/python does not exist; `make setup`"):
        parse(python="none/bin/python").interpreter()
    assert parse(python="python3").interpreter() == "python3"


@pytest.fixture
def image(tmp_path, monkeypatch):
    """An empty file under the name of the image that `make image` would build."""
    key = parse(container={"runtime": "apptainer"}).image_key()
    path = tmp_path / f"textocvp-cpu-{key}.sif"
    path.touch()
    path.with_name(f"{path.name}.json").write_text('{"digest": "abc"}')
    return path


def contained(built, **container):
    return parse(
        container={"runtime": "apptainer", **container},
        paths={"image_cache": str(built.parent)},
        environment={"MINE": "1"},
    )


def test_the_image_is_the_one_that_make_image_builds(image):
    words = ["bash", CODE / "containers" / "build.sh", "--key"]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.stdout.strip() == parse(container={"runtime": "apptainer"}).image_key()
    assert contained(image).image() == image and contained(image).image_digest() == "abc"
    folder = image.with_suffix("")
    folder.mkdir()
    (folder / ".textocvp-image.json").write_text('{"digest": "abc"}')
    assert contained(image).image() == folder, "an unpacked image is faster"
    assert contained(image).image_digest() == "abc"
    with pytest.raises(UserError, match=r"site: no image .*textocvp-cuda-.*`make image CLUSTER=site` builds"):
        contained(image, lock="cuda").image()
    with pytest.raises(UserError, match=r"no image .*/none.sif; see container.image"):
        contained(image, image="none.sif").image()


def test_a_job_in_an_image_starts_with_the_wrapper(image, tmp_path, monkeypatch):
    (tmp_path / "exp").mkdir()
    cluster = contained(image, binds=["/data:/mnt:ro"], env=["WANDB_*"], options=["--userns"])
    words = cluster.python_command(tmp_path / "code", tmp_path / "exp", gpus=True)
    rest = [
        "--bind",
        "/data:/mnt:ro",
        "--env",
        "MINE",
        "--env",
        "WANDB_*",
        "--option",
        "--userns",
        "apptainer",
        str(image),
        "python3",
    ]
    wrapper = ["bash", f"{tmp_path}/code/containers/exec.sh", "--nv"]
    assert words == [*wrapper, "--bind", f"{tmp_path}/code", "--bind", f"{tmp_path}/exp", *rest]
    monkeypatch.chdir(tmp_path)  # which the wrapper binds itself
    assert cluster.python_command(tmp_path / "code", tmp_path / "exp", gpus=True) == [*wrapper, *rest]


def test_a_linked_folder_is_bound_under_both_names(image, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert bind_specs([tmp_path / "link", tmp_path / "real" / "below"]) == [
        str(tmp_path / "link"),
        str(tmp_path / "real"),
    ]


def test_a_name_that_no_image_can_have_bound_is_one_line(tmp_path):
    with pytest.raises(UserError, match="a,b: no image can have a folder bound"):
        bind_specs([tmp_path / "a,b"])

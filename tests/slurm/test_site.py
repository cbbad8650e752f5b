from pathlib import Path

import pytest
import yaml

from slurm.options import Resources
from slurm.site import load_cluster
from textocvp.files import ConfigError, UserError

CODE = Path(__file__).parents[2]
KINDS = {"make_data": False, "train_decomp": True}


def test_a_kind_of_job_has_its_own_values_on_top_of_the_default(site):
    default = {"mem_gb": 4, "time": "1-02:00:30"}
    cluster = site(resources={"default": default, "train-decomp": {"nodes": 2}})
    assert cluster.job_resources("train_decomp") == Resources(nodes=2, mem_gb=4, time="1-02:00:30")
    assert cluster.job_resources("make_data").nodes == 1
    with_underscore = site(resources={"default": default, "train_decomp": {"nodes": 2}})
    assert with_underscore.kinds == cluster.kinds
    changed = cluster.with_resources({"nodes": 3}, {"train_decomp": True})
    assert changed.job_resources("train_decomp") == Resources(nodes=3, mem_gb=4, time="1-02:00:30")
    assert cluster.job_resources("train_decomp").nodes == 2
    with pytest.raises(ConfigError, match="resources.make-data: 2 processes"):
        cluster.with_resources({"nodes": 2}, {"make_data": False})


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"partion": "main"}, ["partion: unknown key", "'partition'"]),
        *(
            (
                {own: {}},
                [f"{own}: unknown key; known: ", "ism, constraint", "hang_minutes, mail_t", "user, para"],
            )
            for own in ("kinds", "code", "name")  # of the loader
        ),
        ({"scheduler": "slurmm"}, ["scheduler: ", "'slurm'", "slurmm"]),
        ({"partition": "main\n#SBATCH --wrap=x"}, ["partition: ", "'main\\n#SBATCH --wrap=x'"]),
        ({"setup": ["module load x", "a\nb"]}, ["setup[1]: ", "'a\\nb'"]),
        ({"extra_sbatch": {"mail-user\nx": "a"}}, ["extra_sbatch.", "control character"]),
        ({"extra_sbatch": {"--exclusive": True}}, ["extra_sbatch.--exclusive: "]),
        ({"extra_sbatch": {"licenses": ["a"]}}, ["extra_sbatch.licenses: ", '["a"]']),
        ({"extra_sbatch": {"wrap": "x"}}, ["extra_sbatch.wrap: "]),
        ({"container": {"runtime": "docker"}}, ["container.runtime: ", "docker"]),
        ({"container": {"image": "a\nb"}}, ["container.image: ", "'a\\nb'"]),
        ({"container": {"bind": []}}, ["container.bind: unknown key", "'binds'"]),
        ({"environment": {"A-B": 1}}, ["environment.A-B: "]),
        ({"resources": {"train": {}}}, ["resources.train: "]),
        ({"resources": {"train-decom": {}}}, ["resources.train-decom: ", "'train-decomp'"]),
        ({"resources": {"default": {"mem": 4}}}, ["resources.default.mem: unknown key", "'mem_gb'"]),
        ({"resources": {"default": {"time": "soon"}}}, ["resources.default.time: ", "'soon'"]),
        (
            {"resources": {"default": {"time": 86400}}},
            ["resources.default.time: ", '"24:00:00"', "got 86400"],
        ),
        ({"stop_seconds": 3600}, ["resources.default.time: ", "stop_seconds", "3600 s", "got 01:00:00"]),
        ({"resources": {"train_decomp": {}, "train-decomp": {}}}, ["resources.train-decomp: ", "twice"]),
        ({"resources": {"default": None}}, ["resources.default: ", "null"]),
        ({"resources": {"make_data": {"tasks_per_node": 2}}}, ["resources.make-data: ", "2 processes"]),
        ({"array_parallelism": 0}, ["array_parallelism: ", ">= 1", "got 0"]),
    ],
)
def test_a_wrong_config_is_one_line(site, values, parts):
    with pytest.raises(ConfigError) as error:
        site(**values)
    assert all(part in str(error.value) for part in ["site.yaml: ", *parts])
    assert "\n" not in str(error.value)


def test_an_unknown_cluster_names_the_nearest():
    with pytest.raises(UserError, match=r"no cluster 'dev_clustre' .*did you mean 'dev_cluster'\?"):
        load_cluster("dev_clustre", CODE, KINDS)


def test_a_file_is_found_by_its_path(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"scheduler": "slurm", "slurm_conf": "etc/slurm.conf"}))
    cluster = load_cluster(str(path), tmp_path, KINDS)
    assert cluster.name == str(path)
    assert cluster.slurm_environment() == {"SLURM_CONF": f"{tmp_path}/etc/slurm.conf"}


def test_a_time_without_quotes_is_refused_with_a_hint(tmp_path):
    (tmp_path / "mine.yaml").write_text("scheduler: slurm\nresources: {default: {time: 24:00:00}}\n")
    with pytest.raises(ConfigError) as error:
        load_cluster(str(tmp_path / "mine.yaml"), tmp_path, KINDS)
    assert all(part in str(error.value) for part in ("resources.default.time", '"24:00:00"'))


def test_every_shipped_config_is_valid_whatever_the_kinds_of_jobs():
    from launch.stages import DISTRIBUTED

    for path in (CODE / "cluster_configs").glob("*.yaml"):
        cluster = load_cluster(path.stem, CODE, DISTRIBUTED)
        assert cluster.name == path.stem
        assert all(cluster.job_resources(kind).minutes > 0 for kind in DISTRIBUTED)

from __future__ import annotations

import pytest

from slurm.cluster import CONFIGS, load_cluster, parse_cluster
from slurm.task import Resources
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
            "partition: 'main\\n#SBATCH --wrap=x' holds a control character",
        ),
        ({"setup": ["module load x", "a\nb"]}, "setup[1]: 'a\\nb' holds a control character"),
        ({"extra_sbatch": {"mail-user\nx": "a"}}, "holds a control character"),
        ({"extra_sbatch": {"--exclusive": True}}, "extra_sbatch.--exclusive: no option of sbatch"),
        ({"extra_sbatch": {"licenses": ["a"]}}, "extra_sbatch.licenses: ['a'] is not allowed"),
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
    with pytest.raises(UserError, match=r"CLUSTER=local for this machine, or one of dev_cluster, local"):
        load_cluster("", _all_stages())


def _all_stages():
    from launch.stages import DISTRIBUTED

    return DISTRIBUTED


def test_an_interpreter_that_is_not_there():
    with pytest.raises(UserError, match="none/bin/python does not exist; `make setup`"):
        parse(python="none/bin/python").interpreter()
    assert parse(python="python3").interpreter() == "python3"

from dataclasses import replace
from pathlib import Path

import pytest

from launch.pipeline import from_recipe, with_decomposition_seeds, with_predictors
from launch.recipe import load_recipe
from launch.stages import DISTRIBUTED, STAGES, all_tasks
from launch.state.task import Edge
from textocvp.cli import build_parser
from textocvp.files import write_json

RECIPES = sorted((Path(__file__).parents[2] / "experiments" / "recipes").glob("*.yaml"))


@pytest.fixture
def pipeline(small_recipe, tmp_path):
    def make(**changes):
        return from_recipe(load_recipe(small_recipe(**changes)), tmp_path, None)

    return make


def by_stage(tasks, stage):
    return [task for task in tasks if task.stage == stage]


def edges(task):
    return {(edge.stage, edge.index, edge.mode) for edge in task.after}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_task_of_every_recipe_is_a_line_that_the_command_line_understands(path, tmp_path):
    recipe = load_recipe(path)
    tasks = all_tasks(from_recipe(recipe, tmp_path, None))
    unused = set() if recipe.decomposition.seeds else {"select_decomp"}
    stages = {stage.name for stage in STAGES} - unused
    assert {task.stage for task in tasks} == stages
    for task in tasks:
        options = build_parser().parse_args(task.argv)
        weights = task.label.startswith("weights ")
        assert options.command.replace("-", "_") == ("make_weights" if weights else task.stage)
        assert task.command.startswith(f"python -m textocvp {options.command} ")


def test_the_pipeline_and_its_edges(pipeline):
    tasks = all_tasks(pipeline())
    counts = [1, 1, 2, 1, 2, 2, 1, 2, 1, 1]
    assert [len(by_stage(tasks, stage.name)) for stage in STAGES] == counts
    for stage, number in zip(DISTRIBUTED, counts):
        assert [task.index for task in by_stage(tasks, stage)] == list(range(number))
    seen = set()
    for task in tasks:
        assert {edge.id for edge in task.after} <= seen
        seen.add(task.id)
    assert edges(by_stage(tasks, "train_decomp")[1]) == {("prepare_data", 0, "ok")}
    ends = {("train_decomp", 0, "any"), ("train_decomp", 1, "any")}
    assert edges(by_stage(tasks, "select_decomp")[0]) == ends
    assert edges(by_stage(tasks, "precompute_slots")[1]) == {("select_decomp", 0, "ok")}
    shards = {("precompute_slots", 0, "ok"), ("precompute_slots", 1, "ok")}
    assert all(edges(task) == shards for task in by_stage(tasks, "train_predictor"))
    assert ("train_predictor", 1, "ok") in edges(by_stage(tasks, "evaluate_predictor")[1])
    assert ("train_predictor", 0, "ok") not in edges(by_stage(tasks, "evaluate_predictor")[1])
    assert {mode for _, _, mode in edges(by_stage(tasks, "report")[0])} == {"any"}


def test_stages_that_a_recipe_does_not_need_are_left_out(pipeline, tmp_path):
    tasks = all_tasks(pipeline(decomposition={"model": "SAVi", "dataset": "CATER_Hard"}))
    assert by_stage(tasks, "train_decomp")[0].argv == ("train-decomp", "-d", str(tmp_path / "exp"))
    assert by_stage(tasks, "train_decomp")[0].outputs == ("models/checkpoint_epoch_final.pth",)
    assert not by_stage(tasks, "select_decomp")
    assert edges(by_stage(tasks, "precompute_slots")[0]) == {("train_decomp", 0, "ok")}

    tasks = all_tasks(pipeline(slots={"mode": "online"}))
    assert not by_stage(tasks, "precompute_slots")
    assert edges(by_stage(tasks, "train_predictor")[0]) == {("select_decomp", 0, "ok")}


def test_a_predictor_with_seeds_is_judged_once_when_all_have_ended(pipeline):
    predictor = {"name": "text", "predictor": "TextOCVP_CustomTF", "seeds": [1, 2]}
    tasks = all_tasks(pipeline(predictors=[predictor]))
    assert [task.argv[-1] for task in by_stage(tasks, "train_predictor")] == ["text/seeds/1", "text/seeds/2"]
    (evaluation,) = by_stage(tasks, "evaluate_predictor")
    assert {Edge("train_predictor", 0, "any"), Edge("train_predictor", 1, "any")} < set(evaluation.after)


def test_no_path_and_nothing_that_only_shows_enters_the_config(pipeline, small_recipe, tmp_path):
    values = {"model": "SAVi", "dataset": "CATER_Hard"}
    quiet = {**values, "set": {"training.log_frequency": 7, "training.num_workers": 0}}
    first = all_tasks(pipeline(decomposition=values))
    second = all_tasks(from_recipe(load_recipe(small_recipe(decomposition=quiet)), tmp_path / "else", None))
    assert [task.config for task in first] == [task.config for task in second]
    assert str(tmp_path) not in str([task.config for task in first])


def test_the_users_checkpoint_needs_no_training_and_the_clusters_cores_are_workers(pipeline):
    tasks = all_tasks(replace(pipeline(), decomp_ckpt="mine.pth"))
    (shard, _) = by_stage(tasks, "precompute_slots")
    assert edges(shard) == {("prepare_data", 0, "ok")}
    assert "models/mine.pth" in shard.inputs
    assert "--decomp_ckpt" in shard.argv

    tasks = all_tasks(replace(pipeline(), workers={"make_data": 3}))
    assert tasks[0].argv[-2:] == ("--workers", "3")
    assert "--workers" not in tasks[1].argv


def test_more_seeds_and_predictors_keep_the_indices_of_those_before(pipeline, tmp_path):
    first = pipeline()
    write_json(first.root / "jobs" / "indices.json", first.indices)
    more = with_predictors(with_decomposition_seeds(first, (1, 3)), "text", (5,))
    assert more.indices["train_decomp"] == {"seeds/3": 0, "seeds/7": 1, "seeds/1": 2}
    assert more.indices["train_predictor"] == {"text": 0, "vanilla": 1, "text/seeds/5": 2}
    assert [task.index for task in by_stage(all_tasks(more), "train_decomp")] == [2, 0]
    assert [task.index for task in by_stage(all_tasks(more), "train_predictor")] == [2, 1]

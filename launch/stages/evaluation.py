"""Stages that judge, draw and report. All are cheap: their outputs are replaced where something changed."""

from __future__ import annotations

from typing import List

from launch.pipeline import CHECKPOINT, Pipeline, Planned, edges_to, option
from launch.stages.data import CAPTIONS
from launch.state.task import ANY, OK, Task
from textocvp.config.experiment import FINAL
from textocvp.config.schema import given


def evaluate_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Judge the selected checkpoint and every seed on the test clips."""
    batch_size = option("batch_size", given(pipeline.evaluation).get("batch_size"))
    argv = ("evaluate-decomp", "-d", pipeline.folder(""), *pipeline.checkpoint_option, *batch_size)
    config, label = pipeline.sections("", "model", training=False), "all seeds" if pipeline.seeds else ""
    inputs = (pipeline.checkpoint_input, f"seeds/*/{CHECKPOINT}", CAPTIONS)
    outputs = ("results/decomposition.json",)
    others = planned["train_decomp"] if planned["select_decomp"] else []
    after = pipeline.decomposition_ready(planned) + edges_to(others, ANY)
    return [Task("evaluate_decomp", 0, label, argv, config, inputs, outputs, after=after, replaceable=True)]


def evaluate_predictor(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Judge each predictor, its seeds together, on the test clips."""
    said = given(pipeline.evaluation)
    options = {name: said.get(name) for name in ("batch_size", "num_seed", "num_preds")}
    arguments = [word for name, value in options.items() for word in option(name, value)]
    ready, tasks = pipeline.decomposition_ready(planned), []
    trainings = dict(zip(pipeline.predictors, planned["train_predictor"]))
    for name in pipeline.predictor_names:
        own = [task for training, task in trainings.items() if training.split("/")[0] == name]
        folder, index = f"predictors/{name}", pipeline.indices["evaluate_predictor"][name]
        words = ("evaluate-predictor", "-d", pipeline.folder(""), "--name_pred_exp", name)
        argv = (*words, *pipeline.checkpoint_option, *arguments)
        config = {**pipeline.sections(folder, "predictor", "prediction_params"), **options}
        inputs = (f"{folder}/*{FINAL}", pipeline.checkpoint_input, CAPTIONS)
        outputs = (f"{folder}/results/prediction.json",)
        after = edges_to(own, OK if len(own) == 1 else ANY) + ready
        task = Task(
            "evaluate_predictor", index, name, argv, config, inputs, outputs, after=after, replaceable=True
        )
        tasks.append(task)
    return tasks


def figures(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Draw decompositions and what each predictor that is there makes of a first frame."""
    number = given(pipeline.evaluation).get("num_seqs")
    argv = ("figures", "-d", pipeline.folder(""), *option("num_seqs", number))
    inputs = (pipeline.checkpoint_input, f"predictors/*{FINAL}")
    outputs = ("plots/*", "predictors/*/plots/*")
    after = pipeline.decomposition_ready(planned) + edges_to(planned["train_predictor"], ANY)
    config = {"num_seqs": number}
    return [Task("figures", 0, "", argv, config, inputs, outputs, after=after, replaceable=True)]


def report(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Gather what exists and name what is missing: it waits for everything to end, not to succeed."""
    stages = ("evaluate_decomp", "evaluate_predictor", "figures", "select_decomp")
    after = edges_to([task for stage in stages for task in planned[stage]], ANY)
    argv, outputs = ("report", "-d", pipeline.folder("")), ("summary.json", "summary.txt")
    inputs = ("results/*", "predictors/*/results/*", "selected.*")
    return [Task("report", 0, "", argv, {}, inputs, outputs, after=after, replaceable=True)]

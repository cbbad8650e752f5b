"""Stages that judge, draw and report."""

from __future__ import annotations

from typing import List

from launch.pipeline import CHECKPOINT, Pipeline, Planned, edges_to, option
from launch.stages.data import CAPTIONS
from launch.state.task import ANY, OK, Task
from textocvp.config.experiment import FINAL
from textocvp.config.schema import given


def evaluate_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Judge the selected checkpoint and every seed on the test clips."""
    others = planned["train_decomp"] if planned["select_decomp"] else []
    return [
        Task(
            stage="evaluate_decomp",
            index=0,
            label="all seeds" if pipeline.seeds else "",
            argv=("evaluate-decomp", "-d", pipeline.folder(""))
            + pipeline.checkpoint_option
            + option("batch_size", given(pipeline.evaluation).get("batch_size")),
            config=pipeline.sections("", "model", training=False),
            inputs=(pipeline.checkpoint_input, f"seeds/*/{CHECKPOINT}", CAPTIONS),
            outputs=("results/decomposition.json",),
            after=pipeline.decomposition_ready(planned) + edges_to(others, ANY),
            replaceable=True,
        )
    ]


def evaluate_predictor(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Judge each predictor, its seeds together, on the test clips."""
    said = given(pipeline.evaluation)
    options = {name: said.get(name) for name in ("batch_size", "num_seed", "num_preds")}
    arguments = tuple(word for name, value in options.items() for word in option(name, value))
    ready, tasks = pipeline.decomposition_ready(planned), []
    trainings = dict(zip(pipeline.predictors, planned["train_predictor"]))
    for name in pipeline.predictor_names:
        own = [task for training, task in trainings.items() if training.split("/")[0] == name]
        config = pipeline.sections(f"predictors/{name}", "predictor", "prediction_params")
        tasks.append(
            Task(
                stage="evaluate_predictor",
                index=pipeline.indices["evaluate_predictor"][name],
                label=name,
                argv=("evaluate-predictor", "-d", pipeline.folder(""), "--name_pred_exp", name)
                + pipeline.checkpoint_option
                + arguments,
                config={**config, **options},
                inputs=(f"predictors/{name}/*{FINAL}", pipeline.checkpoint_input, CAPTIONS),
                outputs=(f"predictors/{name}/results/prediction.json",),
                after=edges_to(own, OK if len(own) == 1 else ANY) + ready,
                replaceable=True,
            )
        )
    return tasks


def figures(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Draw decompositions and what each predictor that is there makes of a first frame."""
    number = given(pipeline.evaluation).get("num_seqs")
    return [
        Task(
            stage="figures",
            index=0,
            label="",
            argv=("figures", "-d", pipeline.folder("")) + option("num_seqs", number),
            config={"num_seqs": number},
            inputs=(pipeline.checkpoint_input, f"predictors/*{FINAL}"),
            outputs=("plots/*", "predictors/*/plots/*"),
            after=pipeline.decomposition_ready(planned) + edges_to(planned["train_predictor"], ANY),
            replaceable=True,
        )
    ]


def report(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Gather what exists and name what is missing: it waits for everything to end, not to succeed."""
    stages = ("evaluate_decomp", "evaluate_predictor", "figures", "select_decomp")
    return [
        Task(
            stage="report",
            index=0,
            label="",
            argv=("report", "-d", pipeline.folder("")),
            inputs=("results/*", "predictors/*/results/*", "selected.*"),
            outputs=("summary.json",),
            after=edges_to([task for stage in stages for task in planned[stage]], ANY),
            replaceable=True,
        )
    ]

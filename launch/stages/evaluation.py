"""Stages that judge, draw and report."""

from __future__ import annotations

from typing import List

from launch.pipeline import Pipeline
from launch.stages.common import (
    CAPTIONS,
    CHECKPOINT,
    Planned,
    after,
    checkpoint_input,
    decomp_ckpt,
    decomposition_ready,
    option,
    sections,
)
from launch.state.task import ANY, OK, Task
from textocvp.config.experiment import FINAL


def evaluate_decomp(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Judge the selected checkpoint and every seed on the test clips."""
    others = planned["train_decomp"] if planned["select_decomp"] else []
    return [
        Task(
            stage="evaluate_decomp",
            index=0,
            label="all seeds" if pipeline.seeds else "",
            argv=("evaluate-decomp", "-d", pipeline.folder(""))
            + decomp_ckpt(pipeline)
            + tuple(option("batch_size", pipeline.evaluation.batch_size)),
            config=sections(pipeline, "", "model", training=False),
            inputs=(checkpoint_input(pipeline), f"seeds/*/{CHECKPOINT}", CAPTIONS),
            outputs=("results/decomposition.json",),
            after=decomposition_ready(pipeline, planned) + after(others, ANY),
            replaceable=True,
        )
    ]


def evaluate_predictor(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Judge each predictor, its seeds together, on the test clips."""
    trainings = planned["train_predictor"]
    options = {name: getattr(pipeline.evaluation, name) for name in ("batch_size", "num_seed", "num_preds")}
    arguments = tuple(part for name, value in options.items() for part in option(name, value))
    tasks = []
    for name in pipeline.predictor_names:
        own = [
            task for task, training in zip(trainings, pipeline.predictors) if training.split("/")[0] == name
        ]
        tasks.append(
            Task(
                stage="evaluate_predictor",
                index=pipeline.indices["evaluate_predictor"][name],
                label=name,
                argv=("evaluate-predictor", "-d", pipeline.folder(""), "--name_pred_exp", name)
                + decomp_ckpt(pipeline)
                + arguments,
                config={
                    **sections(pipeline, f"predictors/{name}", "predictor", "prediction_params"),
                    **options,
                },
                inputs=(f"predictors/{name}/*{FINAL}", checkpoint_input(pipeline), CAPTIONS),
                outputs=(f"predictors/{name}/results/prediction.json",),
                after=after(own, OK if len(own) == 1 else ANY) + decomposition_ready(pipeline, planned),
                replaceable=True,
            )
        )
    return tasks


def figures(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Draw decompositions and what each predictor that is there makes of a first frame."""
    number = pipeline.evaluation.num_seqs
    return [
        Task(
            stage="figures",
            index=0,
            label="",
            argv=("figures", "-d", pipeline.folder("")) + tuple(option("num_seqs", number)),
            config={"num_seqs": number},
            inputs=(checkpoint_input(pipeline), f"predictors/*{FINAL}"),
            outputs=("plots/*", "predictors/*/plots/*"),
            after=decomposition_ready(pipeline, planned) + after(planned["train_predictor"], ANY),
            replaceable=True,
        )
    ]


def report(pipeline: Pipeline, planned: Planned) -> List[Task]:
    """Gather what exists and name what is missing: it waits for everything to end, not to succeed."""
    before = planned["evaluate_decomp"] + planned["evaluate_predictor"] + planned["figures"]
    return [
        Task(
            stage="report",
            index=0,
            label="",
            argv=("report", "-d", pipeline.folder("")),
            inputs=("results/*", "predictors/*/results/*", "selected.*"),
            outputs=("summary.json",),
            after=after(before + planned["select_decomp"], ANY),
            replaceable=True,
        )
    ]

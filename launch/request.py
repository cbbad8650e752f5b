"""From the options of a command line to what is to be submitted."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Optional, Tuple

from launch.pipeline import Pipeline, from_folder, from_recipe, with_decomposition_seeds, with_predictors
from launch.recipe import Recipe, check_recipe, load_recipe
from launch.stages import DISTRIBUTED
from slurm.cluster import ClusterConfig, load_cluster
from slurm.task import Resources
from textocvp.config.errors import UserError, nearest
from textocvp.config.experiment import FILE_NAME, parse_experiment
from textocvp.config.fit import check_fit

TRAININGS = frozenset(stage for stage, distributed in DISTRIBUTED.items() if distributed)
RESOURCES = tuple(field.name for field in fields(Resources))


@dataclass(frozen=True)
class Request:
    """What a command line asks for."""

    pipeline: Pipeline
    cluster: ClusterConfig
    stages: Optional[FrozenSet[str]] = None
    """None: the whole pipeline."""
    recipe: Optional[Path] = None
    """Kept in the experiment's folder."""
    rerun: bool = False
    wait: bool = False


def make_request(options: argparse.Namespace, stages: Optional[FrozenSet[str]]) -> Request:
    """What the options ask for.

    Args:
        stages: those of the command; None: all.
    """
    changed = {stage: DISTRIBUTED[stage] for stage in sorted(stages or TRAININGS)}
    cluster = load_cluster(options.cluster, DISTRIBUTED)
    cluster = cluster.with_resources(parse_resources(options.res), changed)
    return Request(
        pipeline=make_pipeline(options, cluster, stages),
        cluster=cluster,
        stages=stages,
        recipe=options.recipe,
        rerun=options.rerun,
        wait=options.wait,
    )


def make_pipeline(
    options: argparse.Namespace, cluster: ClusterConfig, stages: Optional[FrozenSet[str]]
) -> Pipeline:
    """The pipeline of a recipe or of an experiment's folder, with what the options change."""
    if options.recipe:
        recipe = load_recipe(options.recipe)
        root = cluster.data_root(recipe.decomposition.dataset)
        pipeline = recipe_pipeline(recipe, str(options.recipe), Path(cluster.paths.experiments), root)
    else:
        pipeline = from_folder(options.exp)
        check_folders(pipeline)
    seeds = parse_seeds(options.seeds)
    if "train_predictor" in (stages or ()) or options.predictor:
        pipeline = with_predictors(pipeline, options.predictor, seeds)
    elif seeds:
        if stages is not None and "train_decomp" not in stages:
            raise UserError(f"--seeds: {options.command} takes none; it uses those that were trained")
        pipeline = with_decomposition_seeds(pipeline, seeds)
    workers = {stage: cluster.stage_resources(stage).cpus_per_task for stage in DISTRIBUTED}
    checkpoint = options.decomp_ckpt
    if checkpoint and "/" in checkpoint:  # as a path it is meant from here, not from the experiment
        checkpoint = str(Path(checkpoint).absolute())
    return replace(pipeline, workers=workers, decomp_ckpt=checkpoint)


def check_folders(pipeline: Pipeline) -> None:
    """ConfigError where a config's parts do not fit each other: a job would find it out hours later."""
    for folder, values in pipeline.files.items():
        path = str(pipeline.root / folder / FILE_NAME)
        check_fit(parse_experiment(values, path), path)


def recipe_pipeline(recipe: Recipe, source: str, experiments: Path, root: Optional[str]) -> Pipeline:
    """The pipeline of a recipe, checked whole; errors name the recipe's file."""
    try:
        pipeline = from_recipe(recipe, experiments, root)
    except UserError as error:
        raise UserError(str(error) if source in str(error) else f"{source}: {error}") from None
    check_recipe(recipe, source, pipeline.files)
    return pipeline


def parse_resources(text: str) -> Dict[str, Any]:
    """ "nodes=1 time=04:00:00" -> {"nodes": 1, "time": "04:00:00"}."""
    values: Dict[str, Any] = {}
    for word in text.replace(",", " ").split():
        name, equals, value = word.partition("=")
        if name not in RESOURCES or not equals:
            raise UserError(f"--res {text!r}: {word!r} is no RESOURCE=value{nearest(name, RESOURCES)}")
        number = value.replace(".", "", 1).isdigit()
        values[name] = value if not number else float(value) if "." in value else int(value)
    return values


def parse_seeds(text: str) -> Tuple[int, ...]:
    """ "0 1 2" (or "0,1,2") -> (0, 1, 2)."""
    seeds: List[int] = []
    for word in text.replace(",", " ").split():
        if not word.isdigit():
            raise UserError(f'--seeds {text!r}: {word!r} is no seed; numbers from 0 on are needed, "0 1 2"')
        seeds.append(int(word))
    return tuple(seeds)

"""Turns the options of a command line into submitted jobs or local runs."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Dict, FrozenSet, List, Mapping, Optional, Tuple

from launch import CODE
from launch.jobs import Submission, active_jobs, cancel_jobs, load_cluster, record_submission
from launch.local import LocalRunner
from launch.pipeline import (
    INDICES,
    Pipeline,
    check_folders,
    from_folder,
    from_recipe,
    with_decomposition_seeds,
    with_predictors,
)
from launch.plan import Plan, make_plan
from launch.recipe import load_recipe, write_experiment
from launch.stages import DISTRIBUTED, all_tasks
from launch.state import ledger
from launch.state.ledger import locked
from launch.state.manifest import set_aside
from launch.state.snapshot import snapshot_folder, take_snapshot
from launch.state.task import TaskId, write_task
from launch.views.plan import by_stage, print_report, provenance_notes, space_warnings, summary_line
from launch.views.watch import wait_for_jobs
from slurm.container import image_digest, python_words
from slurm.options import Resources
from slurm.queue import slurm_settings
from slurm.site import ClusterConfig
from textocvp.files import UserError, code_revision, nearest, write_json

TRAININGS = frozenset(stage for stage, distributed in DISTRIBUTED.items() if distributed)
RESOURCES = tuple(Resources.model_fields)
SAFE_ARRAY_SIZE = 1000
"""Slurm's default MaxArraySize is 1001; larger arrays are checked against the site's own."""


@dataclass(frozen=True)
class Request:
    """The request of a command line."""

    pipeline: Pipeline
    cluster: ClusterConfig
    stages: Optional[FrozenSet[str]] = None
    """None: the whole pipeline."""
    recipe: Optional[Path] = None
    """Kept in the experiment's folder."""
    rerun: bool = False
    wait: bool = False


def make_request(options: argparse.Namespace, stages: Optional[FrozenSet[str]]) -> Request:
    """The requested pipeline, of a recipe or of an experiment's folder, with the options applied.

    Args:
        stages: those of the command; None: all.
    """
    changed = {stage: DISTRIBUTED[stage] for stage in sorted(stages or TRAININGS)}
    cluster = load_cluster(options.cluster).with_resources(parse_resources(options.res), changed)
    if options.recipe:
        recipe = load_recipe(options.recipe)
        root = cluster.paths.data.get(recipe.decomposition.dataset)
        pipeline = from_recipe(recipe, Path(cluster.paths.experiments), root, str(options.recipe))
    else:
        pipeline = from_folder(options.exp)
        check_folders(pipeline)
    seeds = parse_seeds(options.seeds)
    if "train_predictor" in (stages or ()) or options.pred:
        pipeline = with_predictors(pipeline, options.pred, seeds)
    elif seeds:
        pipeline = with_decomposition_seeds(pipeline, seeds)
    checkpoint = options.decomp_ckpt
    if checkpoint and "/" in checkpoint:  # as a path it is relative to here, not to the experiment
        checkpoint = str(Path(checkpoint).absolute())
    workers = {stage: cluster.job_resources(stage).cpus_per_task for stage in DISTRIBUTED}
    pipeline = replace(pipeline, workers=workers, decomp_ckpt=checkpoint)
    return Request(pipeline, cluster, stages, options.recipe, options.rerun, options.wait)


def parse_resources(text: str) -> Dict[str, Any]:
    """ "nodes=1 time=04:00:00" -> {"nodes": 1, "time": "04:00:00"}."""
    values: Dict[str, Any] = {}
    for word in text.replace(",", " ").split():
        name, _, value = word.partition("=")
        if name not in RESOURCES:
            raise UserError(f"--res {text!r}: {name}: no such resource{nearest(name, RESOURCES)}")
        if not value:
            raise UserError(f"--res {text!r}: {word}: a value is missing, expected {name}=VALUE")
        number = name != "time" and value.replace(".", "", 1).isdigit()
        values[name] = value if not number else float(value) if "." in value else int(value)
    return values


def parse_seeds(text: str) -> Tuple[int, ...]:
    """ "0 1 2" (or "0,1,2") -> (0, 1, 2)."""
    seeds: List[int] = []
    for word in text.replace(",", " ").split():
        if not word.isdigit():
            raise UserError(f'--seeds {text!r}: expected integers >= 0, as in "0 1 2", got {word!r}')
        seeds.append(int(word))
    return tuple(seeds)


def plan_request(request: Request) -> Plan:
    """The plan of a request; writes nothing."""
    pipeline, root = request.pipeline, request.pipeline.root
    jobs, tasks = active_jobs(root), all_tasks(pipeline)
    return make_plan(root, tasks, request.stages, jobs, request.rerun, pipeline.skipped)


def submit(request: Request) -> int:
    """Run or submit missing tasks; returns the exit status: 0, 1 if a task failed, 130 on Ctrl-C."""
    root, cluster = request.pipeline.root, request.cluster
    python_words(cluster, CODE, root)  # UserError without python or image, before anything is written
    with locked(root) as lock:
        plan = plan_request(request)
        check_array_size(plan, cluster)
        write_experiment(root, request.pipeline.files, request.recipe, replace=request.rerun)
        write_json(root / INDICES, request.pipeline.indices)
        about = submission_details(cluster)
        said = [*provenance_notes(plan, about), *space_warnings(request.pipeline, plan)]
        print("\n".join([summary_line(plan, cluster), *said]), flush=True)
        prepare(plan)
        if cluster.scheduler == "local":
            runner = LocalRunner(root, cluster, lock, about)
            status = runner.run([step.task for step in plan.to_run])
        else:
            jobs = submit_jobs(plan, cluster, about)
    if cluster.scheduler != "local":
        if not request.wait:
            if plan.to_run:
                print(f"submitted; progress: make status EXP={root}; failures: make why EXP={root}")
            return 0
        tasks = [step.task for step in plan.steps if step.task.id in jobs]
        try:
            status = wait_for_jobs(root, cluster, tasks, jobs)
        except KeyboardInterrupt:
            print(f"\nno longer waiting; the jobs keep running: make status EXP={root}")
            raise
    if status == 0 and request.stages is None:
        print_report(root)
    return status


def prepare(plan: Plan) -> None:
    """Cancel the jobs of tasks that are planned again, move old outputs aside, write each task's file."""
    cancel_jobs(plan.superseded)
    for step in plan.to_run:
        if step.job:
            ledger.record(plan.root, ledger.CANCELLED, *step.task.id, job_id=step.job.job_id)
        if step.aside:
            print(f"{step.task.name}: old outputs moved to {set_aside(plan.root, step.task)}")
        write_task(plan.root, step.task)


def submit_jobs(plan: Plan, cluster: ClusterConfig, about: Mapping[str, Any]) -> Dict[TaskId, str]:
    """Submit all stages at once; returns the job id of every queued task.

    Args:
        about: from `submission_details`.
    """
    from slurm.executor import submit_array  # submitit: not needed to run locally

    jobs = plan.queued_jobs
    if not plan.to_run:
        return jobs
    code = take_snapshot(CODE, snapshot_folder(plan.root))
    submission = Submission(cluster, plan.root, code, about)
    earlier = ledger.submitted_jobs(plan.root)
    for tasks in by_stage(plan.to_run).values():
        for job, group in submission.array_jobs(tasks, jobs, earlier):
            # recorded before the next array, which sbatch may refuse while these jobs run
            for task, job_id in zip(group, submit_array(cluster, job)):
                ids = {"job_id": job_id, "depends_on": job.dependency, "snapshot": code.name}
                record_submission(plan.root, task, job.resources, about, job.log(job_id), **ids)
                jobs[task.id] = job_id
    return jobs


def check_array_size(plan: Plan, cluster: ClusterConfig) -> None:
    """UserError if a stage has more tasks than the site's Slurm allows in one array."""
    largest = max((step.task.id for step in plan.to_run), key=lambda task: task.task, default=None)
    if largest is None or cluster.scheduler == "local" or largest.task < SAFE_ARRAY_SIZE:
        return
    limit = int(slurm_settings(cluster.slurm_environment()).get("MaxArraySize", SAFE_ARRAY_SIZE))
    if largest.task >= limit:
        stage = largest.stage.replace("_", "-")
        raise UserError(
            f"{stage} has {largest.task + 1} tasks, but cluster {cluster.name} allows {limit} per "
            "array (MaxArraySize): use fewer shards, seeds or predictors"
        )


def submission_details(cluster: ClusterConfig) -> Dict[str, Any]:
    """Values recorded in the ledger for every job of a submission."""
    revision, dirty = code_revision(CODE)
    return {"cluster": cluster.name, "revision": revision, "dirty": dirty, "image": image_digest(cluster)}

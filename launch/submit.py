"""From a plan to jobs: write the experiment's folders, submit what is missing, wait where asked to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, FrozenSet, Optional

from launch.jobs import active_jobs, cancel_jobs
from launch.pipeline import INDICES, Pipeline
from launch.plan import QUEUED, Plan, TaskId, make_plan
from launch.recipe import write_experiment
from launch.show import print_report, summary_line
from launch.stages import all_tasks
from launch.waiting import wait_for_jobs
from slurm import ledger
from slurm.cluster import CODE, ClusterConfig
from slurm.local import LocalRunner
from slurm.lock import locked
from slurm.records import set_aside, write_task
from textocvp.artifacts import code_revision, write_json


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


def plan_request(request: Request) -> Plan:
    """The plan of a request; writes nothing."""
    root = request.pipeline.root
    return make_plan(root, all_tasks(request.pipeline), request.stages, active_jobs(root), request.rerun)


def submit(request: Request) -> int:
    """Run or submit what is missing; returns the exit status: 0, 1 where a task failed, 130 on Ctrl-C."""
    root, cluster = request.pipeline.root, request.cluster
    cluster.interpreter()  # UserError where it is missing, before anything is written
    with locked(root) as lock:
        plan = plan_request(request)
        write_experiment(root, request.pipeline.files, request.recipe)
        write_json(root / INDICES, request.pipeline.indices)
        print(summary_line(plan, cluster), flush=True)
        prepare(plan)
        if cluster.scheduler == "local":
            runner = LocalRunner(root, cluster, lock, submission_details(cluster))
            status = runner.run([step.task for step in plan.to_run])
        else:
            jobs = submit_jobs(plan, cluster)
    if cluster.scheduler != "local":
        if not request.wait:
            return 0
        tasks = [step.task for step in plan.steps if step.task.id in jobs]
        try:
            status = wait_for_jobs(root, cluster, tasks, jobs)
        except KeyboardInterrupt:
            print(f"\nno longer waiting; the jobs go on: make status EXP={root}")
            raise
    if status == 0 and request.stages is None:
        print_report(root)
    return status


def prepare(plan: Plan) -> None:
    """Cancel what is planned anew, move aside what is in the way, write each task's file."""
    cancel_jobs(plan.superseded)
    for step in plan.to_run:
        if step.job:
            ledger.record(plan.root, ledger.CANCELLED, *step.task.id, job_id=step.job.job_id)
        if step.aside:
            print(f"{step.task.name}: old outputs moved to {set_aside(plan.root, step.task)}")
        write_task(plan.root, step.task)


def submit_jobs(plan: Plan, cluster: ClusterConfig) -> Dict[TaskId, str]:
    """Submit all stages up front; returns the job id of every task that is queued now."""
    from slurm.executor import submit_stage  # the one import of submitit: not needed to run locally

    jobs = {step.task.id: step.job.job_id for step in plan.steps if step.action == QUEUED}
    about = submission_details(cluster)
    for stage in dict.fromkeys(step.task.stage for step in plan.to_run):
        tasks = [step.task for step in plan.to_run if step.task.stage == stage]
        resources = cluster.stage_resources(stage)
        for task, details in submit_stage(cluster, plan.root, tasks, resources, jobs).items():
            argv = list(next(one.argv for one in tasks if one.id == task))
            ledger.record(
                plan.root, ledger.SUBMITTED, *task, **details, **about, argv=argv, resources=vars(resources)
            )
            jobs[task] = details["job_id"]
    return jobs


def submission_details(cluster: ClusterConfig) -> Dict[str, Any]:
    """What the ledger says of every job of a submission."""
    revision, dirty = code_revision(CODE)
    return {"cluster": cluster.name, "revision": revision, "dirty": dirty, "image": ""}

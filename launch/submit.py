"""From a plan to jobs: write the experiment's folders, submit what is missing, wait where asked to."""

from __future__ import annotations

from typing import Any, Dict, Mapping

from launch.experiment_files import write_experiment
from launch.jobs import active_jobs, cancel_jobs
from launch.pipeline import INDICES
from launch.plan import QUEUED, Plan, TaskId, make_plan
from launch.request import Request
from launch.show import by_stage, print_report, provenance_notes, summary_line
from launch.space import space_warnings
from launch.stages import all_tasks
from launch.waiting import wait_for_jobs
from slurm import ledger
from slurm.cluster import CODE, ClusterConfig
from slurm.local import LocalRunner
from slurm.lock import locked
from slurm.queue import slurm_settings
from slurm.records import set_aside, write_task
from slurm.snapshot import snapshot_folder, take_snapshot
from textocvp.artifacts import code_revision, write_json
from textocvp.config.errors import UserError

SAFE_ARRAY_SIZE = 1000
"""Slurm's default MaxArraySize is 1001; larger arrays are held against the site's own."""


def plan_request(request: Request) -> Plan:
    """The plan of a request; writes nothing."""
    root = request.pipeline.root
    return make_plan(root, all_tasks(request.pipeline), request.stages, active_jobs(root), request.rerun)


def submit(request: Request) -> int:
    """Run or submit what is missing; returns the exit status: 0, 1 where a task failed, 130 on Ctrl-C."""
    root, cluster = request.pipeline.root, request.cluster
    cluster.python_command(CODE, root)  # UserError, before anything is written, without python or image
    with locked(root) as lock:
        plan = plan_request(request)
        check_array_size(plan, cluster)
        write_experiment(root, request.pipeline.files, request.recipe, replace=request.rerun)
        write_json(root / INDICES, request.pipeline.indices)
        about = submission_details(cluster)
        said = [*provenance_notes(plan, about), *space_warnings(request.pipeline, plan, cluster)]
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
                print(f"submitted; how far it is: make status EXP={root}; what broke: make why EXP={root}")
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


def submit_jobs(plan: Plan, cluster: ClusterConfig, about: Mapping[str, Any]) -> Dict[TaskId, str]:
    """Submit all stages up front; returns the job id of every task that is queued now.

    Args:
        about: from `submission_details`.
    """
    from slurm.executor import Submission, submit_stage  # submitit: not needed to run locally

    jobs = {step.task.id: step.job.job_id for step in plan.steps if step.action == QUEUED}
    if not plan.to_run:
        return jobs
    code = take_snapshot(CODE, snapshot_folder(plan.root))
    submission = Submission(cluster, plan.root, code, about)
    for stage, tasks in by_stage(plan.to_run).items():
        resources = vars(cluster.stage_resources(stage))
        for task, details in submit_stage(submission, tasks, jobs):
            ledger.record(
                plan.root,
                ledger.SUBMITTED,
                *task.id,
                **details,
                **submission.about,
                argv=list(task.argv),
                resources=resources,
                snapshot=code.name,
            )
            jobs[task.id] = details["job_id"]
    return jobs


def check_array_size(plan: Plan, cluster: ClusterConfig) -> None:
    """UserError where a stage has more tasks than the site's Slurm takes into one array."""
    tasks = (step.task.id for step in plan.to_run)
    stage, index = max(tasks, key=lambda task: task[1], default=("", 0))
    if cluster.scheduler == "local" or index < SAFE_ARRAY_SIZE:  # no need to ask
        return
    limit = int(slurm_settings(cluster.slurm_environment()).get("MaxArraySize", SAFE_ARRAY_SIZE))
    if index >= limit:
        raise UserError(
            f"{stage} has {index + 1} tasks, but cluster {cluster.name} takes {limit} into an "
            f"array (MaxArraySize): ask for fewer shards, seeds or predictors"
        )


def submission_details(cluster: ClusterConfig) -> Dict[str, Any]:
    """What the ledger says of every job of a submission."""
    revision, dirty = code_revision(CODE)
    return {"cluster": cluster.name, "revision": revision, "dirty": dirty, "image": cluster.image_digest()}

"""Plans on the terminal: tasks, edges, resources, batch scripts; and the report stage's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from launch import CODE
from launch.batch import Submission
from launch.plan import Action, Plan, Step
from launch.state import ledger
from launch.state.snapshot import snapshot_folder, snapshot_path
from launch.state.task import ANY, OK, Task, TaskId
from slurm.options import Resources
from slurm.site import ClusterConfig

REPORT = "summary.txt"
"""In EXP: the table that the report stage writes."""


def summary_line(plan: Plan, cluster: ClusterConfig) -> str:
    """What a submission is going to do, in one line."""
    shown = (Action.DONE, Action.QUEUED, Action.RUN)
    counts = {action: sum(step.action is action for step in plan.steps) for action in shown}
    parts = [f"{number} {action.value}" for action, number in counts.items() if number]
    queued = "; nothing to submit" if counts[Action.QUEUED] else "; nothing is left to do"
    end = "" if counts[Action.RUN] else queued
    return f"{plan.root} on {cluster.name}: {len(plan.steps)} tasks, {', '.join(parts)}{end}"


def provenance_notes(plan: Plan, about: Mapping[str, Any]) -> List[str]:
    """A line where done tasks come from other code or another image: they count as done all the same.

    And one where they may be in the way of new ones.

    Args:
        about: revision and image of what would be submitted now.
    """
    notes = []
    if plan.at_stake:
        notes.append(
            f"note: {', '.join(tasks_text(plan.at_stake))} done; if their inputs come out different, they "
            "end with an error, or with --rerun (RERUN=1) move their outputs aside"
        )
    done = [plan.records.manifest(step.task.id) for step in plan.steps if step.action is Action.DONE]
    for what, name in (("other code", "revision"), ("another image", "image")):
        found = [getattr(manifest, name) for manifest in done if getattr(manifest, name) != about[name]]
        if found:
            others = ", ".join(sorted({other[:12] or "unknown" for other in found}))
            now = about[name][:12] or "none"
            notes.append(f"note: {len(found)} done tasks were created by {what} ({others}; now {now})")
    return notes


def plan_lines(plan: Plan, cluster: ClusterConfig) -> List[str]:
    """Stages, their resources, and each task with its edges and what would happen to it."""
    stages: Dict[str, List[Step]] = {}
    for step in plan.steps:
        stages.setdefault(step.task.stage, []).append(step)
    lines = [summary_line(plan, cluster)]
    for stage, steps in stages.items():
        lines += ["", f"{shown(stage)}: {resources_text(cluster.job_resources(stage))}"]
        for step in steps:
            why = f" ({step.why})" if step.why else ""
            lines.append(f"  [{step.task.index}] {step.task.label or '-'}: {step.action.value}{why}")
            lines.append(f"      {step.task.command}")
            if step.task.after:
                lines.append(f"      after {edges_text(step.task)}")
    return lines


def script_lines(plan: Plan, cluster: ClusterConfig, about: Mapping[str, Any]) -> List[str]:
    """The batch script of every array that would be submitted, to the letter.

    Job ids that sbatch has yet to give are written as stages: afterok:TRAIN-DECOMP_0.

    Args:
        about: what the ledger would say of the jobs.
    """
    from slurm.executor import sbatch_text  # submitit: not needed to plan a local run

    submission = Submission(cluster, plan.root, snapshot_path(CODE, snapshot_folder(plan.root)), about)
    arrays = by_stage(plan.to_run)
    new = {step.task.id: f"{shown(step.task.stage).upper()}_{step.task.index}" for step in plan.to_run}
    jobs, earlier = {**plan.queued_jobs, **new}, ledger.submitted_jobs(plan.root)
    lines = []
    for tasks in arrays.values():
        for job, group in submission.array_jobs(tasks, jobs, earlier):
            lines += ["", f"{tasks_text(task.id for task in group)[0]} is submitted as:"]
            lines += [f"    {line}".rstrip() for line in sbatch_text(cluster, job).splitlines()]
    return lines


def by_stage(steps: Iterable[Step]) -> Dict[str, List[Task]]:
    """The steps' tasks, stage by stage in their order."""
    stages: Dict[str, List[Task]] = {}
    for step in steps:
        stages.setdefault(step.task.stage, []).append(step.task)
    return stages


def shown(stage: str) -> str:
    """A stage's id as people read and type it."""
    return stage.replace("_", "-")


def edges_text(task: Task) -> str:
    """What a task waits for, stage by stage: "success of train-decomp[0,2]"."""
    words = {ANY: "the end of", OK: "success of"}
    modes = dict.fromkeys(edge.mode for edge in task.after)
    return ", ".join(
        f"{words[mode]} {names}"
        for mode in modes
        for names in tasks_text(edge.id for edge in task.after if edge.mode == mode)
    )


def tasks_text(tasks: Iterable[TaskId]) -> List[str]:
    """Tasks, stage by stage in their order: "train-decomp[0,2-5]"."""
    groups: Dict[str, List[int]] = {}
    for stage, index in tasks:
        groups.setdefault(stage, []).append(index)
    return [f"{shown(stage)}[{_ranges(indices)}]" for stage, indices in groups.items()]


def _ranges(numbers: Sequence[int]) -> str:
    """ "0,2-5": three or more in a row are written as the first and the last."""
    runs: List[List[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def resources_text(resources: Resources) -> str:
    """Resources in one line."""
    parts = [f"{resources.nodes} node{'s' * (resources.nodes > 1)}"]
    parts += [f"{resources.gpus_per_node} GPU per node"] if resources.gpus_per_node else []
    parts += [f"{resources.ranks_per_node} processes per node"] if resources.ranks_per_node > 1 else []
    parts += [f"{resources.cpus_per_task} cores per process"] if resources.cpus_per_task else []
    parts += [f"{resources.mem_gb:g} GB"] if resources.mem_gb else []
    return ", ".join([*parts, f"limit {resources.time}"])


def print_report(root: Path) -> None:
    """Print what the report stage wrote last, if it has finished."""
    path = Path(root) / REPORT
    if (
        ledger.last_events(root).get(TaskId("report", 0), {}).get("event") == ledger.FINISHED
        and path.is_file()
    ):
        print(path.read_text().rstrip())

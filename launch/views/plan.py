"""Plans, tables and reports on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Sequence

from launch import CODE
from launch.batch import Submission
from launch.job import HEADER_END
from launch.plan import QUEUED, RUN, Plan, Step
from launch.state import ledger
from launch.state.manifest import DONE, Records
from launch.state.snapshot import snapshot_folder, snapshot_path
from launch.state.task import ANY, OK, Task, TaskId
from slurm.options import Resources
from slurm.site import ClusterConfig


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> List[str]:
    """Columns as wide as their widest cell; empty columns are left out."""
    keep = [i for i in range(len(header)) if any(row[i] for row in rows)]
    lines = [[header[i] for i in keep], *([row[i] for i in keep] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(keep))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]


def summary_line(plan: Plan, cluster: ClusterConfig) -> str:
    """What a submission is going to do, in one line."""
    counts = {action: sum(step.action == action for step in plan.steps) for action in (DONE, QUEUED, RUN)}
    parts = [f"{number} {action}" for action, number in counts.items() if number]
    nothing = "" if counts[RUN] else "; nothing to submit" if counts[QUEUED] else "; nothing is left to do"
    return f"{plan.root} on {cluster.name}: {len(plan.steps)} tasks, {', '.join(parts)}{nothing}"


def provenance_notes(plan: Plan, about: Mapping[str, Any]) -> List[str]:
    """A line where done tasks were made by other code or in another image: they count as done all the same.

    And one where they may be in the way of new ones.

    Args:
        about: revision and image of what would be submitted now.
    """
    records, notes = Records(plan.root), []
    if plan.at_stake:
        notes.append(
            f"note: {', '.join(stages_text(plan.at_stake))} done; should what they read come out "
            "different, they end with an error, or with --rerun (RERUN=1) move their outputs aside"
        )
    made = [records.manifest(step.task.id) for step in plan.steps if step.action == DONE]
    for what, name in (("other code", "revision"), ("another image", "image")):
        others = [getattr(manifest, name) for manifest in made if getattr(manifest, name) != about[name]]
        if others:
            found = ", ".join(sorted({other[:12] or "unknown" for other in others}))
            notes.append(
                f"note: {len(others)} done tasks were made with {what} ({found}; now "
                f"{about[name][:12] or 'none'})"
            )
    return notes


def plan_lines(plan: Plan, cluster: ClusterConfig) -> List[str]:
    """Stages, their resources, and each task with its edges and what would happen to it."""
    stages: Dict[str, List[Step]] = {}
    for step in plan.steps:
        stages.setdefault(step.task.stage, []).append(step)
    lines = [summary_line(plan, cluster)]
    for stage, steps in stages.items():
        lines += ["", f"{stage}: {resources_text(cluster.job_resources(stage))}"]
        for step in steps:
            reason = f" ({'; '.join(step.reasons)})" if step.reasons else ""
            lines.append(f"  [{step.task.index}] {step.task.label or '-'}: {step.action}{reason}")
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
    jobs = {step.task.id: step.job.job_id for step in plan.steps if step.action == QUEUED}
    arrays = by_stage(plan.to_run)
    jobs.update(
        {
            task.id: f"{stage.upper().replace('_', '-')}_{task.index}"
            for stage, tasks in arrays.items()
            for task in tasks
        }
    )
    lines, earlier = [], ledger.submitted_jobs(plan.root)
    for stage, tasks in arrays.items():
        for job, group in submission.array_jobs(tasks, jobs, earlier):
            lines += ["", f"{stage}[{','.join(str(task.index) for task in group)}] is submitted as:"]
            lines += [f"    {line}".rstrip() for line in sbatch_text(cluster, job).splitlines()]
    return lines


def by_stage(steps: Iterable[Step]) -> Dict[str, List[Task]]:
    """The steps' tasks, stage by stage in their order."""
    stages: Dict[str, List[Task]] = {}
    for step in steps:
        stages.setdefault(step.task.stage, []).append(step.task)
    return stages


def edges_text(task: Task) -> str:
    """What a task waits for, stage by stage: "success of train_decomp[0,2]"."""
    words = {ANY: "the end of", OK: "success of"}
    modes = dict.fromkeys(edge.mode for edge in task.after)
    return ", ".join(
        f"{words[mode]} {names}"
        for mode in modes
        for names in stages_text(edge.id for edge in task.after if edge.mode == mode)
    )


def stages_text(tasks: Iterable[TaskId]) -> List[str]:
    """Tasks, stage by stage in their order: "train_decomp[0,2]"."""
    groups: Dict[str, List[int]] = {}
    for stage, index in tasks:
        groups.setdefault(stage, []).append(index)
    return [f"{stage}[{','.join(map(str, indices))}]" for stage, indices in groups.items()]


def resources_text(resources: Resources) -> str:
    """Resources in one line."""
    parts = [f"{resources.nodes} node{'s' * (resources.nodes > 1)}"]
    parts += [f"{resources.gpus_per_node} GPU per node"] if resources.gpus_per_node else []
    parts += [f"{resources.ranks_per_node} processes per node"] if resources.ranks_per_node > 1 else []
    parts += [f"{resources.cpus_per_task} cores per process"] if resources.cpus_per_task else []
    parts += [f"{resources.mem_gb:g} GB"] if resources.mem_gb else []
    return ", ".join(parts + [f"limit {resources.time}"])


def print_report(root: Path) -> None:
    """Print what the report stage printed last."""
    last = ledger.last_events(root).get(("report", 0), {})
    log = Path(root) / last.get("log", "")
    if last.get("event") == ledger.FINISHED and log.is_file():
        text = log.read_text()
        print(text[text.rindex(HEADER_END) :].split("\n", 1)[1].rstrip())

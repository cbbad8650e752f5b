"""`make efficiency`: requested and used time, memory and cores of each task, and suggestions."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

from launch.jobs import cluster_environment
from launch.state import ledger
from launch.state.manifest import Records
from launch.state.task import TaskId
from launch.views.plan import shown
from slurm.accounting import Usage, usages
from slurm.options import format_time, parse_time
from textocvp.files import UserError
from textocvp.terminal import duration, format_table

GB = 2**30
"""The unit of resources.STAGE.mem_gb."""
TIME_MARGIN, MEMORY_MARGIN, CORE_MARGIN = 1.3, 1.2, 1.1
TIME_STEPS = ((3600, 300), (6 * 3600, 900), (24 * 3600, 3600), (math.inf, 6 * 3600))
"""(up to this many seconds, round up to a multiple of this many)."""
MEMORY_STEPS = ((4, 0.5), (16, 1), (64, 4), (math.inf, 8))
HEADER = ("stage", "task", "job", "state", "attempts", "time", "limit", "memory", "asked", "cores busy")
ATTEMPTS = "time and cores of requeued jobs are summed over attempts; the limit is that of one attempt"
UNKNOWN = "memory and cores are known only for jobs in Slurm's accounting (sacct)"
TOO_LITTLE = {"TIMEOUT": "time", "OUT_OF_MEMORY": "mem_gb"}


@dataclass(frozen=True)
class Used:
    """One task's last job."""

    task: TaskId
    job_id: str
    usage: Usage
    resources: Mapping[str, Any]
    """Requested resources, from the ledger."""
    accounted: bool


def efficiency_lines(root: Path) -> List[str]:
    """The table and a suggestion for each stage with jobs; UserError if nothing was submitted yet."""
    last = ledger.last_events(root)
    if not last:
        raise UserError(f"{root}: nothing was submitted yet")
    accounted: Dict[str, Usage] = {}
    jobs = {event["job_id"]: event["cluster"] for event in last.values() if event.get("job_id")}
    for cluster in set(jobs.values()):
        job_ids = [job_id for job_id, name in jobs.items() if name == cluster]
        accounted.update(usages(job_ids, cluster_environment(cluster)))
    records, used = Records(root), []
    for task, event in last.items():
        job_id, resources = event.get("job_id", ""), event.get("resources") or {}
        usage = accounted.get(job_id) or _recorded(records, task, event)
        used.append(Used(task, job_id, usage, resources, job_id in accounted))
    lines = format_table(HEADER, [_row(each) for each in used])
    lines += [ATTEMPTS] if any(each.usage.attempts > 1 for each in used) else []
    lines += [UNKNOWN] if not all(each.accounted for each in used) else []
    stages: Dict[str, List[Used]] = {}
    for each in used:
        if each.job_id:  # without a scheduler nothing is requested
            stages.setdefault(shown(each.task.stage), []).append(each)
    suggestions = [suggestion(stage, tasks) for stage, tasks in stages.items()]
    return [*lines, *(["", *suggestions] if suggestions else [])]


def _recorded(records: Records, task: TaskId, event: Mapping[str, Any]) -> Usage:
    """Usage of a task from ledger and manifest, without accounting."""
    manifest, done = records.manifest(task), event["event"] == ledger.FINISHED
    # without a scheduler limits are not enforced
    resources = (event.get("resources") or {}) if event.get("job_id") else {}
    return Usage(
        state="COMPLETED" if done else event["event"].upper(),
        attempts=max(1, event.get("starts", 1)),
        seconds=event.get("seconds") or (manifest.seconds if done and manifest else 0),
        limit_seconds=parse_time(resources["time"]) if "time" in resources else None,
        asked_memory=int(resources["mem_gb"] * GB) if resources.get("mem_gb") else None,
    )


def _row(used: Used) -> Tuple[str, ...]:
    usage = used.usage
    gigabytes = ["" if n is None else f"{n / GB:.2f} GB" for n in (usage.memory, usage.asked_memory)]
    return (
        shown(used.task.stage),
        str(used.task.task),
        used.job_id,
        usage.state.lower(),
        str(usage.attempts),
        duration(usage.seconds or None),
        duration(usage.limit_seconds),
        *gigabytes,
        f"{100 * usage.cpu_seconds / usage.core_seconds:.0f} %" if usage.core_seconds else "",
    )


def suggestion(stage: str, used: Sequence[Used]) -> str:
    """Sufficient resources for all successful tasks of a stage, or the resource that was exceeded."""
    for each in used:
        name = TOO_LITTLE.get(each.usage.state)
        if name:
            too_little = f"{name}={each.resources.get(name)} was too little for task {each.task.task}"
            return f"{stage}: {too_little}; raise resources.{stage}.{name} in the cluster's config"
    done = [each for each in used if each.usage.state == "COMPLETED" and each.usage.seconds]
    if not done:
        return f"{stage}: no task has succeeded yet"
    enough = [*_enough_time(done), *_enough_memory(done), *_enough_cores(done)]
    if not enough:
        return f"{stage}: the requested resources fit"
    return f"{stage}: {' '.join(enough)} would have been enough (resources.{stage} in the cluster's config)"


def _enough_time(done: Sequence[Used]) -> List[str]:
    seconds = rounded_up(TIME_MARGIN * max(each.usage.seconds for each in done), TIME_STEPS)
    limits = [each.usage.limit_seconds for each in done if each.usage.limit_seconds is not None]
    return [f"time={format_time(seconds)}"] if not limits or seconds < min(limits) else []


def _enough_memory(done: Sequence[Used]) -> List[str]:
    memory = max((each.usage.memory or 0 for each in done), default=0) / GB
    asked = [each.usage.asked_memory for each in done if each.usage.asked_memory is not None]
    gigabytes = rounded_up(MEMORY_MARGIN * memory, MEMORY_STEPS)
    return [f"mem_gb={gigabytes:g}"] if memory and (not asked or gigabytes < min(asked) / GB) else []


def _enough_cores(done: Sequence[Used]) -> List[str]:
    accounted = [each for each in done if each.usage.core_seconds]
    asked: List[int] = [n for each in accounted if (n := each.resources.get("cpus_per_task")) is not None]
    if not asked or len(asked) < len(accounted):
        return []
    busy = max(each.usage.cpu_seconds / each.usage.seconds / each.usage.processes for each in accounted)
    cores = max(1, math.ceil(CORE_MARGIN * busy))
    return [f"cpus_per_task={cores}"] if cores < min(asked) else []


def rounded_up(value: float, steps: Sequence[Tuple[float, float]]) -> float:
    """The next multiple of the step for the value's size; at least one step."""
    step = next(step for limit, step in steps if value <= limit)
    return max(1, math.ceil(value / step)) * step

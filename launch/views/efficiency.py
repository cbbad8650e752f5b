"""`make efficiency`: requested against used time, memory and cores of each task, and what would be enough."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from launch.jobs import cluster_environment
from launch.state import ledger
from launch.state.manifest import Records
from launch.state.task import TaskId
from slurm.accounting import Usage, by_cluster, usages
from slurm.options import format_time, parse_time
from textocvp.config.errors import UserError
from textocvp.terminal import duration, format_table

GB = 2**30
"""As resources.STAGE.mem_gb counts."""
TIME_MARGIN, MEMORY_MARGIN, CORE_MARGIN = 1.3, 1.2, 1.1
TIME_STEPS = ((3600, 300), (6 * 3600, 900), (24 * 3600, 3600), (math.inf, 6 * 3600))
"""(up to so many seconds, round up to a multiple of so many)."""
MEMORY_STEPS = ((4, 0.5), (16, 1), (64, 4), (math.inf, 8))
HEADER = ("stage", "task", "job", "state", "attempts", "time", "limit", "memory", "asked", "cores busy")
ATTEMPTS = "time and cores of a job that was queued again: all attempts summed; the limit is each attempt's"
UNKNOWN = "memory and cores are known of jobs that Slurm's accounting (sacct) tells of, not of the others"
TOO_LITTLE = {"TIMEOUT": "time", "OUT_OF_MEMORY": "mem_gb"}


@dataclass(frozen=True)
class Used:
    """One task's last job."""

    task: TaskId
    job_id: str
    usage: Usage
    resources: Mapping[str, Any]
    """As the ledger has them from its submission."""
    accounted: bool


def efficiency_lines(root: Path) -> List[str]:
    """The table and a suggestion for each stage; UserError where nothing was submitted yet."""
    last = ledger.last_events(root)
    if not last:
        raise UserError(f"{root}: nothing was submitted there yet")
    accounted: Dict[str, Usage] = {}
    jobs = {event["job_id"]: event["cluster"] for event in last.values() if event.get("job_id")}
    for cluster, job_ids in by_cluster(jobs).items():
        accounted.update(usages(job_ids, cluster_environment(cluster)))
    records = Records(root)
    used = [
        _used(records, task, event, accounted.get(event.get("job_id", ""))) for task, event in last.items()
    ]
    lines = format_table(HEADER, [_row(each) for each in used])
    if any(each.usage.attempts > 1 for each in used):
        lines.append(ATTEMPTS)
    if not all(each.accounted for each in used):
        lines.append(UNKNOWN)
    stages = dict.fromkeys(each.task[0] for each in used)
    return (
        lines
        + [""]
        + [suggestion(stage, [each for each in used if each.task[0] == stage]) for stage in stages]
    )


def _used(records: Records, task: TaskId, event: Mapping[str, Any], usage: Optional[Usage]) -> Used:
    job_id, resources = event.get("job_id", ""), event.get("resources") or {}
    if usage is not None:
        return Used(task, job_id, usage, resources, True)
    manifest = records.manifest(task)
    done = event["event"] == ledger.FINISHED
    seconds = event.get("seconds") or (manifest.seconds if done and manifest else 0)
    # without a scheduler the limits are nobody's
    limit = parse_time(resources["time"]) if job_id and "time" in resources else None
    memory = int(resources["mem_gb"] * GB) if job_id and resources.get("mem_gb") else None
    state = "COMPLETED" if done else event["event"].upper()
    usage = Usage(state, max(1, event.get("starts", 1)), seconds, limit_seconds=limit, asked_memory=memory)
    return Used(task, job_id, usage, resources, False)


def _row(used: Used) -> Tuple[str, ...]:
    usage = used.usage
    cores = f"{100 * usage.cpu_seconds / usage.core_seconds:.0f} %" if usage.core_seconds else ""
    return (
        used.task[0],
        str(used.task[1]),
        used.job_id,
        usage.state.lower(),
        str(usage.attempts),
        duration(usage.seconds or None),
        duration(usage.limit_seconds),
        _gb(usage.memory),
        _gb(usage.asked_memory),
        cores,
    )


def _gb(number: Optional[int]) -> str:
    return "" if number is None else f"{number / GB:.2f} GB"


def suggestion(stage: str, used: Sequence[Used]) -> str:
    """What would have been enough for all tasks of a stage that succeeded, or what was too little."""
    for each in used:
        name = TOO_LITTLE.get(each.usage.state)
        if name:
            asked = each.resources.get(name)
            too_little = f"{name}={asked} was too little for task {each.task[1]}"
            return f"{stage}: {too_little}; raise resources.{stage}.{name} in the cluster's config"
    done = [each for each in used if each.usage.state == "COMPLETED" and each.usage.seconds]
    if not done:
        return f"{stage}: no task has succeeded yet"
    enough = _enough(done)
    if not enough:
        return f"{stage}: what was asked for fits"
    return f"{stage}: {' '.join(enough)} would have been enough (resources.{stage} in the cluster's config)"


def _enough(done: Sequence[Used]) -> List[str]:
    """The resources that could be lower."""
    usages_ = [each.usage for each in done]
    seconds = rounded_up(TIME_MARGIN * max(usage.seconds for usage in usages_), TIME_STEPS)
    limits = [usage.limit_seconds for usage in usages_ if usage.limit_seconds is not None]
    parts = [f"time={format_time(seconds)}"] if not limits or seconds < min(limits) else []
    memory = max((usage.memory or 0 for usage in usages_), default=0) / GB
    asked = [usage.asked_memory for usage in usages_ if usage.asked_memory is not None]
    gigabytes = rounded_up(MEMORY_MARGIN * memory, MEMORY_STEPS)
    if memory and (not asked or gigabytes < min(asked) / GB):
        parts.append(f"mem_gb={gigabytes:g}")
    return parts + _enough_cores(done)


def _enough_cores(done: Sequence[Used]) -> List[str]:
    asked = [each.resources.get("cpus_per_task") for each in done if each.usage.core_seconds]
    if not asked or None in asked:
        return []
    busy = max(
        each.usage.cpu_seconds / each.usage.seconds / each.usage.processes
        for each in done
        if each.usage.core_seconds
    )
    cores = max(1, math.ceil(CORE_MARGIN * busy))
    return [f"cpus_per_task={cores}"] if cores < min(asked) else []


def rounded_up(value: float, steps: Sequence[Tuple[float, float]]) -> float:
    """The next multiple of the step that belongs to the value's size; at least one step."""
    step = next(step for limit, step in steps if value <= limit)
    return max(1, math.ceil(value / step)) * step

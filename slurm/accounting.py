"""Requested and used resources of jobs, from one sacct call."""

import math
import re
import shutil
from dataclasses import dataclass
from typing import Dict, Iterable, Mapping, Optional

from slurm.options import parse_time
from slurm.queue import SlurmError, run

FIELDS = "JobID State ElapsedRaw TimelimitRaw ReqMem MaxRSS TotalCPU AllocCPUS NNodes NTasks".split()
_MEMORY = re.compile(r"([\d.]+)([KMGTP]?)([nc]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50}


@dataclass
class Usage:
    """Usage of one job, over all its attempts (it may have been requeued)."""

    state: str = ""
    """Of the last attempt."""
    attempts: int = 0
    seconds: float = 0.0
    """Summed over all attempts, as are the next two."""
    cpu_seconds: float = 0.0
    core_seconds: float = 0.0
    """Elapsed seconds times allocated cores."""
    limit_seconds: Optional[float] = None
    """Of one attempt; None: no limit, or not known."""
    memory: Optional[int] = None
    """Bytes per node, an upper bound: the largest process times the processes of its node."""
    asked_memory: Optional[int] = None
    """Bytes per node."""
    processes: int = 1
    """Of its largest step."""


def usages(job_ids: Iterable[str], environment: Mapping[str, str]) -> Dict[str, Usage]:
    """Accounting records of jobs; {} without accounting."""
    wanted = sorted(set(job_ids))
    if not wanted or shutil.which("sacct", path=environment.get("PATH")) is None:
        return {}
    command = ["sacct", "--noheader", "--parsable2", "--duplicates", f"--format={','.join(FIELDS)}"]
    try:
        return parse_usages(run([*command, "--jobs", ",".join(wanted)], environment))
    except SlurmError:
        return {}


def parse_usages(lines: Iterable[str]) -> Dict[str, Usage]:
    """Job id -> usage, from sacct's lines: one for each attempt, each followed by its steps."""
    found: Dict[str, Usage] = {}
    for line in lines:
        values = dict(zip(FIELDS, line.split("|")))
        if len(values) < len(FIELDS):
            continue
        job_id, _, step = values["JobID"].partition(".")
        usage = found.setdefault(job_id, Usage())
        nodes = max(1, int(_number(values["NNodes"]) or 1))
        if step:
            processes, each = int(_number(values["NTasks"]) or 1), memory_bytes(values["MaxRSS"])
            usage.processes = max(usage.processes, processes)
            if each:
                usage.memory = max(usage.memory or 0, each * math.ceil(processes / nodes))
        else:
            _add_attempt(usage, values, nodes)
    return found


def _add_attempt(usage: Usage, values: Mapping[str, str], nodes: int) -> None:
    seconds, cores = _number(values["ElapsedRaw"]) or 0, _number(values["AllocCPUS"]) or 0
    usage.state = values["State"].split(" ")[0]  # "CANCELLED by 0"
    usage.attempts += 1
    usage.seconds += seconds
    usage.cpu_seconds += parse_time(values["TotalCPU"]) or 0
    usage.core_seconds += seconds * cores
    minutes = _number(values["TimelimitRaw"])
    usage.limit_seconds = None if minutes is None else 60 * minutes
    usage.asked_memory = asked_memory(values["ReqMem"], cores, nodes)


def asked_memory(text: str, cores: float, nodes: int) -> Optional[int]:
    """ReqMem per node: since Slurm 21.08 it is the job's total, earlier it ended in n (node) or c (core)."""
    found, unit = memory_bytes(text), text[-1:]
    if not found:
        return None
    return {"n": found, "c": round(found * cores / nodes)}.get(unit, found // nodes)


def memory_bytes(text: str) -> Optional[int]:
    """ "154247K" -> bytes; None if it is not a size."""
    found = _MEMORY.fullmatch(text)
    return round(float(found[1]) * _UNITS[found[2]]) if found else None


def _number(text: str) -> Optional[float]:
    """None for UNLIMITED, Partition_Limit and other words."""
    try:
        return float(text)
    except ValueError:
        return None

"""Checks of the partitions that jobs go to: their limits, and what they do to preempted jobs."""

from __future__ import annotations

import math
from typing import Dict, List, Mapping, Optional, Tuple

from launch.doctor.findings import FAIL, OK, WARN, Finding
from launch.stages import DISTRIBUTED
from slurm.options import parse_time
from slurm.queue import SlurmError, run
from slurm.site import ClusterConfig


def partition_names(cluster: ClusterConfig) -> List[str]:
    """The partitions that jobs go to; "" stands for the default one."""
    return (cluster.partition or "").split(",")


def partition_settings(name: str, environment: Mapping[str, str]) -> Dict[str, str]:
    """What `scontrol show partition` says of one; {} where it is unknown or may not be seen."""
    try:
        lines = run(["scontrol", "--oneliner", "show", "partition", *([name] if name else [])], environment)
    except SlurmError:
        return {}
    for line in lines:
        values = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if name or values.get("Default") == "YES":
            return values
    return {}


def check_partition(cluster: ClusterConfig, name: str, partition: Mapping[str, str]) -> List[Finding]:
    """A partition's state and its limits against what the stages ask for.

    Slurm takes jobs beyond these limits, unless the site says otherwise; they then wait for ever.
    """
    title = f"partition {partition.get('PartitionName', name)}".strip()
    if not partition:
        level, found = (FAIL, "unknown, or not for you") if name else (WARN, "none given, and no default one")
        return [Finding(level, title, found, "`sinfo --summarize` lists the partitions; see `partition`")]
    findings = []
    if partition.get("State") != "UP":
        findings.append(Finding(FAIL, title, f"its state is {partition.get('State')}", "jobs wait for ever"))
    for option, limit, asked in (("time", "MaxTime", "minutes"), ("nodes", "MaxNodes", "nodes")):
        most = limit_value(partition.get(limit, "UNLIMITED"))
        over = {
            stage: cluster.job_resources(stage)
            for stage in DISTRIBUTED
            if most is not None and getattr(cluster.job_resources(stage), asked) > most
        }
        if over:
            largest = max(over.values(), key=lambda resources: getattr(resources, asked))
            findings.append(
                Finding(
                    FAIL,
                    title,
                    f"{limit} is {partition[limit]}, but {', '.join(over)} "
                    f"ask{'s' * (len(over) == 1)} for {getattr(largest, option)}",
                    f"jobs would wait for ever: lower resources' {option}, or take another partition",
                )
            )
    for option, allowed in (("account", "AllowAccounts"), ("qos", "AllowQos")):
        value, names = getattr(cluster, option), partition.get(allowed, "ALL")
        if value and names != "ALL" and value not in names.split(","):
            findings.append(
                Finding(
                    FAIL,
                    title,
                    f"{allowed} is {names}, without {value}",
                    f"mend {option}, or take another partition",
                )
            )
    if not findings:
        shown = ("State", "MaxTime", "MaxNodes", "Nodes")
        facts = ", ".join(f"{key} {partition.get(key, '?')}" for key in shown)
        findings.append(Finding(OK, title, facts))
    return findings


def limit_value(text: str) -> Optional[int]:
    """A limit of Slurm's: a number, minutes of a time, None for no limit."""
    if text.isdecimal():
        return int(text)
    seconds = parse_time(text)
    return None if seconds is None else math.ceil(seconds / 60)


def check_preemption(
    settings: Mapping[str, str], partitions: Mapping[str, Mapping[str, str]]
) -> Tuple[List[Finding], Optional[int]]:
    """What becomes of preempted jobs, and how many seconds they have left."""
    kind = settings.get("PreemptType", "preempt/none")
    if kind in ("preempt/none", "(null)"):
        return [Finding(OK, "preemption", "none on this cluster")], None
    findings, graces = [], []
    for name, partition in partitions.items():
        mode = partition.get("PreemptMode", settings.get("PreemptMode", "?"))
        grace = limit_value(partition.get("GraceTime", "0")) or 0
        title = f"preemption{f' in {name}' if name else ''}"
        text = f"PreemptMode {mode}, GraceTime {grace} s ({kind})"
        if mode == "OFF":
            findings.append(Finding(OK, title, text))
            continue
        graces.append(grace)
        if kind == "preempt/qos":
            text += "; the GraceTime of a QOS counts beside it: sacctmgr show qos format=Name,GraceTime"
        if "CANCEL" in mode:
            findings.append(
                Finding(
                    WARN, title, text, "preempted jobs end for good: `make pipeline` again continues them"
                )
            )
        elif grace == 0 and "SUSPEND" not in mode:
            findings.append(
                Finding(
                    WARN,
                    title,
                    text,
                    "preempted training loses what it did since its last periodic save: save more often",
                )
            )
        else:
            findings.append(Finding(OK, title, text))
    return findings, min(graces, default=None)

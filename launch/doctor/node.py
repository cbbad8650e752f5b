"""What the probe's facts mean, node by node."""

from __future__ import annotations

import re
from typing import Callable, Dict, List, Tuple

from launch.doctor.findings import FAIL, OK, WARN, Finding
from launch.doctor.probing import Facts, Outcome, Probe
from launch.doctor.storage import check_files, check_save, check_shared
from launch.doctor.surroundings import (
    check_code,
    check_gpus,
    check_paths,
    check_python,
    check_shm,
    check_user_site,
)
from slurm.site import ClusterConfig

TROUBLE = (r"FATAL", r"(?i)error|fatal|denied|not found|no such|cannot|unable|killed|exceeded")
"""What tells most in what a program said, worst first."""
SKEW_WARN, SKEW_FAIL = 2.0, 60.0
BUSY = ("", "None", "Resources", "Priority", "BeginTime", "ReqNodeNotAvail")
"""Reasons to wait which pass by themselves."""


def check_nodes(outcome: Outcome, probe: Probe) -> List[Finding]:
    """All findings; equal ones of several nodes are one."""
    by_node: Dict[str, Facts] = {}
    for fact in outcome.facts:
        by_node.setdefault(fact["node"], {}).setdefault(fact["fact"], []).append(fact)
    by_node = {node: facts for node, facts in by_node.items() if "node" in facts}
    if not by_node:
        return [not_started(outcome)]
    nodes: Dict[Finding, List[str]] = {}
    for node, facts in sorted(by_node.items()):
        for finding in check_node(facts, outcome, probe):
            nodes.setdefault(finding, []).append(node)
    return setup_words(outcome) + [
        Finding(found.level, found.name, f"{found.found} (on {', '.join(names)})", found.advice)
        for found, names in nodes.items()
    ]


def not_started(outcome: Outcome) -> Finding:
    """Nothing was heard of the probe."""
    job = f"job {outcome.job}" if outcome.job else "the probe"
    if outcome.status is None and outcome.state == "PENDING":
        busy = outcome.reason.split(",")[0] in BUSY
        return Finding(
            WARN if busy else FAIL,
            "probe job",
            f"{job} did not start in time: PENDING "
            f"({outcome.reason or 'no reason given'}); it is cancelled, nodes are not checked",
            "again with a longer TIMEOUT=, when the cluster is less busy"
            if busy
            else "such a job may wait for ever: Slurm's manual of squeue explains the reason",
        )
    own = [line for line in outcome.before if not line.startswith("srun: ")]
    said = telling(own or [line.replace("srun: error: ", "") for line in outcome.before])
    ended = "cancelled after the time-out" if outcome.status is None else f"exit status {outcome.status}"
    return Finding(
        FAIL,
        "probe job",
        f"{job} did not start: {said} ({ended})",
        "mend what Slurm says, or the site's setup lines",
    )


def setup_words(outcome: Outcome) -> List[Finding]:
    """What the site's setup lines printed: often the only trace of a module that does not exist."""
    said = [line for line in outcome.before if not line.startswith("srun: ")]
    if not said:
        return []
    return [
        Finding(WARN, "setup", f"its lines said: {telling(said)}", "look whether they do what they should")
    ]


def telling(lines: List[str]) -> str:
    """Of what a program said, the few lines that tell most: those of errors, else the last ones."""
    lines = [" ".join(line.split()) for line in lines]
    for pattern in TROUBLE:
        errors = [line for line in lines if re.search(pattern, line)]
        if errors:
            return " / ".join(errors[:3])[:500]
    return " / ".join(lines[-3:])[:500] or "nothing was said"


def check_node(facts: Facts, outcome: Outcome, probe: Probe) -> List[Finding]:
    """The findings on one node."""
    findings = [finding for look in CHECKS for finding in look(facts, probe)]
    return findings if "done" in facts else [*findings, not_ended(facts, outcome, probe.cluster)]


def check_clock(facts: Facts, probe: Probe) -> List[Finding]:
    """The node's clock against this host's."""
    told = [fact for named in facts.values() for fact in named]
    skew = max(fact["time"] - fact["arrived"] for fact in told)  # the one that was least on its way
    level = FAIL if abs(skew) > SKEW_FAIL else WARN if abs(skew) > SKEW_WARN else OK
    if level == OK:
        return [Finding(OK, "clock", f"less than {SKEW_WARN:g} s from this host's")]
    return [
        Finding(
            level,
            "clock",
            f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this host's",
            "file times and certificates mislead: tell the administrators (NTP)",
        )
    ]


def not_ended(facts: Facts, outcome: Outcome, cluster: ClusterConfig) -> Finding:
    """The node answered, but the probe in it broke off."""
    how = "cancelled after the time-out" if outcome.status is None else f"exit status {outcome.status}"
    said = telling([line for line in outcome.output if not line.startswith("srun: ")])
    if "python" in facts:
        return Finding(FAIL, "probe", f"broke off ({how}): {said}", "a longer TIMEOUT=, or more mem_gb")
    advice = (
        "see container.image, container.options and container.binds"
        if cluster.container.used
        else "the interpreter (`python`) and its libraries have to be there on the nodes too"
    )
    return Finding(FAIL, "python", f"the jobs' python did not start ({how}): {said}", advice)


CHECKS: Tuple[Callable[[Facts, Probe], List[Finding]], ...] = (
    check_clock,
    check_shared,
    check_python,
    check_code,
    check_user_site,
    check_paths,
    check_files,
    check_gpus,
    check_shm,
    check_save,
)

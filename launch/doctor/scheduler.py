"""Checks of the scheduler: would it take the jobs, and what does it do to them afterwards?"""

from __future__ import annotations

import getpass
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from launch import CODE
from launch.batch import Submission
from launch.doctor.findings import FAIL, OK, WARN, Finding
from launch.doctor.partition import (
    check_partition,
    check_preemption,
    limit_value,
    partition_names,
    partition_settings,
)
from launch.pipeline import from_folder
from launch.stages import DISTRIBUTED, all_tasks
from slurm.container import python_words
from slurm.options import Resources
from slurm.queue import SlurmError, run, slurm_settings
from slurm.site import ClusterConfig, Container
from textocvp.config.errors import UserError

ACCEPTANCE = "sbatch --test-only"
USUAL_JOBS = 25
"""Of a pipeline with three seeds, eight shards and four predictors."""


@dataclass(frozen=True)
class Limits:
    """What the scheduler grants a job that is to end."""

    grace: Optional[int] = None
    """Seconds that a preempted job has left; None: no preemption, or unknown."""
    findings: List[Finding] = field(default_factory=list)


def check_scheduler(cluster: ClusterConfig, root: Path, exp: Optional[Path]) -> Limits:
    """Ask Slurm; where it does not answer that is the only finding.

    Args:
        root: stands for EXP in the batch scripts.
        exp: an experiment whose number of tasks is held against the limits.
    """
    environment = cluster.slurm_environment()
    try:
        settings = slurm_settings(environment)
        partitions = {name: partition_settings(name, environment) for name in partition_names(cluster)}
    except SlurmError as error:
        return Limits(
            findings=[
                Finding(
                    FAIL,
                    "slurm",
                    f"does not answer: {error}",
                    "see slurm_conf, and whether this is a login node",
                )
            ]
        )
    findings = [
        Finding(
            OK, "slurm", f"{settings.get('SLURM_VERSION', '?')}, cluster {settings.get('ClusterName', '?')}"
        )
    ]
    findings += check_accounting(environment) + check_acceptance(cluster, root)
    for name, partition in partitions.items():
        findings += check_partition(cluster, name, partition)
    largest, jobs = planned_sizes(exp)
    findings += check_settings(cluster, settings, largest, jobs) + check_stop_seconds(cluster)
    findings += check_association(cluster, jobs, environment)
    preemption, grace = check_preemption(settings, partitions)
    return Limits(grace, findings + preemption)


def check_accounting(environment: Mapping[str, str]) -> List[Finding]:
    """Whether sacct answers, where it is there."""
    if shutil.which("sacct") is None:
        return []
    try:
        run(["sacct", "--noheader", "--allocations", "--starttime", "now"], environment)
    except SlurmError as error:
        return [
            Finding(
                WARN,
                "accounting",
                f"sacct says: {error}",
                "`make status` knows jobs only as long as slurmctld does (MinJobAge)",
            )
        ]
    return [Finding(OK, "accounting", "sacct answers")]


def check_association(cluster: ClusterConfig, jobs: int, environment: Mapping[str, str]) -> List[Finding]:
    """How many jobs this user may have queued at once, where the accounting says so."""
    if shutil.which("sacctmgr") is None:
        return []
    command = [
        "sacctmgr",
        "--noheader",
        "--parsable2",
        "show",
        "assoc",
        f"user={getpass.getuser()}",
        "format=Account,MaxSubmit",
        *([f"account={cluster.account}"] if cluster.account else []),
    ]
    try:
        rows = [line.split("|") for line in run(command, environment)]
    except SlurmError:  # told by check_accounting
        return []
    return [
        Finding(
            WARN,
            "MaxSubmitJobs",
            f"account {account} takes {most} of your jobs at once, a pipeline has {jobs}",
            "sbatch refuses the rest: submit stage by stage",
        )
        for account, most in rows
        if most.isdecimal() and int(most) < jobs
    ]


def check_acceptance(cluster: ClusterConfig, root: Path) -> List[Finding]:
    """`sbatch --test-only` with each stage's real batch script; equal answers are one finding."""
    answers: Dict[Tuple[bool, str], List[str]] = {}
    by_resources: Dict[Resources, List[str]] = {}
    for stage in DISTRIBUTED:
        by_resources.setdefault(cluster.job_resources(stage), []).append(stage)
    for stages in by_resources.values():
        answers.setdefault(test_submission(cluster, root, stages[0]), []).extend(stages)
    findings = []
    for (accepted, text), stages in answers.items():
        named = "all stages" if len(stages) == len(DISTRIBUTED) else ", ".join(stages)
        advice = "" if accepted else "mend partition, account, qos, constraint, extra_sbatch or resources"
        findings.append(Finding(OK if accepted else FAIL, ACCEPTANCE, f"{named}: {text}", advice))
    return findings


def test_submission(cluster: ClusterConfig, root: Path, stage: str) -> Tuple[bool, str]:
    """Whether Slurm would take a job of a stage, and its own words where it would not."""
    from slurm.executor import sbatch_text

    try:
        python_words(cluster, CODE, root)
    except (UserError, OSError):  # told among the checks of this host; sbatch does not look at it
        cluster = cluster.model_copy(update={"container": Container(), "python": "python3"})
    about = {"revision": "", "dirty": False, "image": ""}
    script = sbatch_text(cluster, Submission(cluster, root, CODE, about).array_job(stage, [1]))
    try:
        run(["sbatch", "--test-only"], cluster.slurm_environment(), text=script)
    except SlurmError as error:
        lines = [line.strip() for line in error.output.splitlines() if line.strip()]
        return False, " / ".join(line.replace("sbatch: error: ", "") for line in lines) or "refused"
    return True, "accepted"


def planned_sizes(exp: Optional[Path]) -> Tuple[int, int]:
    """The highest array index and the number of tasks of an experiment, or what is usual."""
    if exp is None:
        return USUAL_JOBS, USUAL_JOBS
    tasks = all_tasks(from_folder(exp))
    return max(task.index for task in tasks), len(tasks)


def check_settings(
    cluster: ClusterConfig, settings: Mapping[str, str], largest: int, jobs: int
) -> List[Finding]:
    """Limits of the whole cluster, and what becomes of jobs whose node or dependency fails."""
    fewer = "ask for fewer shards, seeds or predictors"
    findings = [
        check_number(settings, "MaxArraySize", largest + 1, fewer),
        check_number(settings, "MaxJobCount", jobs, "submit stage by stage"),
    ]
    if "no-requeue" in cluster.extra_sbatch:
        findings.append(
            Finding(
                WARN,
                "JobRequeue",
                "extra_sbatch.no-requeue: jobs are not queued again",
                "preempted jobs and those of a failed node are lost: remove it",
            )
        )
    else:
        requeue = settings.get("JobRequeue", "1")
        asked = "" if requeue == "1" else ", but jobs ask for it"
        findings.append(Finding(OK, "JobRequeue", f"{requeue}{asked}"))
    kills = "kill_invalid_depend" in settings.get("DependencyParameters", "")
    findings.append(Finding(OK, "kill_invalid_depend", "set" if kills else "not set, but jobs ask for it"))
    return findings + [Finding(OK, "KillWait", f"{settings.get('KillWait', '?')} between TERM and KILL")]


def check_number(settings: Mapping[str, str], name: str, needed: int, advice: str) -> Finding:
    """One of Slurm's numbers against what is needed."""
    text = settings.get(name, "?")
    most = limit_value(text)
    if most is not None and most < needed:
        return Finding(FAIL, name, f"{text}, but {needed} are needed", advice)
    return Finding(OK, name, text)


def check_stop_seconds(cluster: ClusterConfig) -> List[Finding]:
    """FAIL where a stage's limit is so short that its jobs are stopped as soon as they start."""
    short = [
        stage for stage in DISTRIBUTED if cluster.job_resources(stage).minutes * 60 <= cluster.stop_seconds
    ]
    if not short:
        return []
    return [
        Finding(
            FAIL,
            "stop_seconds",
            f"{cluster.stop_seconds} s are no less than the whole limit of {', '.join(short)}",
            "raise resources' time, or lower stop_seconds",
        )
    ]

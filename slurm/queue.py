"""What the scheduler says of jobs: one squeue and one sacct call, however many jobs; works without sacct."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import Dict, Iterable, List, Mapping, Sequence

from textocvp.config.errors import UserError

PENDING = "PENDING"
ACTIVE = (
    PENDING,
    "RUNNING",
    "CONFIGURING",
    "COMPLETING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESV_DEL_HOLD",
    "SPECIAL_EXIT",
    "SIGNALING",
    "STAGE_OUT",
    "SUSPENDED",
    "STOPPED",
    "RESIZING",
)
"""States of a job that waits (held ones too), runs, or is about to do so again."""
SECONDS = 30


@dataclass(frozen=True)
class JobState:
    """One job, or one element of an array."""

    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, NODE_FAIL, OUT_OF_MEMORY, ..."""
    reason: str = ""
    """Why it is pending."""
    node: str = ""
    exit_code: str = ""
    """code:signal of a job that has ended."""

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ACTIVE


def job_states(job_ids: Iterable[str], environment: Mapping[str, str]) -> Dict[str, JobState]:
    """The state of each job that the scheduler still knows.

    Args:
        environment: variables that reach the cluster (SLURM_CONF), on top of this process's.
    """
    wanted = set(job_ids)
    if not wanted:
        return {}
    states = queued_states(wanted, environment)
    forgotten = sorted(wanted - set(states))
    if forgotten and shutil.which("sacct"):
        states.update(accounted_states(forgotten, environment))
    return {job_id: state for job_id, state in states.items() if job_id in wanted}


def queued_states(job_ids: Iterable[str], environment: Mapping[str, str]) -> Dict[str, JobState]:
    """The jobs that slurmctld remembers of these and of their arrays, whoever submitted them."""
    arrays = sorted({job_id.split("_")[0] for job_id in job_ids})
    command = [
        "squeue",
        "--noheader",
        "--array",
        "--states=all",
        f"--jobs={','.join(arrays)}",
        "--Format=JobArrayID:|,State:|,Reason:|,NodeList:|,exit_code:|",
    ]
    try:
        lines = run(command, environment)
    except subprocess.CalledProcessError as error:
        if "Invalid job id" not in error.stderr:
            raise
        return {}
    states = {}
    for line in lines:
        job_id, state, reason, node, code = (line.split("|") + [""] * 4)[:5]
        job = JobState(state, reason if state == PENDING else "", node)
        states[job_id] = job if job.active else replace(job, exit_code=exit_code(code))
    return states


def exit_code(status: str) -> str:
    """A process's wait status as sacct writes it, code:signal; "" where it is none."""
    return f"{int(status) >> 8}:{int(status) & 0x7F}" if status.isdigit() else ""


def accounted_states(job_ids: Iterable[str], environment: Mapping[str, str]) -> Dict[str, JobState]:
    """Jobs that only the accounting remembers; {} where there is none, or it does not answer."""
    command = [
        "sacct",
        "--noheader",
        "--parsable2",
        "--allocations",
        "--format=JobID,State,NodeList,ExitCode",
    ]
    try:
        lines = run([*command, "--jobs", ",".join(job_ids)], environment)
    except (OSError, subprocess.SubprocessError):
        return {}
    states = {}
    for line in lines:
        job_id, state, node, code = (line.split("|") + [""] * 3)[:4]
        node = "" if node == "None assigned" else node
        states[job_id] = JobState(state.split(" ")[0], "", node, code)  # "CANCELLED by 0"
    return states


def slurm_settings(environment: Mapping[str, str]) -> Dict[str, str]:
    """What `scontrol show config` says: MaxArraySize, PreemptMode, KillWait, ..."""
    pairs = (line.split("=", 1) for line in run(["scontrol", "show", "config"], environment) if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def cancel(job_ids: Iterable[str], environment: Mapping[str, str]) -> None:
    """Cancel jobs; those that have ended meanwhile do not matter.

    CalledProcessError: some still wait or run; whoever took them for cancelled would submit them twice.
    """
    job_ids = list(job_ids)
    if not job_ids:
        return
    try:
        run(["scancel", *job_ids], environment)
    except subprocess.CalledProcessError:
        states = job_states(job_ids, environment).values()
        if any(state.active and state.state != "COMPLETING" for state in states):
            raise


def attached(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program on this terminal; returns its exit status, UserError where there is no such program."""
    try:
        return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
    except FileNotFoundError:
        raise UserError(f"{command[0]}: no such program on this machine") from None


def submitted(command: Sequence[str], environment: Mapping[str, str], told: str) -> int:
    """Run `sbatch --parsable`, with --wait to the job's end; returns its exit status.

    Args:
        told: printed once there is a job, whose id takes the place of {}.
    """
    try:
        with subprocess.Popen(
            command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
        ) as program:
            job = program.stdout.readline().strip().split(";")[0]
            if job:
                print(told.replace("{}", job), flush=True)
            return program.wait()
    except FileNotFoundError:
        raise UserError(f"{command[0]}: no such program on this machine") from None


def run(command: List[str], environment: Mapping[str, str]) -> List[str]:
    """Output lines of one of Slurm's programs."""
    result = subprocess.run(
        command,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return [line for line in result.stdout.splitlines() if line.strip()]

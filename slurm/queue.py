"""States of jobs from one squeue and one sacct call, for any number of jobs; works without sacct."""

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from typing import Dict, Iterable, List, Mapping, Optional, Sequence

from textocvp.files import UserError

PENDING, RUNNING = "PENDING", "RUNNING"
ACTIVE = frozenset(
    (
        *(PENDING, RUNNING, "CONFIGURING", "COMPLETING", "SIGNALING", "STAGE_OUT", "SUSPENDED", "STOPPED"),
        *("REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "RESIZING"),
    )
)
"""States of a job that is pending (or held), running, or about to run again."""
SECONDS = 30
"""Timeout of Slurm's programs (seconds)."""
MISSING = "{}: not found on this machine's PATH"


class SlurmError(UserError):
    """A program of Slurm's is missing, failed or did not answer; the message is the first line it printed."""

    def __init__(self, program: str, output: str) -> None:
        self.program, self.output = program, output
        """`output`: everything on its standard error."""
        super().__init__(next(iter(output.strip().splitlines()), f"{program} failed"))


@dataclass(frozen=True)
class JobState:
    """One job, or one element of an array."""

    state: str
    """Slurm: PENDING, RUNNING, COMPLETED, FAILED, CANCELLED, TIMEOUT, NODE_FAIL, OUT_OF_MEMORY, ..."""
    reason: str = ""
    """Why it is pending."""
    node: str = ""
    exit_code: str = ""
    """code:signal of a job that has ended."""

    @property
    def active(self) -> bool:
        """Whether it is pending or running."""
        return self.state in ACTIVE


def job_states(job_ids: Iterable[str], environment: Mapping[str, str]) -> Dict[str, JobState]:
    """The state of each job that the scheduler still knows.

    Args:
        environment: variables that select the cluster (SLURM_CONF), added to this process's.
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
    """These jobs and their arrays, as far as slurmctld knows them, of any user."""
    jobs = f"--jobs={','.join(sorted({job_id.split('_')[0] for job_id in job_ids}))}"
    columns = "--Format=JobArrayID:|,State:|,Reason:|,NodeList:|,exit_code:|"
    try:
        lines = run(["squeue", "--noheader", "--array", "--states=all", jobs, columns], environment)
    except SlurmError as error:
        if "Invalid job id" not in error.output:
            raise
        return {}
    states = {}
    for line in lines:
        job_id, state, reason, node, code = (line.split("|") + [""] * 4)[:5]
        job = JobState(state, reason if state == PENDING else "", node)
        states[job_id] = job if job.active else replace(job, exit_code=exit_code(code))
    return states


def exit_code(status: str) -> str:
    """A process's wait status as sacct writes it, code:signal; "" where there is none."""
    return f"{int(status) >> 8}:{int(status) & 0x7F}" if status.isdigit() else ""


def accounted_states(job_ids: Iterable[str], environment: Mapping[str, str]) -> Dict[str, JobState]:
    """Jobs that only the accounting knows; {} if there is none or it does not answer."""
    command = "sacct --noheader --parsable2 --allocations --format=JobID,State,NodeList,ExitCode".split()
    try:
        lines = run([*command, "--jobs", ",".join(job_ids)], environment)
    except SlurmError:
        return {}
    states = {}
    for line in lines:
        job_id, state, node, code = (line.split("|") + [""] * 3)[:4]
        node = "" if node == "None assigned" else node
        states[job_id] = JobState(state.split(" ")[0], "", node, code)  # "CANCELLED by 0"
    return states


def slurm_settings(environment: Mapping[str, str]) -> Dict[str, str]:
    """Values of `scontrol show config`: MaxArraySize, PreemptMode, KillWait, ..."""
    pairs = (line.split("=", 1) for line in run(["scontrol", "show", "config"], environment) if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def cancel(job_ids: Iterable[str], environment: Mapping[str, str]) -> None:
    """Cancel jobs; jobs that have ended meanwhile are ignored.

    Raises SlurmError if some are still pending or running; resubmitting them would run them twice.
    """
    job_ids = list(job_ids)
    if not job_ids:
        return
    try:
        run(["scancel", *job_ids], environment)
    except SlurmError:
        states = job_states(job_ids, environment).values()
        if any(state.active and state.state != "COMPLETING" for state in states):
            raise


def attached(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program on this terminal; returns its exit status, SlurmError if it is not installed."""
    try:
        return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode
    except FileNotFoundError:
        raise SlurmError(command[0], MISSING.format(command[0])) from None


def run(command: Sequence[str], environment: Mapping[str, str], text: Optional[str] = None) -> List[str]:
    """Output lines of one of Slurm's programs; SlurmError if it fails.

    Args:
        environment: added to this process's.
        text: its standard input.
    """
    program, environment = command[0], {**os.environ, **environment}
    try:
        result = subprocess.run(
            command, env=environment, check=True, capture_output=True, text=True, input=text, timeout=SECONDS
        )
    except FileNotFoundError:
        raise SlurmError(program, MISSING.format(program)) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(program, f"{program}: no answer in {SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        raise SlurmError(program, error.stderr or f"{program}: exit status {error.returncode}") from None
    except OSError as error:
        raise SlurmError(program, f"{program}: {error.strerror}") from None
    return [line for line in result.stdout.splitlines() if line.strip()]

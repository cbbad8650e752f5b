"""Queries to a cluster before jobs are submitted, and one short job that is waited for."""

import contextlib
import getpass
import logging
import math
import os
import re
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from subprocess import DEVNULL, PIPE, STDOUT
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from slurm.options import Resources, outside_of_a_job, parse_time
from slurm.queue import SlurmError, run

log = logging.getLogger(__name__)
POLL_SECONDS, ASK_SECONDS = 0.1, 2.0
PASSING = ("", "None", "Resources", "Priority", "BeginTime", "ReqNodeNotAvail")
"""Pending reasons that resolve without intervention."""
TROUBLE = (r"FATAL", r"(?i)error|fatal|denied|not found|no such|cannot|unable|killed|exceeded")
"""Patterns of the most informative lines of a program's output, in this order."""


@dataclass
class Outcome:
    """The outcome of a job."""

    before: List[str] = field(default_factory=list)
    """Output before it started: of srun and of the site's setup lines."""
    lines: List[Tuple[float, str]] = field(default_factory=list)
    """Output after that, each line with the time.time() of its arrival."""
    status: Optional[int] = None
    """Exit status; None: cancelled after the timeout."""
    job_id: str = ""
    state: str = ""
    """Slurm's last answer before the job started: PENDING, RUNNING."""
    reason: str = ""
    """Why it is pending."""

    @property
    def ended(self) -> str:
        """How it ended."""
        return "cancelled after the timeout" if self.status is None else f"exit status {self.status}"


def run_probe(
    command: Sequence[str],
    environment: Mapping[str, str],
    timeout: float,
    started: Callable[[str], bool],
    job_name: str = "",
) -> Outcome:
    """Run a command, which may wait in a queue, and collect its output; leaves nothing behind.

    Args:
        environment: variables of the command on top of this process's.
        timeout: seconds until it has started, and again until it has ended.
        started: whether a line shows that it has started.
        job_name: unique name of the job where the command is srun, by which it is found and cancelled;
            "": it is a program on this machine.
    """
    with outside_of_a_job():
        own = {**os.environ, **environment}
    process = subprocess.Popen(
        command, env=own, stdin=DEVNULL, stdout=PIPE, stderr=STDOUT, errors="replace", start_new_session=True
    )
    outcome = Outcome()

    def read() -> None:
        for line in process.stdout or ():
            if outcome.lines or started(line):
                outcome.lines.append((time.time(), line.rstrip()))
            elif line.strip():
                outcome.before.append(line.rstrip())

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    since, running, asked = time.monotonic(), False, 0.0
    try:
        while process.poll() is None and time.monotonic() - since <= timeout:
            if not running and (outcome.lines or outcome.state == "RUNNING"):
                since, running = time.monotonic(), True
            if job_name and not outcome.lines and time.monotonic() - asked > ASK_SECONDS:
                asked = time.monotonic()
                _ask(outcome, job_name, environment)
            time.sleep(POLL_SECONDS)
        outcome.status = process.returncode
    finally:
        if process.poll() is None:
            if job_name:
                subprocess.run(["scancel", f"--name={job_name}"], env=own, check=False)
            for number in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(timeout=5)
    reader.join(timeout=5)
    return outcome


def _ask(outcome: Outcome, job_name: str, environment: Mapping[str, str]) -> None:
    """Query Slurm about the job and log changes; errors are ignored."""
    try:
        lines = run(["squeue", "--noheader", "--name", job_name, "--format=%i|%T|%r"], environment)
    except SlurmError:
        return
    found = lines[0].split("|")[:3] if lines else []
    if len(found) < 3 or found == [outcome.job_id, outcome.state, outcome.reason]:
        return
    outcome.job_id, outcome.state, outcome.reason = found
    reason = f" ({outcome.reason})" if outcome.state == "PENDING" else ""
    log.info("waiting for job %s: %s%s", outcome.job_id, outcome.state, reason)


def telling(lines: Sequence[str]) -> str:
    """The few most informative lines of a program's output: its errors, else its last lines."""
    lines = [" ".join(line.replace("srun: error: ", "").split()) for line in lines]
    for pattern in TROUBLE:
        errors = [line for line in lines if re.search(pattern, line)]
        if errors:
            return " / ".join(errors[:3])[:500]
    return " / ".join(lines[-3:])[:500] or "no output"


def partition(name: str, environment: Mapping[str, str]) -> Dict[str, str]:
    """`scontrol show partition` of a partition or the default one; {} if unknown or not visible."""
    command = ["scontrol", "--oneliner", "show", "partition", *([name] if name else [])]
    try:
        lines = run(command, environment)
    except SlurmError:
        return {}
    found = [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]
    return next((values for values in found if name or values.get("Default") == "YES"), {})


def limit(text: str) -> float:
    """A limit as Slurm writes it: a number, or a time in minutes; infinite for anything else."""
    if text.isdecimal():
        return int(text)
    seconds = parse_time(text)
    return math.inf if seconds is None else math.ceil(seconds / 60)


def partition_problems(
    values: Mapping[str, str], account: Optional[str], qos: Optional[str], kinds: Mapping[str, Resources]
) -> List[str]:
    """Why a partition (see `partition`) will not run some kinds of jobs, which Slurm may still accept."""
    problems = [] if values.get("State") == "UP" else [f"State is {values.get('State')}, expected UP"]
    for key, unit in (("MaxTime", "minutes"), ("MaxNodes", "nodes")):
        asked: Dict[str, int] = {kind: getattr(resources, unit) for kind, resources in kinds.items()}
        over = [kind for kind in asked if asked[kind] > limit(values.get(key, ""))]
        if over:
            most = max(asked[kind] for kind in over)
            problems.append(f"{key} is {values[key]}, but {most} {unit} are requested: {', '.join(over)}")
    for key, option, own in (("AllowAccounts", "account", account), ("AllowQos", "qos", qos)):
        names = values.get(key, "ALL")
        if own and names != "ALL" and own not in names.split(","):
            problems.append(f"{key} is {names}, without {option} {own}")
    return problems


def refusal(command: Sequence[str], environment: Mapping[str, str], text: Optional[str] = None) -> str:
    """The error of a Slurm program in one line; "" if it succeeds."""
    try:
        run(command, environment, text)
    except SlurmError as error:
        lines = [line.replace(f"{command[0]}: error: ", "").strip() for line in error.output.splitlines()]
        return " / ".join(line for line in lines if line)
    return ""


def max_submit_jobs(account: Optional[str], environment: Mapping[str, str]) -> List[Tuple[str, int]]:
    """Accounts of this user that limit the number of queued jobs; [] if accounting does not answer."""
    command = ["sacctmgr", "--noheader", "--parsable2", "show", "assoc", f"user={getpass.getuser()}"]
    command += ["format=Account,MaxSubmit", *([f"account={account}"] if account else [])]
    try:
        rows = [line.split("|") for line in run(command, environment)]
    except SlurmError:
        return []
    return [(name, int(most)) for name, most in rows if most.isdecimal()]

"""Questions to a cluster before jobs are submitted, and one short job: waited for, never left behind."""

from __future__ import annotations

import getpass
import logging
import math
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from slurm.options import outside_of_a_job, parse_time
from slurm.queue import SlurmError, run

log = logging.getLogger(__name__)
POLL_SECONDS = 0.1
ASK_SECONDS = 2.0


class Line(NamedTuple):
    """A line that the job printed."""

    arrived: float
    """time.time() here."""
    text: str


@dataclass
class Outcome:
    """What came of the job."""

    lines: List[Line] = field(default_factory=list)
    """Standard output and standard error, srun's own messages too; no empty lines."""
    status: Optional[int] = None
    """Exit status; None: cancelled after the timeout."""
    job_id: str = ""
    state: str = ""
    """Slurm's last answer before the job printed its first line of its own: PENDING, RUNNING."""
    reason: str = ""
    """Why it is pending."""


def run_probe(
    command: Sequence[str],
    environment: Mapping[str, str],
    timeout: float,
    started: Callable[[str], bool],
    job_name: str = "",
) -> Outcome:
    """Run a command, which may have to wait in a queue, and collect what it prints.

    Args:
        environment: variables of the command on top of this process's.
        timeout: seconds until it has started, and again until it has ended.
        started: whether a line shows that it has started.
        job_name: unique name of the job where the command is srun, by which it is found and cancelled;
            "": it is a program on this machine.
    """
    with outside_of_a_job():
        variables = {**os.environ, **environment}
    process = subprocess.Popen(
        command,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    outcome, running = Outcome(), threading.Event()
    reader = threading.Thread(target=_read, args=(process, outcome, started, running), daemon=True)
    reader.start()
    try:
        _wait(process, outcome, timeout, running, job_name, environment)
    finally:
        _end(process, job_name, environment)
    reader.join(timeout=5)
    return outcome


def _read(
    process: "subprocess.Popen[str]",
    outcome: Outcome,
    started: Callable[[str], bool],
    running: threading.Event,
) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip():
            outcome.lines.append(Line(time.time(), line.rstrip()))
        if started(line):
            running.set()


def _wait(
    process: "subprocess.Popen[str]",
    outcome: Outcome,
    timeout: float,
    running: threading.Event,
    job_name: str,
    environment: Mapping[str, str],
) -> None:
    """Until the process has ended or its time is over."""
    since, is_running, asked = time.monotonic(), False, 0.0
    while process.poll() is None:
        now = time.monotonic()
        if not is_running and (running.is_set() or outcome.state == "RUNNING"):
            since, is_running = now, True
        if now - since > timeout:
            return
        if job_name and not running.is_set() and now - asked > ASK_SECONDS:
            asked = now
            _ask(outcome, job_name, environment)
        time.sleep(POLL_SECONDS)
    outcome.status = process.returncode


def _ask(outcome: Outcome, job_name: str, environment: Mapping[str, str]) -> None:
    """Ask Slurm about the job and log what has changed; no answer changes nothing."""
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


def _end(process: "subprocess.Popen[str]", job_name: str, environment: Mapping[str, str]) -> None:
    """Leave neither a job nor a process behind, whatever has happened."""
    if process.poll() is not None:
        return
    if job_name:
        subprocess.run(["scancel", f"--name={job_name}"], env={**os.environ, **environment}, check=False)
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=5)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def partition(name: str, environment: Mapping[str, str]) -> Dict[str, str]:
    """What `scontrol show partition` says of one, or of the default one; {} where unknown or not visible."""
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


def partition_problems(values: Mapping[str, str], account: Optional[str], qos: Optional[str]) -> List[str]:
    """Why a partition (`values` as `partition` gives them) does not take jobs of an account and a QOS."""
    problems = [] if values.get("State") == "UP" else [f"State is {values.get('State')}, expected UP"]
    for key, option, own in (("AllowAccounts", "account", account), ("AllowQos", "qos", qos)):
        names = values.get(key, "ALL")
        if own and names != "ALL" and own not in names.split(","):
            problems.append(f"{key} is {names}, without {option} {own}")
    return problems


def preempts(settings: Mapping[str, str]) -> bool:
    """Whether jobs of a cluster are ever preempted."""
    return settings.get("PreemptType", "(null)") not in ("preempt/none", "(null)")


def preemption(settings: Mapping[str, str], values: Mapping[str, str]) -> Tuple[str, str, int]:
    """PreemptType, PreemptMode and GraceTime in seconds of a partition."""
    grace = limit(values.get("GraceTime", "0"))
    mode = values.get("PreemptMode", settings.get("PreemptMode", "?"))
    return settings["PreemptType"], mode, 0 if math.isinf(grace) else int(grace)


def refusal(command: Sequence[str], environment: Mapping[str, str], text: Optional[str] = None) -> str:
    """What one of Slurm's programs says when it fails, in one line; "" where it succeeds."""
    try:
        run(command, environment, text)
    except SlurmError as error:
        lines = [line.replace(f"{command[0]}: error: ", "").strip() for line in error.output.splitlines()]
        return " / ".join(line for line in lines if line)
    return ""


def max_submit_jobs(account: Optional[str], environment: Mapping[str, str]) -> List[Tuple[str, int]]:
    """Accounts of this user that limit how many jobs may be queued at once; [] where accounting is silent."""
    words = ["show", "assoc", f"user={getpass.getuser()}", "format=Account,MaxSubmit"]
    words += [f"account={account}"] if account else []
    try:
        rows = [
            line.split("|") for line in run(["sacctmgr", "--noheader", "--parsable2", *words], environment)
        ]
    except SlurmError:
        return []
    return [(name, int(most)) for name, most in rows if most.isdecimal()]

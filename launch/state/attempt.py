"""One attempt at a task: its name, rank 0's decision, signals, rank variables, progress."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path
from types import FrameType
from typing import Callable, Dict, Mapping, Optional

from launch.state import ledger
from launch.state.manifest import output_files
from launch.state.task import Task
from textocvp.config.job import ATTEMPT_FILE, ATTEMPT_VARIABLE, TERM_WAIT_VARIABLE
from textocvp.files import UserError, read_json, write_json

PATIENCE = 600.0
"""Seconds that a rank waits for rank 0's decision."""
RUN, SKIP = "run", "skip"
MAX_STARTS = 3
"""Starts without progress after which a job ends."""
STOPPED_CODES = (128 + signal.SIGINT, 128 + signal.SIGUSR2, 128 + signal.SIGTERM)
"""Exit codes of a command that saved its state and stopped on a signal."""
FIRST_PORT, PORTS = 20000, 12000
"""Below 32768, the start of Linux's ephemeral ports."""


def job_name() -> str:
    """The scheduler's name of this job: "12", "12_3" in an array, "" without a scheduler."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return ""
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ.get("SLURM_JOB_ID", "")


def attempt_name() -> str:
    """Unique per attempt at a task, and the same on all of its ranks."""
    if "SUBMITIT_EXECUTOR" in os.environ:
        return f"{os.environ.get('SLURM_JOB_ID', '')}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"
    return os.environ.get(ATTEMPT_VARIABLE, str(os.getpid()))


def announce(folder: Path, decision: str) -> None:
    """Announce to the other ranks whether to RUN or SKIP the command, and mark this attempt as the newest."""
    write_json(folder / ATTEMPT_FILE, {"attempt": attempt_name(), "word": decision})


def await_decision(folder: Path) -> str:
    """The decision that rank 0 announced for this attempt."""
    path, deadline = folder / ATTEMPT_FILE, time.time() + PATIENCE
    while time.time() < deadline:
        # during a rename a network file system may show neither the old file nor the new one
        with contextlib.suppress(UserError, OSError):
            announced = read_json(path)
            if announced["attempt"] == attempt_name():
                return str(announced["word"])
        time.sleep(0.1)
    raise TimeoutError(f"{path}: rank 0 did not decide within {PATIENCE:.0f} s whether to run")


def check_progress(root: Path, task: Task, saved: str) -> None:
    """UserError if the job was started MAX_STARTS times without new output in between.

    With progress, any number of restarts is normal.

    Args:
        saved: from `last_saved`.
    """
    job = job_name()
    starts = [
        event.get("saved")
        for event in ledger.read_ledger(root)
        if event["event"] == ledger.STARTED
        and (event["stage"], event["task"]) == task.id
        and event["job_id"] == job
    ]
    if job and starts[-MAX_STARTS:] == [saved] * MAX_STARTS:
        raise UserError(
            f"{task.name} was started {MAX_STARTS} times without saving anything new; its time limit or "
            f'the time between preemptions is too short: submit it again with more time (RES="time=...")'
        )


def last_saved(root: Path, task: Task) -> str:
    """What a task has saved so far: its newest state (named by step) and its number of outputs.

    File times are not used, because the clocks of two nodes differ.
    """
    folders = [root / name for name in task.leftovers if Path(name).name == "resume"]
    states = [path.name for folder in folders for path in folder.glob("step_*")]
    return f"{max(states, default='no state')}, {len(output_files(root, task))} outputs"


def own_signals() -> None:
    """Replace submitit's signal handlers: they requeue from inside the job, and on rank 0 alone.

    Training installs its own; a stage without handlers ignores USR2 and waits on TERM.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the parent shell may ignore it
    signal.signal(signal.SIGTERM, leave_to_scheduler(os.getpid()) if job_name() else signal.SIG_DFL)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def leave_to_scheduler(owner: int) -> Callable[[int, Optional[FrameType]], None]:
    """Handler of TERM: wait to be killed (scancel) or requeued.

    A preempted job that exits during its grace time counts as failed and is not requeued.
    """

    def wait(number: int, frame: Optional[FrameType]) -> None:
        if os.getpid() != owner:  # a child that inherited this handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises if its workers have exited
        deadline = time.monotonic() + float(os.environ.get(TERM_WAIT_VARIABLE, "0"))
        while time.monotonic() < deadline:
            time.sleep(0.2)
        raise SystemExit(128 + number)

    return wait


def was_stopped(error: BaseException) -> bool:
    """Whether the command stopped on a signal after saving its state."""
    code = error.code if isinstance(error, SystemExit) else None
    return code in STOPPED_CODES or isinstance(error, KeyboardInterrupt)


def local_rank_variables(rank: int, size: int, port: int) -> Dict[str, str]:
    """Environment variables for rank `rank` of `size` processes on this machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def slurm_rank_variables(environment: Mapping[str, str]) -> Dict[str, str]:
    """Rank variables from srun's variables.

    The master's address is numeric, because node names may not resolve; its port is derived from the job
    id, so that jobs on the same node do not collide.
    """
    size, port = int(environment["SLURM_NTASKS"]), FIRST_PORT + int(environment["SLURM_JOB_ID"]) % PORTS
    return {
        **local_rank_variables(int(environment["SLURM_PROCID"]), size, port),
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(size // int(environment.get("SLURM_JOB_NUM_NODES", "1"))),
        "MASTER_ADDR": environment.get("SLURM_LAUNCH_NODE_IPADDR", "127.0.0.1"),
    }


def set_rank_variables() -> int:
    """Set this process's rank variables if the scheduler or the local runner has not; returns the rank."""
    if "SLURM_PROCID" in os.environ and "SUBMITIT_EXECUTOR" in os.environ:
        os.environ.update(slurm_rank_variables(os.environ))
    elif "RANK" not in os.environ:
        os.environ.update(local_rank_variables(0, 1, free_port()))
    return int(os.environ["RANK"])


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""A job's resources and environment, as options of sbatch and srun and as lines of its batch script."""

import contextlib
import math
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from pydantic import Field, field_validator

from textocvp.config.schema import Settings, shown

_TIME = re.compile(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+(?:\.\d+)?))?")


def parse_time(text: str) -> Optional[float]:
    """Seconds of a time as Slurm writes it; None for UNLIMITED and anything else that is not a time.

    Slurm's forms: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].
    """
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    days, *parts = found.groups()
    if days is None and parts[2] is None:  # minutes first
        parts = ["0", *parts[:2]]
    hours, minutes, seconds = (float(part or 0) for part in parts)
    return ((float(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


def format_time(seconds: float) -> str:
    """[days-]hours:minutes:seconds, as sbatch reads it."""
    days, rest = divmod(int(seconds), 24 * 3600)
    text = f"{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}-{text}" if days else text


class Resources(Settings):
    """Resources of one job, or of one element of an array."""

    nodes: int = Field(1, ge=1)
    """Machines."""
    gpus_per_node: int = Field(0, ge=0)
    """GPUs on each."""
    tasks_per_node: Optional[int] = Field(None, ge=1)
    """Processes (ranks) on each; null: one per GPU, at least one."""
    cpus_per_task: Optional[int] = Field(None, ge=1)
    """Cores of each process; null without a scheduler: running tasks share the machine's cores."""
    mem_gb: Optional[float] = Field(None, ge=0.1)
    """Memory per node in GB; null: the site's default."""
    time: str = "01:00:00"
    """Limit, [days-]hours:minutes:seconds."""

    @field_validator("time", mode="before")
    @classmethod
    def _check_time(cls, time: Any) -> Any:
        if isinstance(time, str) and time.count(":") == 2 and parse_time(time) is not None:
            return time
        expected = '[days-]hours:minutes:seconds in quotes, for example "24:00:00"'
        raise ValueError(f"expected {expected}, got {shown(time)}")

    @property
    def ranks_per_node(self) -> int:
        """Processes on each machine."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def ranks(self) -> int:
        """Processes in all."""
        return self.nodes * self.ranks_per_node

    @property
    def minutes(self) -> int:
        """The limit in minutes, rounded up."""
        return math.ceil((parse_time(self.time) or 0) / 60)

    @property
    def options(self) -> Dict[str, Any]:
        """Option of sbatch and srun (with underscores) -> value; unset options are left out."""
        options = {
            "nodes": self.nodes,
            "ntasks_per_node": self.ranks_per_node,
            "cpus_per_task": self.cpus_per_task,
            "gpus_per_node": self.gpus_per_node or None,
            "mem": f"{round(self.mem_gb * 1024)}MB" if self.mem_gb else None,
            "time": self.minutes,
        }
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class ArrayJob:
    """Elements of one array job; a plain job where its only index is 0."""

    name: str
    function: Callable[[str], Any]
    """The function that each element calls; it returns plain JSON values."""
    arguments: Sequence[str]
    """Its argument by array index, from 0 up to the last index."""
    indices: Sequence[int]
    """The elements that run."""
    resources: Resources
    """Of each element."""
    python: str
    """What follows `srun`: starts python in a shell's words, as `ClusterConfig.python_line` gives it."""
    environment: Mapping[str, str]
    logs: Path
    """Folder of the logs %A_%a_RANK_log.out, and of submitit's files of each job."""
    requeue_file: str
    """File with which an element requests a requeue; {index} stands for its index."""
    dependency: str = ""
    """What follows `--dependency=`."""

    @property
    def is_array(self) -> bool:
        """Whether its elements have indices in their job ids."""
        return max(self.indices) > 0

    def log(self, job_id: str, rank: int = 0) -> Path:
        """The log of one process of an element."""
        return self.logs / f"{job_id}_{rank}_log.out"


def setup_lines(setup: Sequence[str], job: ArrayJob) -> List[str]:
    """Shell lines of the batch script before srun: the site's own, the job's environment.

    The batch shell survives a failing srun and its step's signals, so that the teardown runs.
    """
    cores = job.resources.cpus_per_task
    variables = {
        # srun no longer takes it from sbatch since Slurm 22.05: processes would be bound to one core each
        **({"SRUN_CPUS_PER_TASK": str(cores)} if cores else {}),
        "SLURM_KILL_BAD_EXIT": "1",  # a failed rank ends the others, regardless of the site's KillOnBadExit
        "SUBMITIT_LOG_LEVEL": "WARNING",  # the log starts with the job's own first line
        **job.environment,
    }
    return [*setup, "set +e", *export_lines(variables), "trap : TERM USR2"]


def export_lines(variables: Mapping[str, str]) -> List[str]:
    """Shell lines that set environment variables."""
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def teardown_lines(requeue_file: str) -> List[str]:
    """Shell lines after srun: requeue the job on request; keep srun's exit code.

    Retried, because a busy controller may refuse once.
    """
    request = "${SLURM_ARRAY_TASK_ID:-0}".join(shlex.quote(part) for part in requeue_file.split("{index}"))
    # one element has the array's own id as SLURM_JOB_ID, which would requeue all of them
    job = "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
    again = f'for _ in 1 2 3 4 5; do scontrol requeue "{job}" && break; sleep 5; done'
    return ["rc=$?", f"if [ -e {request} ]; then rm -f {request}; {again}; fi", "exit $rc"]


def array_indices(indices: Sequence[int], parallelism: int) -> str:
    """Slurm's spelling of some elements of an array, for example "1,3%8"."""
    listed = ",".join(str(index) for index in sorted(indices))
    return f"{listed}%{min(len(indices), parallelism)}"


def option_words(options: Mapping[str, Any]) -> List[str]:
    """The options as words of a command line; True: an option without a value."""
    return [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in options.items()
    ]


@contextlib.contextmanager
def outside_of_a_job() -> Iterator[None]:
    """Hide the variables of the surrounding job, which jobs submitted from it would inherit."""
    names = [name for name in os.environ if name.startswith("SLURM_") and name != "SLURM_CONF"]
    inside = {name: os.environ.pop(name) for name in names} if "SLURM_JOB_ID" in os.environ else {}
    try:
        yield
    finally:
        os.environ.update(inside)

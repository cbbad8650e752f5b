"""What a scheduler is asked to run: a task, its edges to others and the resources it gets."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import Any, Dict, Optional, Tuple

OK = "ok"
ANY = "any"
_TIME = re.compile(r"(?:(\d+)-)?(\d{1,3}):(\d\d):(\d\d)")


@dataclass(frozen=True)
class Edge:
    """A task that has to end first."""

    stage: str
    index: int
    mode: str = field(default=OK, metadata={"choices": (OK, ANY)})
    """ok: it must have succeeded; any: it must have ended, and its outputs are used where there are some."""

    @property
    def id(self) -> Tuple[str, int]:
        """Stage and index of the task that it points to."""
        return self.stage, self.index


@dataclass(frozen=True)
class Task:
    """One line `python -m textocvp ...` of a stage. All paths but argv's are relative to the experiment."""

    stage: str
    index: int
    """Place in its stage. It is the array index too, and stays the same across retries."""
    label: str
    """What a person calls it: "seed 0", "shard 3"."""
    argv: Tuple[str, ...]
    """Arguments of `python -m textocvp`."""
    config: Dict[str, Any] = field(default_factory=dict)
    """The config fields that decide its outputs; no paths."""
    inputs: Tuple[str, ...] = ()
    """Files whose content decides its outputs. A pattern with * may match nothing; a name must be there."""
    outputs: Tuple[str, ...] = ()
    """Files or patterns that its manifest lists."""
    share: Tuple[int, int] = (0, 1)
    """(s, n): of the files that match, those whose number (in `part_0007.h5`: 7) is s modulo n."""
    leftovers: Tuple[str, ...] = ()
    """What else it writes: moved aside together with the outputs when it runs anew under another key."""
    after: Tuple[Edge, ...] = ()
    version: int = 1
    """Raised when the stage's code changes what it writes for the same config and inputs."""
    replaceable: bool = False
    """Cheap outputs are replaced where config or inputs changed; costly ones are moved aside, if asked to."""
    rerun: bool = False
    """Asked to."""

    @property
    def id(self) -> Tuple[str, int]:
        """Stage and index."""
        return self.stage, self.index

    @property
    def name(self) -> str:
        """For people: stage[index]."""
        return f"{self.stage}[{self.index}]"

    @property
    def command(self) -> str:
        """The line that runs the same work by hand."""
        return shlex.join(("python", "-m", "textocvp") + tuple(self.argv))


@dataclass(frozen=True)
class Resources:
    """What one task of a stage gets."""

    nodes: int = field(default=1, metadata={"min": 1})
    """Machines."""
    gpus_per_node: int = field(default=0, metadata={"min": 0})
    """GPUs on each."""
    tasks_per_node: Optional[int] = field(default=None, metadata={"min": 1})
    """Processes (ranks) on each; null: one per GPU, at least one."""
    cpus_per_task: Optional[int] = field(default=None, metadata={"min": 1})
    """Cores of each process; null without a scheduler: the running tasks share the machine's cores."""
    mem_gb: Optional[float] = field(default=None, metadata={"min": 0.1})
    """Memory per node in GB; null: the site's default."""
    time: str = "01:00:00"
    """Limit, [days-]hours:minutes:seconds."""

    def __post_init__(self) -> None:
        """Raise ValueError where `time` is no time."""
        if not _TIME.fullmatch(self.time):
            raise ValueError(f"time: {self.time!r} is no [days-]hours:minutes:seconds, for example 04:00:00")

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
        days, hours, minutes, seconds = (int(part or 0) for part in _TIME.fullmatch(self.time).groups())
        return (days * 24 + hours) * 60 + minutes + (1 if seconds else 0)

"""What a scheduler is asked to run: a task, its edges to others and the resources it gets."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Any, Dict, NamedTuple, Tuple

OK = "ok"
ANY = "any"


class TaskId(NamedTuple):
    """What a task is found by."""

    stage: str
    task: int

    def __str__(self) -> str:
        """For people: train-decomp[0]."""
        return f"{self.stage.replace('_', '-')}[{self.task}]"


@dataclass(frozen=True)
class Edge:
    """A task that has to end first."""

    stage: str
    index: int
    mode: str = field(default=OK, metadata={"choices": (OK, ANY)})
    """ok: it must have succeeded; any: it must have ended, and its outputs are used where there are some."""

    @property
    def id(self) -> TaskId:
        """The task that it points to."""
        return TaskId(self.stage, self.index)


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
    def id(self) -> TaskId:
        """Stage and index."""
        return TaskId(self.stage, self.index)

    @property
    def name(self) -> str:
        """For people: train-decomp[0]."""
        return str(self.id)

    @property
    def command(self) -> str:
        """The line that runs the same work by hand."""
        return shlex.join(("python", "-m", "textocvp") + tuple(self.argv))

"""A task: its command, inputs, outputs and dependencies; recorded in task.json."""

import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Tuple

from textocvp.files import UserError, read_json, write_json

OK = "ok"
ANY = "any"


class TaskId(NamedTuple):
    """Identifies a task."""

    stage: str
    task: int

    def __str__(self) -> str:
        """For people: train-decomp[0]."""
        return f"{self.stage.replace('_', '-')}[{self.task}]"


@dataclass(frozen=True)
class Edge:
    """An upstream task."""

    stage: str
    index: int
    mode: str = OK
    """ok: it must have succeeded; any: it must have ended, and its outputs are used if they exist."""

    @property
    def id(self) -> TaskId:
        """The id of the upstream task."""
        return TaskId(self.stage, self.index)


@dataclass(frozen=True)
class Task:
    """One line `python -m textocvp ...` of a stage. All paths but argv's are relative to the experiment."""

    stage: str
    index: int
    """Index in its stage and in the job array; stays the same across retries."""
    label: str
    """Label for people: "seed 0", "shard 3"."""
    argv: Tuple[str, ...]
    """Arguments of `python -m textocvp`."""
    config: Dict[str, Any] = field(default_factory=dict)
    """The config fields that affect its outputs; no paths."""
    inputs: Tuple[str, ...] = ()
    """Files whose content affects its outputs. A pattern with * may match nothing; other names must exist."""
    outputs: Tuple[str, ...] = ()
    """Files or patterns that its manifest lists."""
    share: Tuple[int, int] = (0, 1)
    """(s, n): only matching files whose number (in `part_0007.h5`: 7) is s modulo n."""
    leftovers: Tuple[str, ...] = ()
    """Other files that it writes; moved aside with the outputs when it runs again under another key."""
    after: Tuple[Edge, ...] = ()
    version: int = 1
    """Increased when a code change alters the outputs for the same config and inputs."""
    replaceable: bool = False
    """Cheap outputs are replaced if config or inputs changed; costly ones are moved aside on request."""
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
        """The command line that runs the same work by hand."""
        return shlex.join(("python", "-m", "textocvp", *self.argv))


def job_folder(root: Path, stage: str, index: int) -> Path:
    """The folder of one task's records."""
    return Path(root) / "jobs" / stage / str(index)


def write_task(root: Path, task: Task) -> Path:
    """Write a task's file at submission; returns its path, the argument of the job."""
    path = job_folder(root, *task.id) / "task.json"
    write_json(path, asdict(task))
    return path


def read_task(root: Path, stage: str, index: int) -> Optional[Task]:
    """The task as it was last submitted, or None."""
    path = job_folder(root, stage, index) / "task.json"
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        after = tuple(Edge(**edge) for edge in values.pop("after", ()))
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return Task(**{**values, **lists, "after": after})
    except (AttributeError, TypeError) as error:
        raise UserError(f"{path}: not a task ({error}); delete it and submit the stage again") from None

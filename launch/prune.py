"""`make prune`: frees what is never needed again (launch/state/prune.py says what that is)."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, List, Sequence, Tuple

from launch.jobs import ENDED, scheduler_states
from launch.state import ledger
from launch.state.ledger import locked
from launch.state.prune import Alive, Leftover, leftovers
from textocvp.files import format_bytes
from textocvp.terminal import format_table

SEVERAL = 4
"""Things of one kind in one folder that are shown as one line."""
OVER = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE")
"""States that a job does not come back from by itself."""


def prune(root: Path, dry: bool) -> List[str]:
    """Remove what is never needed again (with `dry` nothing); returns the lines that say what it was.

    Raises:
        UserError: a run on this machine works on the experiment, or a cluster does not answer.
    """
    with locked(root):
        found = leftovers(root, alive(root))
        if not dry:
            for leftover in found:
                leftover.remove()
    if not found:
        return [f"{root}: nothing to prune"]
    rows = [
        (format_bytes(each.bytes).rjust(8), each.path.relative_to(root.resolve()).as_posix(), each.what)
        for each in _together(found)
    ]
    total = format_bytes(sum(each.bytes for each in found))
    end = "would be freed; nothing was removed" if dry else "freed"
    return [*format_table(("   bytes", "path", "what"), rows), f"{root}: {total} {end}"]


def _together(found: Sequence[Leftover]) -> Iterator[Leftover]:
    """For people: many small files of one kind in one folder as one."""
    groups: Dict[Tuple[Path, str], List[Leftover]] = {}
    for each in found:
        groups.setdefault((each.path.parent, each.what), []).append(each)
    for (folder, what), group in groups.items():
        if len(group) < SEVERAL:
            yield from group
        else:
            yield Leftover(folder / f"{len(group)} files", sum(each.bytes for each in group), what)


def alive(root: Path) -> Alive:
    """The tasks and jobs of an experiment that are queued or run, as the scheduler says.

    Whoever calls holds the experiment's lock: nothing runs without a scheduler.
    """
    last = {task: event for task, event in ledger.last_events(root).items() if event["event"] not in ENDED}
    states = scheduler_states(last)
    tasks = [task for task, state in states.items() if state.state not in OVER]
    snapshots: List[str] = [name for task in tasks if (name := last[task].get("snapshot"))]
    return Alive(
        frozenset(tasks),
        frozenset(last[task]["job_id"] for task in tasks),
        frozenset(snapshots) if len(snapshots) == len(tasks) else None,
    )

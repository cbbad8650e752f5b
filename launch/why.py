"""What broke, where, and what to do: the first task of an experiment that failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from launch.show import stages_text
from slurm.progress import failure_lines

BROKEN = (
    "failed",
    "timeout",
    "out_of_memory",
    "node_fail",
    "boot_fail",
    "deadline",
    "preempted",
    "interrupted",
    "lost",
)
"""States of a task that ended without its outputs, by itself."""
CANCELLED = "cancelled"
AGAIN = "run the same command again: what is done is skipped, training continues from its last state"
SPACE = (
    "free space (`make prune EXP=...` removes what is never needed again, DRY=1 only lists it) or ask "
    "for quota, then " + AGAIN
)
ADVICE: Tuple[Tuple[str, str], ...] = (
    ("no space left", SPACE),
    ("disk quota", SPACE),
    (
        "out_of_memory",
        "raise resources.{stage}.mem_gb in the cluster's config or lower training.batch_size, then " + AGAIN,
    ),
    (
        "job memory limit",
        "raise resources.{stage}.mem_gb in the cluster's config or lower training.batch_size, then " + AGAIN,
    ),
    ("outofmemory", "lower training.batch_size, or ask for a larger GPU (constraint), then " + AGAIN),
    (
        "timeout (0:",
        "a process waited for a step that never came: see the stacks in its log and in the "
        "others' (make logs RANK=1 ...); " + AGAIN,
    ),
    ("state: timeout", "raise resources.{stage}.time in the cluster's config, then " + AGAIN),
    ("state: node_fail", "the node died; " + AGAIN),
    ("modulenotfounderror", "the jobs' python lacks a package: see `python` in the cluster's config"),
    ("state: preempted", "the site ends preempted jobs for good; " + AGAIN),
    ("state: stopped", AGAIN),
    ("state: cancelled", AGAIN),
    ("state: interrupted", AGAIN),
    ("state: lost", "the scheduler no longer knows the job; " + AGAIN),
    ("\nerror: ", "mend what the line says, then " + AGAIN),
)
"""What the state, the error or the log's last lines hold (lower case; \\n: at a line's start) -> advice."""
OTHERWISE = "read the log; once the cause is mended, " + AGAIN


def first_broken(rows: Sequence[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    """The first failing task in the order of the graph; None where nothing failed."""
    for broken in (_ended_by_itself, _asked_to_end):
        for row in rows:
            if broken(row):
                return row
    return None


def _ended_by_itself(row: Mapping[str, Any]) -> bool:
    """Whether a task is the cause of what failed after it; one that scancel ended while it ran is, too."""
    state = row["state"].split(" ")[0]
    return state in BROKEN or bool(state == CANCELLED and row["node"] and row["exit_code"])


def _asked_to_end(row: Mapping[str, Any]) -> bool:
    """Stopped, or cancelled before it started, mostly because its upstream failed: looked at where nothing
    else is broken."""
    return row["state"].split(" ")[0] in ("stopped", CANCELLED)


def why_lines(rows: Sequence[Mapping[str, Any]]) -> List[str]:
    """What `make why` prints of the rows that `task_rows` returns."""
    row = first_broken(rows)
    if row is None:
        counts: Dict[str, int] = {}
        for each in rows:
            counts[each["state"]] = counts.get(each["state"], 0) + 1
        states = ", ".join(f"{number} {state}" for state, number in counts.items())
        return [f"nothing failed: {states}"]
    log = failure_lines(Path(row["log"])) if row["log"] else []
    words = {"job": row["job_id"], "on": row["node"], "exit code": row["exit_code"]}
    facts = "".join(f", {name} {value}" for name, value in words.items() if value)
    error = f": {row['error']}" if row["error"] else ""
    label = f" ({row['label']})" if row["label"] else ""
    lines = [f"{row['stage']}[{row['task']}]{label} {row['state']}{facts}{error}"]
    lines += [f"  {line}" for line in log if not _told(line, row["error"])]
    lines += [f"log: {row['log']}"] if row["log"] else []
    others = [each for each in rows if each is not row and _ended_by_itself(each)]
    more = stages_text((each["stage"], each["task"]) for each in others)
    lines += [f"failed too: {', '.join(more)}"] if more else []
    return [*lines, f"what to do: {advice(row, log)}"]


def _told(line: str, error: str) -> bool:
    """Whether a log's `error: TASK: why` says what the ledger's line has said already."""
    return line.startswith("error: ") and line.split(": ", 2)[-1] in error


def advice(row: Mapping[str, Any], log: Sequence[str]) -> str:
    """What to do about a broken task."""
    text = "\n".join([f"state: {row['state']}", row["error"] or "", *(line.strip() for line in log)]).lower()
    known = next((words for pattern, words in ADVICE if pattern in text), OTHERWISE)
    return known.replace("{stage}", row["stage"])

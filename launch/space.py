"""The part of `make plan` about space: each artefact's estimate, what is there of it, what is free."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable, List

from launch.pipeline import Pipeline
from launch.plan import Plan
from launch.sizes import Artefact, estimate
from launch.state.manifest import DONE
from launch.views.plan import format_table
from slurm.site import CODE, ClusterConfig
from textocvp.files import Space, bytes_below, format_bytes, space_at

HEADER = ("artefact", "estimated", "there already")
UNKNOWN, WARNING = "not known", "WARNING"


def space_lines(pipeline: Pipeline, plan: Plan, cluster: ClusterConfig) -> List[str]:
    """A table of artefacts, what all need together, and a warning where it does not fit."""
    weights = CODE / cluster.paths.weights if cluster.paths.weights else None
    artefacts = estimate(pipeline, weights)
    rows = [
        (
            artefact.name,
            UNKNOWN if artefact.bytes is None else f"about {format_bytes(artefact.bytes)}",
            format_bytes(there(pipeline.root, artefact)),
        )
        for artefact in artefacts
    ]
    lines = ["", "space:", *(f"  {line}" for line in format_table(HEADER, rows))]
    return lines + _verdict(
        pipeline.root, to_write(artefacts, plan), needed(artefacts, plan), space_at(pipeline.root)
    )


def space_warnings(pipeline: Pipeline, plan: Plan, cluster: ClusterConfig) -> List[str]:
    """The warning alone, where there is one."""
    return [line for line in space_lines(pipeline, plan, cluster) if line.startswith(WARNING)]


def there(root: Path, artefact: Artefact) -> int:
    """Bytes that lie there of an artefact."""
    return sum(bytes_below(Path(root) / path) for path in artefact.paths)


def to_write(artefacts: Iterable[Artefact], plan: Plan) -> List[Artefact]:
    """The artefacts that are not finished."""
    done = {step.task.id for step in plan.steps if step.action == DONE}
    return [artefact for artefact in artefacts if not done.issuperset(artefact.tasks)]


def needed(artefacts: Iterable[Artefact], plan: Plan) -> int:
    """Bytes that are still to be written, and that are needed meanwhile by a stage whose tasks all run."""
    missing, meanwhile = 0, {}
    for artefact in to_write(artefacts, plan):
        missing += max(0, (artefact.bytes or 0) - there(plan.root, artefact))
        stage = artefact.tasks[0][0]
        meanwhile[stage] = meanwhile.get(stage, 0) + artefact.meanwhile
    return missing + max(meanwhile.values(), default=0)


def _verdict(root: Path, unfinished: List[Artefact], needs: int, space: Space) -> List[str]:
    least = "at least " if any(artefact.bytes is None for artefact in unfinished) else ""
    lines = [f"  needs {least}{format_bytes(needs)}, free {format_bytes(space.free)}"]
    if needs > space.free:
        lines.append(
            f"{WARNING}: {format_bytes(needs - space.free)} too little for {root}: `make prune "
            f"EXP={root}` frees what is never needed again; or ask for more, or raise "
            "training.save_frequency"
        )
    return lines

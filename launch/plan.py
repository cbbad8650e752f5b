"""What there is to do: each task is done, already queued, to be run, or refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from launch.state.manifest import CHANGED, DONE, Records, Standing, read_task, refusal, stand
from launch.state.task import OK, Task, TaskId
from slurm.queue import PENDING, JobState
from textocvp.config.errors import UserError

RUN = "to run"
QUEUED = "queued"
OUTSIDE = "not done, not asked for"
MAY_CHANGE = "may change"
"""What ends the reason of a task that is done, while something that it waits for is to run."""

PREREQUISITES = ("make_data", "prepare_data")
"""Stages that a command for a single stage runs first, where they are not done."""


@dataclass(frozen=True)
class Job:
    """A task's job that waits or runs."""

    job_id: str
    cluster: str
    state: JobState


@dataclass(frozen=True)
class Step:
    """One task and what is to happen to it."""

    task: Task
    action: str
    """done, queued (its job stays), to run, or not asked for."""
    reasons: Tuple[str, ...] = ()
    aside: bool = False
    """Its old outputs are moved aside first."""
    job: Optional[Job] = None
    """Its job, where it has one: kept if `queued`, else cancelled."""

    @property
    def may_change(self) -> bool:
        """Whether it is done as far as it goes, while something that it waits for is to run."""
        return self.action == RUN and bool(self.reasons) and self.reasons[-1].endswith(MAY_CHANGE)


@dataclass(frozen=True)
class Plan:
    """All tasks of an experiment, in an order that respects the edges."""

    root: Path
    steps: Tuple[Step, ...]

    @property
    def to_run(self) -> List[Step]:
        """The steps that have work to do."""
        return [step for step in self.steps if step.action == RUN]

    @property
    def at_stake(self) -> List[TaskId]:
        """Done tasks that will refuse to run if what they read comes out different: costly, no --rerun."""
        return [
            step.task.id
            for step in self.to_run
            if step.may_change and not (step.task.replaceable or step.task.rerun)
        ]

    @property
    def superseded(self) -> List[Job]:
        """Jobs that still wait but are planned anew."""
        return [step.job for step in self.steps if step.action == RUN and step.job]


def make_plan(
    root: Path,
    tasks: Sequence[Task],
    stages: Optional[FrozenSet[str]] = None,
    jobs: Optional[Mapping[TaskId, Job]] = None,
    rerun: bool = False,
) -> Plan:
    """Decide what happens to each task.

    Args:
        stages: what is asked for; None: everything.
        jobs: jobs that wait or run.
        rerun: outputs of another config or of other inputs are moved aside instead of refused.

    Raises:
        UserError: outputs of another run are in the way, or what a stage needs is neither done nor asked for.
    """
    jobs, steps = jobs or {}, {}
    records = Records(root, tasks)
    for task in tasks:
        task = replace(task, rerun=rerun)
        step = _step(records, task, steps, jobs.get(task.id), rerun)
        asked = stages is None or task.stage in stages or task.stage in PREREQUISITES
        if step.action == RUN and not asked:
            step = replace(step, action=OUTSIDE, aside=False)
        steps[task.id] = step
    if stages is not None:
        _drop_unneeded(steps, stages)
    in_the_way = [step for step in steps.values() if step.aside and not rerun]
    refused = [refusal(step.task, Standing(CHANGED, step.reasons)) for step in in_the_way]
    refused += _unmet(steps) + _absent(root, steps)
    if refused:
        raise UserError("\n  ".join(refused if len(refused) == 1 else ["not submitted:", *refused]))
    return Plan(Path(root), tuple(steps.values()))


def _step(
    records: Records, task: Task, steps: Mapping[TaskId, Step], job: Optional[Job], rerun: bool
) -> Step:
    upstream = [steps[edge.id] for edge in task.after if edge.id in steps]
    settled = all(step.action in (DONE, OUTSIDE) for step in upstream)
    standing = stand(records, task, settled)
    changed = standing.state == CHANGED and (rerun or not task.replaceable)
    if standing.state == DONE and settled:
        return Step(task, DONE)
    if job is not None and _keeps_job(records.root, task, job, upstream):
        return Step(task, QUEUED, (f"job {job.job_id} is {job.state.state.lower()}",), job=job)
    if standing.state == DONE:
        waits = [step.task.name for step in upstream if step.action not in (DONE, OUTSIDE)]
        return Step(
            task, RUN, (f"{', '.join(waits[:3])}{' ...' if len(waits) > 3 else ''} {MAY_CHANGE}",), job=job
        )
    return Step(task, RUN, standing.reasons, aside=changed, job=job)


def _keeps_job(root: Path, task: Task, job: Job, upstream: Sequence[Step]) -> bool:
    """Whether the job that the task has is the one that would be submitted now."""
    submitted = read_task(root, *task.id)
    # the line may name the same folders otherwise: from where one submits
    same = submitted is not None and replace(submitted, rerun=task.rerun, argv=task.argv) == task
    if same and all(step.action in (DONE, QUEUED, OUTSIDE) for step in upstream):
        return True
    if job.state.state == PENDING or task.replaceable:
        return False
    why = "while what it reads is to be made anew" if same else "with another config"
    raise UserError(f"{task.name} runs as job {job.job_id} {why}; cancel that job first")


def _drop_unneeded(steps: Dict[TaskId, Step], stages: FrozenSet[str]) -> None:
    """A prerequisite runs only for a task that is asked for and has not run yet."""
    needed = {
        edge.id
        for step in steps.values()
        if step.action == RUN and step.task.stage in stages
        for edge in step.task.after
    }
    for name in reversed(PREREQUISITES):
        for step in [step for step in steps.values() if step.task.stage == name and step.action == RUN]:
            if name not in stages and step.task.id not in needed:
                steps[step.task.id] = replace(step, action=OUTSIDE, aside=False)
            else:
                needed |= {edge.id for edge in step.task.after}


def _absent(root: Path, steps: Mapping[TaskId, Step]) -> List[str]:
    """One line for each input by its own name that is not there and that no task writes."""
    written = [pattern for step in steps.values() for pattern in step.task.outputs]
    lines = {}
    for step in steps.values():
        for name in step.task.inputs if step.action == RUN else ():
            made = "*" in name or any(fnmatchcase(name, pattern) for pattern in written)
            if not made and not (Path(root) / name).is_file():
                lines.setdefault(name, f"{step.task.name} needs {Path(root) / name}, which does not exist")
    return list(lines.values())


def _unmet(steps: Mapping[TaskId, Step]) -> List[str]:
    """One line for each stage that needs a task which is neither done nor going to be."""
    lines = {}
    for step in steps.values():
        for edge in step.task.after if step.action == RUN else ():
            if edge.mode == OK and edge.id in steps and steps[edge.id].action == OUTSIDE:
                command = edge.stage.replace("_", "-")
                lines.setdefault(
                    (step.task.stage, edge.stage),
                    (
                        f"{step.task.name} needs {edge.stage}[{edge.index}], which is not done "
                        f"({'; '.join(steps[edge.id].reasons)}); run {command} first, or the whole pipeline"
                    ),
                )
    return list(lines.values())

"""The plan: each task is done, already queued, to be run, or refused."""

from dataclasses import dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import AbstractSet, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

from launch.state.manifest import Reason, Records, reasons_to_run, refusal
from launch.state.task import OK, Task, TaskId, read_task
from slurm.queue import PENDING, JobState
from textocvp.files import UserError

PREREQUISITES = ("make_data", "prepare_data")
"""Stages that a command for a single stage runs first if they are not done."""


class Action(Enum):
    """What happens to a task."""

    DONE = "done"
    QUEUED = "queued"
    """Its job is pending or running and equals the one that would be submitted now."""
    RUN = "to run"
    OUTSIDE = "not done, not requested"


FINAL = (Action.DONE, Action.OUTSIDE)
"""Actions that keep a task's outputs."""


@dataclass(frozen=True)
class Job:
    """A task's pending or running job."""

    job_id: str
    cluster: str
    state: JobState


@dataclass(frozen=True)
class Step:
    """One task and its action."""

    task: Task
    action: Action
    reasons: Tuple[Reason, ...] = ()
    """Why it is not done."""
    may_change: Tuple[TaskId, ...] = ()
    """Of a done task: earlier tasks that are to run and whose outputs may change."""
    aside: bool = False
    """Its old outputs are moved aside first."""
    job: Optional[Job] = None
    """Its job, if any: kept if `queued`, else cancelled."""

    @property
    def why(self) -> str:
        """Why it is not done; "" for a done task."""
        if self.action is Action.QUEUED and self.job:
            return f"job {self.job.job_id} is {self.job.state.state.lower()}"
        if self.may_change:
            more = " ..." if len(self.may_change) > 3 else ""
            return f"{', '.join(map(str, self.may_change[:3]))}{more} may change"
        return "; ".join(map(str, self.reasons))


@dataclass(frozen=True)
class Plan:
    """All tasks of an experiment, in dependency order."""

    root: Path
    steps: Tuple[Step, ...]
    records: Records
    """The manifests that it was created from."""

    @property
    def to_run(self) -> List[Step]:
        """The steps that are to be run."""
        return [step for step in self.steps if step.action is Action.RUN]

    @property
    def queued_jobs(self) -> Dict[TaskId, str]:
        """Task -> id of its job, which is kept."""
        kept = [step for step in self.steps if step.action is Action.QUEUED]
        return {step.task.id: step.job.job_id for step in kept if step.job}

    @property
    def at_stake(self) -> List[TaskId]:
        """Costly done tasks that will refuse to run if their inputs change (no --rerun)."""
        steps = [step for step in self.to_run if step.may_change]
        return [step.task.id for step in steps if not (step.task.replaceable or step.task.rerun)]

    @property
    def superseded(self) -> List[Job]:
        """Pending jobs that are planned again."""
        return [step.job for step in self.to_run if step.job]


def make_plan(
    root: Path,
    tasks: Sequence[Task],
    stages: Optional[FrozenSet[str]] = None,
    jobs: Optional[Mapping[TaskId, Job]] = None,
    rerun: bool = False,
    skipped: AbstractSet[TaskId] = frozenset(),
) -> Plan:
    """Decide what happens to each task.

    Args:
        stages: the requested stages; None: all.
        jobs: pending and running jobs.
        rerun: outputs of another config or of other inputs are moved aside instead of refused.
        skipped: tasks that were not requested.

    Raises:
        UserError: outputs of another run exist, or a stage needs tasks that are neither done nor requested.
    """
    jobs, records = jobs or {}, Records(root, tasks)
    steps: Dict[TaskId, Step] = {}
    for task in tasks:
        task = replace(task, rerun=rerun)
        step = _step(records, task, steps, jobs.get(task.id))
        asked = stages is None or task.stage in stages or task.stage in PREREQUISITES
        if step.action is Action.RUN and (not asked or task.id in skipped):
            step = replace(step, action=Action.OUTSIDE, aside=False)
        steps[task.id] = step
    if stages is not None:
        _drop_unneeded(steps, stages)
    in_the_way = [step for step in steps.values() if step.aside and not rerun]
    refused = [refusal(step.task, step.reasons) for step in in_the_way]
    refused += _unmet(steps) + _absent(root, steps)
    if refused:
        raise UserError("\n  ".join(refused if len(refused) == 1 else ["not submitted:", *refused]))
    return Plan(Path(root), tuple(steps.values()), records)


def _step(records: Records, task: Task, steps: Mapping[TaskId, Step], job: Optional[Job]) -> Step:
    upstream = [steps[edge.id] for edge in task.after if edge.id in steps]
    settled = all(step.action in FINAL for step in upstream)
    reasons = reasons_to_run(records, task, settled)
    if not reasons and settled:
        return Step(task, Action.DONE)
    if job is not None and _keeps_job(records.root, task, job, upstream):
        return Step(task, Action.QUEUED, job=job)
    if not reasons:
        pending = tuple(step.task.id for step in upstream if step.action not in FINAL)
        return Step(task, Action.RUN, may_change=pending, job=job)
    aside = any(reason.changed for reason in reasons) and (task.rerun or not task.replaceable)
    return Step(task, Action.RUN, reasons, aside=aside, job=job)


def _keeps_job(root: Path, task: Task, job: Job, upstream: Sequence[Step]) -> bool:
    """Whether the task's job equals the one that would be submitted now."""
    submitted = read_task(root, *task.id)
    # paths in argv depend on the current folder
    same = submitted is not None and replace(submitted, rerun=task.rerun, argv=task.argv) == task
    if same and not any(step.action is Action.RUN for step in upstream):
        return True
    if job.state.state == PENDING or task.replaceable:
        return False
    why = "while its inputs are to be created again" if same else "with another config"
    raise UserError(f"{task.name} is running as job {job.job_id} {why}; cancel that job first")


def _drop_unneeded(steps: Dict[TaskId, Step], stages: FrozenSet[str]) -> None:
    """A prerequisite runs only for a requested task that has not run yet."""
    runs = [step for step in steps.values() if step.action is Action.RUN]
    needed = {edge.id for step in runs if step.task.stage in stages for edge in step.task.after}
    for name in reversed(PREREQUISITES):
        for step in (step for step in runs if step.task.stage == name):
            if name not in stages and step.task.id not in needed:
                steps[step.task.id] = replace(step, action=Action.OUTSIDE, aside=False)
            else:
                needed |= {edge.id for edge in step.task.after}


def _absent(root: Path, steps: Mapping[TaskId, Step]) -> List[str]:
    """One line for each input (not a pattern) that does not exist and that no task writes."""
    needed: Dict[str, Task] = {}
    for step in steps.values():
        for name in step.task.inputs if step.action is Action.RUN else ():
            if "*" not in name:
                needed.setdefault(name, step.task)
    written = {pattern for step in steps.values() for pattern in step.task.outputs}
    return [
        f"{task.name} needs {Path(root) / name}, which does not exist"
        for name, task in needed.items()
        if not any(fnmatchcase(name, pattern) for pattern in written) and not (Path(root) / name).is_file()
    ]


def _unmet(steps: Mapping[TaskId, Step]) -> List[str]:
    """One line for each stage that needs a task which is neither done nor planned."""
    lines: Dict[Tuple[str, str], str] = {}
    for step in steps.values():
        for edge in step.task.after if step.action is Action.RUN else ():
            upstream = steps.get(edge.id)
            if edge.mode == OK and upstream and upstream.action is Action.OUTSIDE:
                line = f"{step.task.name} needs {upstream.task.name}, which is not done ({upstream.why}); "
                line += f"run {edge.stage.replace('_', '-')} first, or the whole pipeline"
                lines.setdefault((step.task.stage, edge.stage), line)
    return list(lines.values())

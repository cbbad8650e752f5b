"""Edges between tasks as Slurm's dependencies.

Everything here is per element: `afterok` on a whole array cancels all dependants for one failed element, and
`aftercorr` between arrays of other shapes pairs indices blindly. Both are used only to shorten a list of
elements that means the same: an array of which elements have ended is not named whole, they would count.
A dependency that Slurm drops is caught by the job's own checks.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Mapping, Sequence, Set, Tuple

from launch.state.task import ANY, Task

TaskId = Tuple[str, int]
KINDS = {"ok": "afterok", ANY: "afterany"}
KINDS_IN_ORDER = ("afterok", "aftercorr", "afterany")


def array_of(job_id: str) -> str:
    """The array (or the single job) that "12_3" (or "12") belongs to."""
    return job_id.split("_")[0]


def group_by_dependency(
    tasks: Sequence[Task], jobs: Mapping[TaskId, str], earlier: Iterable[str] = ()
) -> List[Tuple[str, List[Task]]]:
    """Split one stage's tasks into groups that can be submitted as one array each.

    Args:
        jobs: job id of every task that is queued or runs; an edge to a task that is not in it is already met.
        earlier: ids of all jobs that were ever submitted, whatever has become of them.
    Returns:
        pairs of dependency (what follows `--dependency=`, "" for none) and tasks.
    """
    arrays: Dict[str, Set[str]] = {}
    for job_id in (*jobs.values(), *earlier):
        arrays.setdefault(array_of(job_id), set()).add(job_id)
    groups: Dict[str, List[Task]] = {}
    for task in tasks:
        groups.setdefault(_dependency(task, jobs, arrays), []).append(task)
    return list(groups.items())


def _dependency(task: Task, jobs: Mapping[TaskId, str], arrays: Mapping[str, Set[str]]) -> str:
    wanted: Dict[str, Dict[str, Set[str]]] = {kind: {} for kind in KINDS_IN_ORDER}
    for edge in task.after:
        if edge.id in jobs:
            job_id = jobs[edge.id]
            wanted[KINDS[edge.mode]].setdefault(array_of(job_id), set()).add(job_id)
    for array, elements in list(wanted["afterok"].items()):
        # the one element that has the task's own index: the same words for all tasks of the stage
        if elements == {f"{array}_{task.index}"} and len(arrays[array]) > 1:
            wanted["aftercorr"][array] = wanted["afterok"].pop(array)
    parts = []
    for kind in KINDS_IN_ORDER:
        names = [
            name for array, elements in wanted[kind].items() for name in _names(kind, array, elements, arrays)
        ]
        if names:
            parts.append(":".join([kind] + names))
    return ",".join(parts)


def _names(kind: str, array: str, elements: Set[str], arrays: Mapping[str, Set[str]]) -> List[str]:
    if kind == "aftercorr" or elements == arrays[array]:
        return [array]
    return sorted(elements, key=lambda job_id: int(job_id.split("_")[1]))

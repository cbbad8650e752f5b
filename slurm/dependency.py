"""Edges between jobs as Slurm's dependencies.

Everything here is per element: `afterok` on a whole array cancels all dependants for one failed element, and
`aftercorr` between arrays of other shapes pairs indices blindly. Both are used only to shorten a list of
elements with the same meaning: an array is not named as a whole if some of its elements have ended.
Jobs must check for themselves that no dependency was dropped by Slurm.
"""

from typing import Dict, Iterable, List, Mapping, Sequence, Set, Tuple

Edge = Tuple[str, str]
"""(AFTEROK or AFTERANY, id of a job that is queued or runs)."""
AFTEROK, AFTERANY, AFTERCORR = "afterok", "afterany", "aftercorr"
KINDS_IN_ORDER = (AFTEROK, AFTERCORR, AFTERANY)


def array_of(job_id: str) -> str:
    """The array (or the single job) that "12_3" (or "12") belongs to."""
    return job_id.split("_")[0]


def group_by_dependency(
    edges: Mapping[int, Sequence[Edge]], known: Iterable[str] = ()
) -> List[Tuple[str, List[int]]]:
    """Split array indices into groups that can be submitted as one array each.

    Args:
        edges: array index -> dependencies.
        known: ids of all jobs that were ever submitted, besides those in `edges`.
    Returns:
        pairs of dependency (what follows `--dependency=`, "" for none) and indices.
    """
    arrays: Dict[str, Set[str]] = {}
    for job_id in (*known, *(job_id for group in edges.values() for _, job_id in group)):
        arrays.setdefault(array_of(job_id), set()).add(job_id)
    groups: Dict[str, List[int]] = {}
    for index, wanted in edges.items():
        groups.setdefault(_dependency(index, wanted, arrays), []).append(index)
    return list(groups.items())


def _dependency(index: int, edges: Sequence[Edge], arrays: Mapping[str, Set[str]]) -> str:
    wanted: Dict[str, Dict[str, Set[str]]] = {kind: {} for kind in KINDS_IN_ORDER}
    for kind, job_id in edges:
        wanted[kind].setdefault(array_of(job_id), set()).add(job_id)
    for array, elements in list(wanted[AFTEROK].items()):
        # only the element with the same index: one option for all elements of the array
        if elements == {f"{array}_{index}"} and len(arrays[array]) > 1:
            wanted[AFTERCORR][array] = wanted[AFTEROK].pop(array)
    parts = []
    for kind in KINDS_IN_ORDER:
        names = [
            name for array, elements in wanted[kind].items() for name in _names(kind, array, elements, arrays)
        ]
        parts += [":".join([kind, *names])] if names else []
    return ",".join(parts)


def _names(kind: str, array: str, elements: Set[str], arrays: Mapping[str, Set[str]]) -> List[str]:
    if kind == AFTERCORR or elements == arrays[array]:
        return [array]
    return sorted(elements, key=lambda job_id: int(job_id.split("_")[1]))

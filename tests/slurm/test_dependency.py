from __future__ import annotations

from launch.state.task import ANY, Edge, Task
from slurm.dependency import group_by_dependency


def task(index, *edges):
    return Task("later", index, "", (), after=tuple(Edge(*edge) for edge in edges))


def groups(tasks, jobs, earlier=()):
    return [
        (dependency, [one.index for one in group])
        for dependency, group in group_by_dependency(tasks, jobs, earlier)
    ]


JOBS = {("seeds", 0): "5_0", ("seeds", 1): "5_1", ("seeds", 2): "5_2", ("select", 0): "6"}


def test_edges_that_are_met_are_no_dependencies():
    assert groups([task(0, ("data", 0)), task(1)], JOBS) == [("", [0, 1])]


def test_a_whole_array_is_named_once():
    everything = [("seeds", index, ANY) for index in range(3)]
    assert groups([task(0, *everything)], JOBS) == [("afterany:5", [0])]
    assert groups([task(0, ("select", 0), *everything)], JOBS) == [("afterok:6,afterany:5", [0])]


def test_a_part_of_an_array_is_named_element_by_element():
    assert groups([task(0, ("seeds", 2), ("seeds", 1))], JOBS) == [("afterok:5_1:5_2", [0])]


def test_equal_indices_are_one_array_with_aftercorr():
    assert groups([task(index, ("seeds", index)) for index in range(3)], JOBS) == [("aftercorr:5", [0, 1, 2])]


def test_other_shapes_never_use_aftercorr():
    # 3 seeds -> 6 shards: aftercorr would pair shard i with seed i
    shards = [task(index, ("seeds", index // 2)) for index in range(6)]
    assert groups(shards, JOBS) == [
        ("aftercorr:5", [0]),
        ("afterok:5_0", [1]),
        ("afterok:5_1", [2, 3]),
        ("afterok:5_2", [4, 5]),
    ]


def test_what_is_done_needs_no_edge_while_the_rest_keeps_its_own():
    jobs = {("seeds", 1): "9_1", ("seeds", 3): "9_3"}
    tasks = [task(index, ("seeds", index)) for index in range(4)]
    assert groups(tasks, jobs) == [("", [0, 2]), ("aftercorr:9", [1, 3])]


def test_a_single_job_is_no_array():
    assert groups([task(0, ("select", 0))], JOBS) == [("afterok:6", [0])]
    assert groups([task(3, ("seeds", 3))], {("seeds", 3): "9_3"}) == [("afterok:9", [3])]


def test_an_array_of_which_an_element_has_failed_is_not_named_whole():
    # 5_1 failed and is submitted again as 9_1; afterok:5 would never be met
    jobs = {("seeds", 0): "5_0", ("seeds", 1): "9_1", ("seeds", 2): "5_2"}
    earlier = ["5_0", "5_1", "5_2"]
    everything = task(0, *[("seeds", index) for index in range(3)])
    assert groups([everything], jobs, earlier) == [("afterok:5_0:5_2:9", [0])]
    assert groups([task(0, ("seeds", 2))], {("seeds", 2): "5_2"}, earlier) == [("afterok:5_2", [0])]

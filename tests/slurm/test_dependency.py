from slurm.dependency import AFTERANY, AFTEROK, group_by_dependency

SEEDS = ["5_0", "5_1", "5_2"]
KNOWN = [*SEEDS, "6"]


def ok(*jobs):
    return [(AFTEROK, job) for job in jobs]


def test_a_whole_array_is_named_once_and_a_part_element_by_element():
    assert group_by_dependency({0: [], 1: []}, KNOWN) == [("", [0, 1])], "jobs without edges are one array"
    everything = [(AFTERANY, job) for job in SEEDS]
    assert group_by_dependency({0: everything}, KNOWN) == [("afterany:5", [0])]
    assert group_by_dependency({0: [*ok("6"), *everything]}, KNOWN) == [("afterok:6,afterany:5", [0])]
    assert group_by_dependency({0: ok("5_2", "5_1")}, KNOWN) == [("afterok:5_1:5_2", [0])]


def test_equal_indices_are_one_array_with_aftercorr_and_other_shapes_are_not():
    edges = {index: ok(job) for index, job in enumerate(SEEDS)}
    assert group_by_dependency(edges, KNOWN) == [("aftercorr:5", [0, 1, 2])]

    # 3 seeds -> 6 shards: aftercorr would pair shard i with seed i
    groups = group_by_dependency({index: ok(SEEDS[index // 2]) for index in range(6)}, KNOWN)
    assert groups[:2] == [("aftercorr:5", [0]), ("afterok:5_0", [1])]
    assert groups[2:] == [("afterok:5_1", [2, 3]), ("afterok:5_2", [4, 5])]


def test_what_is_done_needs_no_edge_while_the_rest_keeps_its_own():
    edges = {0: [], 1: ok("9_1"), 2: [], 3: ok("9_3")}
    assert group_by_dependency(edges) == [("", [0, 2]), ("aftercorr:9", [1, 3])]
    assert group_by_dependency({0: ok("6")}, KNOWN) == [("afterok:6", [0])]
    assert group_by_dependency({3: ok("9_3")}) == [("afterok:9", [3])]
    # 5_1 failed and is submitted again as 9_1; afterok:5 would never be met
    assert group_by_dependency({0: ok("5_0", "9_1", "5_2")}, SEEDS) == [("afterok:5_0:5_2:9", [0])]
    assert group_by_dependency({0: ok("5_2")}, SEEDS) == [("afterok:5_2", [0])]

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from textocvp.evaluation.metrics import (
    METRICS,
    SegmentationScores,
    adjusted_rand_index,
    contingency,
    matched_ious,
    segmentation_scores,
)


def scene():
    """(2, 4, 4): background, object 1 in the first row, object 2 in the last."""
    labels = np.zeros((2, 4, 4), dtype=np.uint8)
    labels[:, 0], labels[:, 3] = 1, 2
    return labels


def test_adjusted_rand_index_equals_scikit_learn():
    rng = np.random.default_rng(0)
    for groups in (1, 2, 5):
        for noise in (0.0, 0.3, 1.0):
            true = rng.integers(0, groups, 500)
            predicted = np.where(rng.random(500) < noise, rng.integers(0, 4, 500), 7 - true)
            expected = adjusted_rand_score(true, predicted)
            assert adjusted_rand_index(contingency(true, predicted)) == pytest.approx(expected, abs=1e-9)


def test_adjusted_rand_index_of_large_clips_does_not_overflow():
    true = np.repeat([0, 1], 3_000_000)
    assert adjusted_rand_index(contingency(true, 1 - true)) == 1.0


def test_a_perfect_segmentation_scores_one_whatever_its_labels_are_called():
    scores = segmentation_scores(scene(), np.array([5, 0, 2])[scene()])
    assert scores == dict.fromkeys(METRICS, 1.0)


def test_an_object_left_in_the_background_slot_costs_its_iou():
    predicted = np.where(scene() == 2, 0, scene())
    scores = segmentation_scores(scene(), predicted)
    assert scores["object_miou"] == 0.5
    assert scores["background_iou"] == pytest.approx(16 / 24)
    assert scores["fg_ari"] == 1.0  # blind to it: the reason why it does not stand alone


def test_matching_is_one_to_one_over_the_whole_clip():
    swapped = scene()
    swapped[1] = np.array([0, 2, 1])[swapped[1]]  # the slots change places in the second frame
    scores = segmentation_scores(scene(), swapped)
    assert scores["object_miou"] == pytest.approx(1 / 3)
    assert scores["background_iou"] == 1.0


def test_hungarian_matching_maximises_the_sum():
    table = np.array([[0, 0], [6, 4], [5, 0]])  # a greedy choice gives label 1 the first segment
    assert matched_ious(table)[1:] == pytest.approx([4 / 10, 5 / 11])


def test_fewer_slots_than_segments_leave_one_at_zero_and_absent_objects_do_not_count():
    everything_one = np.zeros((2, 4, 4), dtype=int)
    assert segmentation_scores(scene(), everything_one)["object_miou"] == 0.0
    gap = np.where(scene() == 2, 3, scene())  # there is no object 2
    assert segmentation_scores(gap, gap)["object_miou"] == 1.0


def test_what_cannot_be_measured_is_none_and_is_left_out_of_means():
    empty = np.zeros((1, 4, 4), dtype=int)
    assert segmentation_scores(empty, empty) == {
        "object_miou": None,
        "background_iou": 1.0,
        "ari": 1.0,
        "fg_ari": None,
    }
    scores = SegmentationScores()
    scores.update(empty, empty)
    scores.update(scene(), np.where(scene() == 2, 0, scene()))
    assert scores.result()["object_miou"] == 0.5
    assert SegmentationScores().result() == dict.fromkeys(METRICS)

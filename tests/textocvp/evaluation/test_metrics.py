import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score
from torch.testing import assert_close

from textocvp.evaluation import metrics
from textocvp.evaluation.metrics import METRICS, PredictionScores, decibels, psnr, segmentation_scores, ssim
from textocvp.files import UserError


def test_golden_psnr_and_ssim_of_each_frame(golden):
    case = golden("metrics")
    window, preds, targets = (case.tensors[name] for name in ("ssim_kernel", "preds", "targets"))
    assert torch.allclose(metrics.gaussian_window(), window[0, 0], atol=1e-7)
    for name, metric in (("psnr", psnr), ("ssim", ssim)):
        found = metric(preds, targets)
        assert_close(found, case.tensors[name], atol=1e-5, rtol=0)
        assert_close(found.mean(0), case.tensors[f"{name}_framewise"], atol=1e-5, rtol=0)
        assert_close(found.mean(), case.tensors[f"{name}_mean"], atol=1e-5, rtol=0)


def test_golden_scores_over_batches_of_different_size_weigh_clips_equally(golden):
    tensors = golden("metrics").tensors
    scores = PredictionScores()
    for preds, targets in (("preds", "targets"), ("preds_batch2", "targets_batch2")):
        scores.update(tensors[preds], tensors[targets], tensors[targets][:, 0])
    result = scores.result()
    for name in ("psnr", "ssim"):
        assert result[name] == pytest.approx(float(tensors[f"two_batches.{name}_mean"]), abs=1e-5)
        framewise = tensors[f"two_batches.{name}_framewise"].tolist()
        assert result[f"{name}_per_frame"] == pytest.approx(framewise, abs=1e-5)
        assert result[f"{name}_last"] == result[f"{name}_per_frame"][-1]


def test_identical_frames_score_80_dB_and_ssim_1():
    frames = torch.rand(2, 3, 16, 16)
    assert psnr(frames, frames).tolist() == [80.0, 80.0]
    assert torch.allclose(ssim(frames, frames), torch.ones(2))
    assert decibels(0.01) == pytest.approx(20.0, abs=1e-4)

    with pytest.raises(UserError, match=r"at least 11 x 11 pixels, these have 8 x 32.*dataset.img_size"):
        ssim(torch.rand(1, 3, 8, 32), torch.rand(1, 3, 8, 32))


def test_a_pixel_moves_where_any_channel_of_any_frame_differs():
    context = torch.full((1, 3, 4, 4), 0.5)
    targets = context[:, None].repeat(1, 2, 1, 1, 1)
    targets[0, 1, 2, 3, 0] += 0.07
    targets[0, 0, 0, 1, 1] += 0.05
    moving = metrics.moving_pixels(context, targets)
    assert moving.nonzero().tolist() == [[0, 3, 0]]


def test_psnr_moving_pools_the_error_over_all_moving_pixels():
    context = torch.zeros(2, 3, 16, 16)
    targets = torch.zeros(2, 2, 3, 16, 16)
    targets[0, :, :, 0, 0] = 1.0  # one moving pixel in clip 0 ...
    targets[1, :, :, :3, 0] = 1.0  # ... and three in clip 1
    predicted = targets.clone()
    predicted[0, :, :, 0, 0] = 0.6
    predicted[:, :, :, 9, 9] = 1.0  # a wrong pixel that does not move
    scores = PredictionScores()
    for clip in range(2):
        scores.update(predicted[clip : clip + 1], targets[clip : clip + 1], context[clip : clip + 1])
    assert scores.result()["psnr_moving"] == pytest.approx(decibels(0.16 / 4), abs=1e-4)


def test_predictions_are_clamped_and_a_still_scene_has_no_moving_psnr():
    targets = torch.ones(1, 2, 3, 16, 16)
    scores = PredictionScores()
    scores.update(targets * 3, targets, targets[:, 0])
    assert scores.result()["psnr"] == 80.0
    assert scores.result()["psnr_moving"] is None


def scene():
    """(2, 4, 4): background, object 1 in the first row, object 2 in the last."""
    labels = np.zeros((2, 4, 4), dtype=np.uint8)
    labels[:, 0], labels[:, 3] = 1, 2
    return labels


def test_adjusted_rand_index_equals_scikit_learn_and_does_not_overflow():
    rng = np.random.default_rng(0)
    for groups in (1, 2, 5):
        for noise in (0.0, 0.3, 1.0):
            true = rng.integers(0, groups, 500)
            predicted = np.where(rng.random(500) < noise, rng.integers(0, 4, 500), 7 - true)
            found = metrics.adjusted_rand_index(metrics.contingency(true, predicted))
            assert found == pytest.approx(adjusted_rand_score(true, predicted), abs=1e-9)

    true = np.repeat([0, 1], 3_000_000)
    assert metrics.adjusted_rand_index(metrics.contingency(true, 1 - true)) == 1.0


def test_a_perfect_segmentation_scores_one_whatever_its_labels_are_called():
    scores = segmentation_scores(scene(), np.array([5, 0, 2])[scene()])
    assert scores == dict.fromkeys(METRICS, 1.0)


def test_an_object_left_in_the_background_slot_costs_its_iou():
    predicted = np.where(scene() == 2, 0, scene())
    scores = segmentation_scores(scene(), predicted)
    assert scores["object_miou"] == 0.5
    assert scores["background_iou"] == pytest.approx(16 / 24)
    assert scores["fg_ari"] == 1.0  # blind to it: the reason why it does not stand alone


def test_matching_is_one_to_one_over_the_whole_clip_and_maximises_the_sum():
    swapped = scene()
    swapped[1] = np.array([0, 2, 1])[swapped[1]]  # the slots change places in the second frame
    scores = segmentation_scores(scene(), swapped)
    assert scores["object_miou"] == pytest.approx(1 / 3)
    assert scores["background_iou"] == 1.0

    table = np.array([[0, 0], [6, 4], [5, 0]])  # a greedy choice gives label 1 the first segment
    assert metrics.matched_ious(table)[1:] == pytest.approx([4 / 10, 5 / 11])


def test_fewer_slots_than_segments_leave_one_at_zero_and_absent_objects_do_not_count():
    everything_one = np.zeros((2, 4, 4), dtype=int)
    assert segmentation_scores(scene(), everything_one)["object_miou"] == 0.0
    gap = np.where(scene() == 2, 3, scene())  # there is no object 2
    assert segmentation_scores(gap, gap)["object_miou"] == 1.0


def test_what_cannot_be_measured_is_none_and_is_left_out_of_means():
    empty = np.zeros((1, 4, 4), dtype=int)
    known = {"background_iou": 1.0, "ari": 1.0}
    assert segmentation_scores(empty, empty) == {"object_miou": None, "fg_ari": None, **known}
    scores = metrics.SegmentationScores()
    scores.update([empty, scene()], [empty, np.where(scene() == 2, 0, scene())])
    assert scores.result()["object_miou"] == 0.5
    assert metrics.SegmentationScores().result() == dict.fromkeys(METRICS)

import pytest
import torch
from torch.testing import assert_close

from textocvp.config.errors import UserError
from textocvp.evaluation.metrics import PredictionScores, decibels, gaussian_window, moving_pixels, psnr, ssim


def test_golden_psnr_and_ssim_of_each_frame(golden):
    case = golden("metrics")
    preds, targets = case.tensors["preds"], case.tensors["targets"]
    for name, metric in (("psnr", psnr), ("ssim", ssim)):
        found = metric(preds, targets)
        assert_close(found, case.tensors[name], atol=1e-5, rtol=0)
        assert_close(found.mean(0), case.tensors[f"{name}_framewise"], atol=1e-5, rtol=0)
        assert_close(found.mean(), case.tensors[f"{name}_mean"], atol=1e-5, rtol=0)


def test_golden_window(golden):
    assert torch.allclose(gaussian_window(), golden("metrics").tensors["ssim_kernel"][0, 0], atol=1e-7)


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


def test_ssim_of_images_smaller_than_its_window_is_refused():
    with pytest.raises(UserError, match=r"at least 11 x 11 pixels, these have 8 x 32.*dataset.img_size"):
        ssim(torch.rand(1, 3, 8, 32), torch.rand(1, 3, 8, 32))


def test_a_pixel_moves_where_any_channel_of_any_frame_differs():
    context = torch.full((1, 3, 4, 4), 0.5)
    targets = context[:, None].repeat(1, 2, 1, 1, 1)
    targets[0, 1, 2, 3, 0] += 0.07
    targets[0, 0, 0, 1, 1] += 0.05
    moving = moving_pixels(context, targets)
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

from __future__ import annotations

import pytest
import torch

from textocvp.config.data import SlotStoreConfig
from textocvp.config.errors import UserError
from textocvp.config.experiment import create_predictor_experiment
from textocvp.data.order import Window, enumerate_windows, initial_noise, window_frames, window_noise

CONFIG = SlotStoreConfig(stride=3, draws=2)


def windows(split="train", length=12, num_frames=5, **settings):
    return enumerate_windows("v", length, num_frames, split, CONFIG, eval_start=1, **settings)


def test_training_windows_start_every_stride_frames_with_several_draws():
    assert windows() == [Window("v", start, draw) for start in (0, 3, 6) for draw in (0, 1)]
    assert windows(length=13)[-1].start == 6 and windows(length=14)[-1].start == 9  # fits exactly
    assert windows(length=5) == [("v", 0, 0), ("v", 0, 1)]


def test_without_random_start_training_windows_start_where_evaluation_does():
    assert windows(random_start=False) == [("v", 1, 0), ("v", 1, 1)]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluation_has_one_window_per_video(split):
    assert windows(split) == [("v", 1, 0)] == windows(split, length=6)


@pytest.mark.parametrize("split, length", [("train", 4), ("test", 5)])
def test_too_short_videos(split, length):
    with pytest.raises(UserError, match=f"video v has {length} frames, too few for windows of 5 frames"):
        windows(split, length=length)


def test_noise_is_a_function_of_its_arguments():
    noise = initial_noise(0, "v", 3, 1, (4, 8))
    assert noise.dtype == torch.float32 and noise.shape == (4, 8)
    torch.manual_seed(1)
    assert torch.equal(noise, initial_noise(0, "v", 3, 1, (4, 8)))
    others = [(1, "v", 3, 1), (0, "w", 3, 1), (0, "v", 4, 1), (0, "v", 3, 2), (0, "v", 31, 1)]
    drawn = {tuple(initial_noise(*other, (4, 8)).flatten().tolist()) for other in others}
    assert len(drawn) == len(others) and tuple(noise.flatten().tolist()) not in drawn


def test_noise_is_standard_normal():
    noise = window_noise(0, [Window(str(index), 0, 0) for index in range(200)], (8, 16))
    assert noise.shape == (200, 8, 16)
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert torch.equal(noise[7], initial_noise(0, "7", 0, 0, (8, 16)))


def test_windows_are_as_long_as_the_longest_predictor_needs(make_experiment):
    folder, experiment = make_experiment()
    assert window_frames(experiment, folder) == 4
    for name, num_preds in (("a", 2), ("b", 6)):
        create_predictor_experiment(
            folder, name, "VanillaTransformer", [f"prediction_params.num_preds={num_preds}"]
        )
    assert window_frames(experiment, folder) == window_frames(experiment, folder / "predictors" / "a") == 7

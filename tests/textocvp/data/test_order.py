from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from textocvp.config.data import SlotStoreConfig
from textocvp.config.experiment import create_predictor_experiment
from textocvp.config.training import CurriculumStage
from textocvp.data import order
from textocvp.data.order import RankBatches, Sample, TrainingOrder, Window, window_frames, window_noise
from textocvp.files import UserError

from .conftest import assert_refused

CURRICULUM = tuple(
    CurriculumStage(until=until, num_frames=frames, batch_size=batch)
    for until, frames, batch in ((0.3, 1, 8), (0.75, 3, 6), (1.0, 6, 4))
)


def batches(first_step=0, total_steps=20, rank=0, world=1, seed=0, **settings):
    return list(RankBatches(TrainingOrder(10, 4, seed, total_steps, **settings), first_step, rank, world))


@pytest.mark.parametrize("curriculum", [(), CURRICULUM])
def test_resuming_needs_only_the_step(curriculum):
    whole = batches(curriculum=curriculum)
    for step in (0, 1, 5, 6, 7, 15, 19):
        assert batches(first_step=step, curriculum=curriculum) == whole[step:]
    assert len(whole) == 20 and batches(first_step=20) == []


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_same_global_batches(world):
    ranks = [batches(rank=rank, world=world) for rank in range(world)]
    assert [sum(parts, []) for parts in zip(*ranks)] == batches()
    assert all(len(batch) == 4 // world for rank in ranks for batch in rank)


def test_every_epoch_visits_everything_once_in_another_order_or_that_of_the_split():
    samples = sum(batches(total_steps=10), [])
    epochs = [[sample.row for sample in samples if sample.epoch == epoch] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert batches(seed=1) != batches(seed=0)

    samples = sum(batches(total_steps=5, shuffle=False), [])
    assert [sample.row for sample in samples] == [*range(10)] * 2


def test_the_curriculum_changes_clip_length_and_batch_size():
    sizes = [(len(batch), batch[0].num_frames) for batch in batches(curriculum=CURRICULUM)]
    assert sizes == [(8, 1)] * 6 + [(6, 3)] * 9 + [(4, 6)] * 5
    counts = Counter(sample.epoch for batch in batches(curriculum=CURRICULUM) for sample in batch)
    assert all(counts[epoch] == 10 for epoch in range(12)) and sum(counts.values()) == 122


def test_samples_before_is_the_sum_of_the_batches():
    training = TrainingOrder(10, 4, 0, 20, curriculum=CURRICULUM)
    sizes = [training.batch_size_at(step) for step in range(25)]
    assert [training.samples_before(step) for step in range(25)] == [sum(sizes[:step]) for step in range(25)]
    assert training.epoch_at(0) == 0 and training.epoch_at(2) == 1
    assert {sample.num_frames for sample in training.batch(0)} == {1}
    assert {sample.num_frames for sample in training.batch(24)} == {6}


def test_a_world_size_that_does_not_divide_the_batch_or_an_empty_split_is_an_error():
    assert_refused("batch_size: 4 clips cannot be divided evenly among 3 processes", batches, world=3)
    assert_refused("6 clips cannot be divided evenly among 4", batches, world=4, curriculum=CURRICULUM)

    assert_refused("the training split is empty", RankBatches, TrainingOrder(0, 4, 0, 10))


def test_random_numbers_never_change():
    # what a resumed or repeated run must find again, on any machine and with any version
    assert order.hashed("start", 0, 1, 2) % 1000 == 551
    assert order.generator_of("order", 0, 0).permutation(6).tolist() == [2, 1, 4, 0, 5, 3]
    noise = order.generator_of("slots", 0, "v", 1, 0).standard_normal(3, dtype=np.float32)
    assert noise.tolist() == pytest.approx([-1.272094, 0.983851, -1.16614], abs=1e-6)
    assert Sample(3, 1) == (3, 1, None)


def windows(split="train", length=12, num_frames=5, random_start=True):
    slots = SlotStoreConfig(stride=3, draws=2)
    dataset = SimpleNamespace(random_start=random_start)
    experiment = SimpleNamespace(suite=SimpleNamespace(slots=slots), dataset=dataset)
    dataset = SimpleNamespace(split=split, video_ids=["u", "v"], eval_start=1)
    return order.enumerate_windows(experiment, dataset, 1, length, num_frames)


def test_training_windows_start_every_stride_frames_with_several_draws():
    assert windows() == [Window("v", start, draw) for start in (0, 3, 6) for draw in (0, 1)]
    assert windows(length=13)[-1].start == 6 and windows(length=14)[-1].start == 9  # fits exactly
    assert windows(length=5) == [("v", 0, 0), ("v", 0, 1)]

    assert windows(random_start=False) == [("v", 1, 0), ("v", 1, 1)]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluation_has_one_window_per_video(split):
    assert windows(split) == [("v", 1, 0)] == windows(split, length=6)


@pytest.mark.parametrize("split, length", [("train", 4), ("test", 5)])
def test_too_short_videos(split, length):
    with pytest.raises(UserError, match=f"video v has {length} frames, too few for windows of 5 frames"):
        windows(split, length=length)


def test_noise_is_a_standard_normal_function_of_its_arguments():
    def noise(seed, *window):
        return window_noise(seed, [Window(*window)], (4, 8))[0]

    torch.manual_seed(1)
    assert noise(0, "v", 3, 1).dtype == torch.float32 and noise(0, "v", 3, 1).shape == (4, 8)
    every = [(0, "v", 3, 1), (1, "v", 3, 1), (0, "w", 3, 1), (0, "v", 4, 1), (0, "v", 3, 2), (0, "v", 31, 1)]
    drawn = {tuple(noise(*each).flatten().tolist()) for each in every + every}
    assert len(drawn) == len(every)

    many = window_noise(0, [Window(str(index), 0, 0) for index in range(200)], (8, 16))
    assert many.shape == (200, 8, 16)
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03
    assert torch.equal(many[7:8], window_noise(0, [Window("7", 0, 0)], (8, 16)))


def test_windows_are_as_long_as_the_longest_predictor_needs(make_experiment):
    folder, experiment = make_experiment()
    assert window_frames(experiment, folder) == 4
    for name, num_preds in (("a", 2), ("b", 6)):
        changes = [f"prediction_params.num_preds={num_preds}"]
        create_predictor_experiment(folder, name, "VanillaTransformer", changes)
    assert window_frames(experiment, folder) == window_frames(experiment, folder / "predictors" / "a") == 7

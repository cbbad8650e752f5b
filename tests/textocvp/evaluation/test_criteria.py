import pytest
import torch

from textocvp.config.errors import UserError
from textocvp.evaluation.select import CRITERIA, DEFAULT_CRITERION, Observation, find_criterion, score_all

MEDIAN = torch.full((3, 8, 8), 0.5)


def clip():
    """Video (1, 4, 3, 8, 8): two 2 x 2 objects that stay on a grey background."""
    video = MEDIAN.repeat(1, 4, 1, 1, 1)
    video[..., 1:3, 1:3], video[..., 5:7, 4:6] = 0.9, 0.1
    return video


def masks(labels, certainty=1.0):
    """One-hot masks (1, 4, 3, 8, 8) of labels (4, 8, 8), mixed with even ones."""
    hard = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()[None]
    return certainty * hard + (1 - certainty) / 3


def true_labels():
    labels = torch.zeros(4, 8, 8, dtype=torch.long)
    labels[:, 1:3, 1:3], labels[:, 5:7, 4:6] = 1, 2
    return labels


def seen(labels, certainty=1.0):
    return Observation(clip(), masks(labels, certainty), torch.zeros(1), MEDIAN)


def score(name, observation):
    return float(CRITERIA[name].score(observation))


def test_a_perfect_decomposition_has_the_best_score_of_every_criterion():
    scores = score_all(seen(true_labels()))
    worst_or_best = {"validation_loss": 0.0, "mask_entropy": 0.0}
    for name, values in scores.items():
        assert values.shape == (1,)
        assert float(values) == pytest.approx(worst_or_best.get(name, 1.0), abs=1e-5), name


def test_a_background_shared_by_two_slots_loses():
    shared = true_labels()
    shared[:, :, 4:] = 2  # the right half belongs to the second object's slot
    for name in ("background_agreement", "background_mass", "separation"):
        assert score(name, seen(shared)) < 0.7
    assert score("mask_confidence", seen(shared)) == 1.0  # blind to it


def test_background_agreement_is_the_iou_of_the_largest_slot():
    labels = true_labels()
    labels[:, 1:3, 1:3] = 0  # one object stays in the background's slot: 56 of 60 pixels agree
    assert score("background_agreement", seen(labels)) == pytest.approx(56 / 60)
    assert score("background_mass", seen(labels)) == pytest.approx(1.0)
    assert score("foreground_release", seen(labels)) == pytest.approx(0.5)
    assert score("separation", seen(labels)) == pytest.approx(0.5)
    assert score("object_sharing", seen(labels)) == pytest.approx(0.0, abs=1e-5)


def test_the_largest_slot_need_not_be_the_first():
    assert score("background_agreement", seen((true_labels() + 1) % 3)) == 1.0


def test_unsure_masks_lose():
    for name in ("background_mass", "separation", "mask_confidence"):
        assert score(name, seen(true_labels(), 0.5)) < score(name, seen(true_labels(), 0.9))
    assert score("mask_entropy", seen(true_labels(), 0.5)) > score("mask_entropy", seen(true_labels(), 0.9))


def test_masks_that_jump_where_nothing_moves_are_unsteady():
    jumping = true_labels()
    jumping[2] = (jumping[2] + 1) % 3
    assert score("steadiness", seen(jumping)) == pytest.approx(1 - 2 / 3)
    single = Observation(clip()[:, :1], masks(true_labels())[:, :1], torch.zeros(1), MEDIAN)
    assert score("steadiness", single) == 1.0


def test_clips_are_scored_one_by_one():
    good, bad = seen(true_labels()), seen(torch.zeros_like(true_labels()))
    both = Observation(
        torch.cat([good.video, bad.video]),
        torch.cat([good.masks, bad.masks]),
        torch.tensor([1.0, 2.0]),
        MEDIAN,
    )
    for name, values in score_all(both).items():
        if name != "validation_loss":
            assert values.tolist() == pytest.approx([score(name, good), score(name, bad)]), name


def test_an_unknown_criterion_names_the_nearest():
    assert find_criterion(DEFAULT_CRITERION)
    with pytest.raises(UserError, match="unknown criterion 'steadines', did you mean 'steadiness'"):
        find_criterion("steadines")

import pytest
import torch

from textocvp.config.training import LossTerm
from textocvp.training.task import background_loss, frame_loss, slot_loss, weighted_sum


def test_frames_are_clamped_only_where_asked():
    frames, target = torch.full((1, 1, 3, 2, 2), 1.5), torch.full((1, 1, 3, 2, 2), 0.5)
    assert frame_loss(frames, target, LossTerm()).item() == 1.0
    assert frame_loss(frames, target, LossTerm(), clamp=True).item() == 0.25


def test_foreground_counts_more():
    median = torch.zeros(3, 1, 2)
    target = torch.tensor([0.0, 0.2]).expand(1, 1, 3, 1, 2)  # the right pixel is far from the median
    frames = torch.full((1, 1, 3, 1, 2), 0.1)  # off by 0.1 everywhere
    term = LossTerm(foreground_weight=8.0)
    assert frame_loss(frames, target, term, median).item() == pytest.approx((1 + 9) / 2 * 0.01)
    assert frame_loss(frames, target, LossTerm(), median).item() == pytest.approx(0.01)
    with pytest.raises(ValueError, match="needs the training split's median image"):
        frame_loss(frames, target, term)


def test_background_term_sees_slot_0_alone():
    slot_frames = torch.zeros(1, 2, 3, 3, 4, 4)
    slot_frames[:, :, 1:] = 9.0
    assert background_loss(slot_frames, torch.full((3, 4, 4), 0.5)).item() == 0.25


def test_terms_are_weighted_and_named():
    prediction = torch.zeros(1, 1, 2, 4, requires_grad=True)
    value = slot_loss(prediction, torch.ones(1, 1, 2, 4))
    terms = (LossTerm(type="pred_slot_mse", weight=0.5), LossTerm(type="pred_img_mse", weight=2.0))
    total, named = weighted_sum(terms, [value, 3 * value])
    assert total.item() == 6.5 and total.requires_grad
    found = {name: (value.item(), value.requires_grad) for name, value in named.items()}
    assert found == {"pred_slot_mse": (1.0, False), "pred_img_mse": (3.0, False)}

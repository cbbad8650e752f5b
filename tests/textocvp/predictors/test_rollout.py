import pytest
import torch
from torch import nn
from torch.testing import assert_close

from textocvp.predictors.rollout import SlotForecaster


class SumOfWindow(nn.Module):
    """Predicts the sum of the frames that it sees."""

    needs_text = False

    def __init__(self):
        super().__init__()
        self.windows = []

    def forward(self, slots, text):
        assert text is None
        self.windows.append(slots[0, :, 0, 0].tolist())
        return slots.sum(dim=1)


class NeedsText(SumOfWindow):
    needs_text = True


def summing(buffer_size=2, **settings):
    return SlotForecaster(SumOfWindow(), buffer_size, **settings)


def frames(*values):
    """Slots (1, T, 1, 1) that hold the given numbers."""
    return torch.tensor(values, dtype=torch.float)[None, :, None, None]


def test_predictions_enter_the_window_which_slides():
    forecaster = summing(buffer_size=3)
    predicted = forecaster(frames(1, 2, 100, 100), None, num_context=2, num_preds=4)
    assert forecaster.predictor.windows == [[1, 2], [1, 2, 3], [2, 3, 6], [3, 6, 11]]
    assert torch.equal(predicted, frames(3, 6, 11, 20))

    forecaster = summing(buffer_size=1)
    assert torch.equal(forecaster(frames(5), None, 1, 3), frames(5, 5, 5))

    forecaster = summing()
    assert torch.equal(forecaster(frames(1, 7, 8), None, 1, 2), forecaster(frames(1, 0, 0), None, 1, 2))


def test_teacher_forcing_shows_the_truth_while_training_alone():
    forecaster = summing()
    predicted = forecaster(frames(1, 10, 20), None, 1, 3, teacher_forcing=True)
    assert forecaster.predictor.windows == [[1], [1, 10], [10, 20]]
    assert torch.equal(predicted, frames(1, 11, 30))
    forced = forecaster.eval()(frames(1, 10, 20), None, 1, 3, teacher_forcing=True)
    assert torch.equal(forced, forecaster(frames(1), None, 1, 3))


def test_standardised_slots_whose_statistics_are_in_the_checkpoint():
    forecaster = summing(standardize_dim=1)
    forecaster.set_statistics(torch.tensor([3.0]), torch.tensor([2.0]))
    predicted = forecaster(frames(5), None, 1, 2)
    assert forecaster.predictor.windows == [[1], [1, 1]], "the predictor sees (5 - 3) / 2"
    assert torch.equal(predicted, frames(5, 7)), "predictions come back in the decoder's space"
    slots = torch.randn(2, 3, 4, 1)
    assert_close(forecaster.destandardize(forecaster.standardize(slots)), slots)

    forecaster = summing(standardize_dim=2)
    forecaster.set_statistics(torch.tensor([3.0, 1.0]), torch.tensor([2.0, 0.0]))
    assert torch.equal(forecaster.standardize(torch.tensor([5.0, 1.0])), torch.tensor([1.0, 0.0]))

    forecaster, other = (summing(standardize_dim=1) for _ in range(2))
    forecaster.set_statistics(torch.tensor([3.0]), torch.tensor([2.0]))
    other.load_state_dict(forecaster.state_dict())
    assert torch.equal(other.standardize(frames(5)), frames(1))
    assert not summing().state_dict()


@pytest.mark.parametrize(
    ("predictor", "num_context", "teacher_forcing", "message"),
    [
        (SumOfWindow, 3, False, "num_context 3 exceeds the buffer of 2 frames"),
        (SumOfWindow, 2, False, "slots of 2 frames are needed, found 1"),
        (SumOfWindow, 1, True, "slots of 4 frames are needed, found 1"),
        (NeedsText, 1, False, "NeedsText needs text"),
    ],
)
def test_impossible_requests(predictor, num_context, teacher_forcing, message):
    forecaster = SlotForecaster(predictor(), buffer_size=2)
    with pytest.raises(ValueError, match=message):
        forecaster(frames(1), None, num_context, 4, teacher_forcing)

import pytest
import torch
from torch.testing import assert_close

from textocvp.modules import positional
from textocvp.modules.positional import LearnedTimeEmbedding, SinusoidalTimeEmbedding, SoftPositionEmbedding


def test_grid_runs_along_height_then_width_with_complements():
    y, x, below, right = positional.coordinate_grid((3, 5))[0]
    assert_close(y[:, 2], torch.tensor([-1.0, 0.0, 1.0]))
    assert_close(x[1], torch.linspace(-1, 1, 5))
    assert_close(below, 1 - y)
    assert_close(right, 1 - x)


def test_position_projection_gain_scales_the_weights_only():
    embedding = SoftPositionEmbedding(6, (3, 5))
    before, bias = embedding(), embedding.projection.bias[None, :, None, None]
    embedding.scale_projection(4.0)
    assert before.shape == (1, 6, 3, 5)
    assert_close(embedding() - bias, 4 * (before - bias))


@pytest.mark.parametrize("dim", [6, 7])
def test_sinusoids_start_at_the_oldest_frame(dim):
    table = SinusoidalTimeEmbedding(dim, max_frames=4)
    assert table(3).shape == (3, 1, dim)
    assert_close(table(1)[0, 0], (torch.arange(dim) % 2).float())
    assert torch.equal(table(2), table(4)[:2])


def test_learned_time_starts_at_the_newest_frame():
    embedding = LearnedTimeEmbedding(6, max_frames=4)
    assert torch.equal(embedding(3)[0, :, 0], embedding.table[0, :3, 0].flip(0))
    assert torch.equal(embedding(1)[:, -1], embedding(3)[:, -1])


def test_tables_that_are_not_learned_stay_out_of_checkpoints():
    assert not SinusoidalTimeEmbedding(6, 4).state_dict()
    assert sorted(SoftPositionEmbedding(6, (3, 5)).state_dict()) == ["projection.bias", "projection.weight"]

import numpy as np
import pytest
import torch

from textocvp.data.videos import FAR, far_from, median_image
from textocvp.files import UserError


class MovingDot:
    """A table on which a white dot stands somewhere else in every frame."""

    dataset = None

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 5

    def frames(self, row, start=0, stop=None):
        self.reads += 1
        frames = np.full((8, 3, 4, 8), 100, dtype=np.uint8)
        for frame in range(8):
            frames[frame, :, row % 4, frame] = 255
        return frames[start:stop]


def test_the_median_shows_what_does_not_move_and_is_computed_once(tmp_path, monkeypatch):
    monkeypatch.setattr("textocvp.data.videos.frames_key", lambda dataset, size: {"size": size})
    videos = MovingDot()
    median = median_image(videos, tmp_path / "exp" / "seeds" / "0")
    assert median.shape == (3, 4, 8) and torch.allclose(median, torch.tensor(100 / 255))
    reads = videos.reads
    assert torch.equal(median_image(videos, tmp_path / "exp"), median)
    assert videos.reads == reads + 1, "only the size is looked up again"
    assert [path.suffix for path in (tmp_path / "exp").iterdir()] == [".png"]
    next((tmp_path / "exp").glob("*.png")).write_text("x")
    with pytest.raises(UserError, match=r"\.png: damaged .*; delete it"):
        median_image(videos, tmp_path / "exp")


def test_a_pixel_is_far_where_one_channel_is():
    reference = torch.full((3, 1, 4), 0.5)
    frames = reference.repeat(2, 1, 1, 1)
    frames[0, 1, 0, 2] += FAR + 0.01
    frames[1, :, 0, 3] -= FAR - 0.01
    far = far_from(frames, reference)
    assert far.shape == (2, 1, 4) and far.nonzero().tolist() == [[0, 0, 2]]
    assert far_from(frames, reference, threshold=0.01).sum() == 2

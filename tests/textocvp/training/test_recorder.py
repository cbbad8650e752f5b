import torch

from textocvp.training.recorder import Curves, segmentation, sheet


def test_sheet_puts_time_to_the_right_and_rows_below():
    frames = torch.stack([torch.full((3, 4, 5), value) for value in (0.0, 0.5)])
    picture = sheet([frames, 1 - frames, 2 * frames])
    assert picture.shape == (3, 3 * 6, 2 * 7)
    assert picture[0, 0, 0] == 0 and picture[0, 0, 7] == 0.5 and picture[0, 6, 0] == 1
    assert picture[0, 4:6].eq(1).all() and picture[:, :, 5:7].eq(1).all(), "white gaps"


def test_segmentation_has_one_colour_per_slot():
    masks = torch.zeros(2, 3, 1, 4, 4)
    masks[:, 0, :, :2], masks[:, 2, :, 2:] = 1.0, 1.0
    colours = segmentation(masks)
    assert colours.shape == (2, 3, 4, 4)
    assert torch.equal(colours[0, :, 0, 0], colours[1, :, 1, 3])
    assert not torch.equal(colours[0, :, 0, 0], colours[0, :, 3, 0])


def test_only_the_main_process_writes(tmp_path):
    curves = Curves(tmp_path / "logs", is_main=False)
    curves.scalars({"a": 1.0}, 1)
    curves.pictures({"b": torch.zeros(3, 4, 4)}, 1)
    curves.close()
    assert not (tmp_path / "logs").exists()

import numpy as np
import pytest
import torch

from textocvp.evaluation.decomposition import colour_kmeans, tiling
from textocvp.evaluation.metrics import segmentation_scores


def test_four_cells_are_two_by_two():
    assert tiling(4, 4, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


@pytest.mark.parametrize("num_cells", [1, 2, 3, 5, 7, 9, 11])
def test_every_number_of_cells_is_met_with_cells_of_similar_size(num_cells):
    sizes = np.bincount(tiling(num_cells, 48, 48).ravel(), minlength=num_cells)
    assert len(sizes) == num_cells
    assert sizes.min() > 0.5 * 48 * 48 / num_cells


def coloured_clip():
    """Clip (3, 3, 8, 8) with two objects of different colours on grey; its labels and the grey image."""
    median = np.full((3, 8, 8), 0.5, dtype=np.float32)
    video, labels = np.repeat(median[None], 3, axis=0), np.zeros((3, 8, 8), dtype=int)
    labels[:, 1:3, 1:3], labels[:, 5:7, 4:7] = 1, 2
    for label, colour in ((1, (0.9, 0.1, 0.1)), (2, (0.1, 0.1, 0.9))):
        frames, rows, columns = np.nonzero(labels == label)
        video[frames, :, rows, columns] = colour
    return torch.from_numpy(video + 0.01), labels, torch.from_numpy(median)


def test_colour_kmeans_finds_objects_of_different_colours():
    video, labels, median = coloured_clip()
    found = colour_kmeans(video, median, num_objects=2)
    assert set(segmentation_scores(labels, found).values()) == {1.0}
    assert (found == 0).sum() == (labels == 0).sum()
    assert np.array_equal(found, colour_kmeans(video, median, num_objects=2))


def test_colour_kmeans_survives_too_few_pixels_and_colours():
    video, labels, median = coloured_clip()
    assert not colour_kmeans(median.expand(3, -1, -1, -1), median, num_objects=2).any()
    assert not colour_kmeans(video, median, num_objects=0).any()
    assert colour_kmeans(video, median, num_objects=6).max() <= 6

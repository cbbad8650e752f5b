"""Segmentations that learn nothing: a tiling of the image, and k-means on colour. What slots have to beat.

FG-ARI alone misleads: a tiling scores about 0.5. Objects of different colours are easy for k-means, which is
moreover told the true number of objects and that the camera stands still.
"""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from textocvp.data.median_image import far_from

COLOUR_KMEANS_STARTS = 4
"""Initialisations of k-means, of which the best is kept."""


def tiling(num_cells: int, height: int, width: int) -> np.ndarray:
    """Labels (height, width) of a nearly square tiling: 4 cells lie 2 x 2, 5 cells in rows of 2 and 3."""
    num_rows = max(1, int(np.sqrt(num_cells)))
    row_of = np.arange(height) * num_rows // height
    labels = np.empty((height, width), dtype=np.int64)
    first = 0
    for row in range(num_rows):
        cells = (num_cells * (row + 1)) // num_rows - (num_cells * row) // num_rows
        labels[row_of == row] = first + np.arange(width) * cells // width
        first += cells
    return labels


def colour_kmeans(video: Tensor, median: Tensor, num_objects: int, seed: int = 0) -> np.ndarray:
    """Group a clip's foreground pixels by colour.

    Args:
        video: (T, 3, H, W) in [0, 1].
        median: (3, H, W) median image of the training split.
        num_objects: how many groups.
        seed: of k-means' initialisation.
    Returns:
        (T, H, W) integers: 0 where a pixel is near the median image, else 1 + its group.
    """
    inside = far_from(video, median).numpy()
    labels = np.zeros(inside.shape, dtype=np.int64)
    colours = video.permute(0, 2, 3, 1).numpy()[inside]
    num_groups = min(num_objects, len(colours))
    if num_groups > 0:
        kmeans = KMeans(num_groups, n_init=COLOUR_KMEANS_STARTS, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer colours than objects: fewer groups
            labels[inside] = 1 + kmeans.fit_predict(colours)
    return labels

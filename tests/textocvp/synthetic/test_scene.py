import itertools

import numpy as np
import pytest

from textocvp.synthetic import scene


def test_small_images_get_large_objects_and_large_images_the_true_ones():
    assert scene.object_radii(32) == {"small": 0.6, "medium": 0.8, "large": 1.0}
    assert scene.object_radii(16) == scene.object_radii(32)
    assert scene.object_radii(128) == dict(zip(scene.SIZES, scene.CATER_RADII)) == scene.object_radii(256)
    small = [scene.object_radii(size)["small"] for size in (128, 64, 32)]
    assert small[0] < small[1] < small[2]

    assert scene.object_radii(32, 2.0)["large"] == scene.object_radii(512, 2.0)["large"] == 1.44


@pytest.mark.parametrize("count", [1, 3, 8, 10])
def test_no_two_objects_have_the_same_description(count):
    for seed in range(50):
        looks = scene.sample_looks(np.random.default_rng(seed), count, distinct_colors=False)
        assert len(looks) == len(set(looks)) == count


def test_distinct_colors_repeat_only_when_there_are_no_more():
    for seed in range(100):
        looks = scene.sample_looks(np.random.default_rng(seed), 6, distinct_colors=True)
        colors = [look.color for look in looks]
        assert len(set(colors)) == 6
        assert not {"gold", "yellow"} <= set(colors)

    looks = scene.sample_looks(np.random.default_rng(0), 10, distinct_colors=True)
    assert len({look.color for look in looks}) >= 8


def test_half_of_the_scenes_hold_the_snitch():
    held = [scene.SNITCH in scene.sample_looks(np.random.default_rng(seed), 3, True) for seed in range(400)]
    assert 0.4 < np.mean(held) < 0.6


def test_easy_scenes_are_a_cone_over_small_and_the_snitch():
    for seed in range(30):
        cone, snitch = scene.sample_easy_looks(np.random.default_rng(seed))
        assert cone.shape == "cone" and cone.size in ("medium", "large") and snitch == scene.SNITCH


def test_cells_keep_their_distance_and_can_be_named():
    for seed in range(50):
        cells = scene.sample_cells(np.random.default_rng(seed), [1.0, 0.8, 0.6, 1.0], spacing=1.9)
        assert len(cells) == 4
        assert all(coordinate in scene.COORDINATES for cell in cells for coordinate in cell)
        for one, other in itertools.combinations(cells, 2):
            assert np.hypot(one[0] - other[0], one[1] - other[1]) >= 1.9

    assert scene.sample_cells(np.random.default_rng(0), [3.0] * 10, spacing=6.0) == []

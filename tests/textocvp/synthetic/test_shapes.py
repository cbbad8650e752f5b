"""The analytic shapes against marching along the ray through their plain inside-outside definition."""

import numpy as np
import pytest

from textocvp.synthetic import shapes

SHAPES = pytest.mark.parametrize("shape", ["sphere", "cube", "cylinder", "cone"])


def inside(shape, x, y, z):
    radial = np.hypot(x, y)
    return {
        "sphere": x * x + y * y + z * z < 1,
        "cube": np.maximum(np.maximum(abs(x), abs(y)), abs(z)) < shapes.CUBE_HALF,
        "cylinder": (radial < shapes.CYLINDER_HALF) & (abs(z) < shapes.CYLINDER_HALF),
        "cone": (z > 0) & (radial < 1 - z / shapes.CONE_HEIGHT),
    }[shape]


def rays_from_above(count):
    """Rays towards points near the origin from eyes that look down, as the camera does."""
    rng = np.random.default_rng(1)
    eye = rng.uniform(-1, 1, (count, 3)) * [4, 4, 1] + [0, 0, 6]
    target = rng.uniform(-1.1, 1.1, (count, 3))
    direction = (target - eye) / np.linalg.norm(target - eye, axis=1, keepdims=True)
    return eye.T.astype(np.float32), direction.T.astype(np.float32)


@SHAPES
def test_rays_enter_where_marching_enters(shape):
    origin, direction = rays_from_above(400)
    near, far = shapes.SHAPES[shape].intersect(tuple(origin), tuple(direction))
    steps = np.arange(0, 12, 0.004)[:, None]
    met = inside(shape, *(origin[axis] + steps * direction[axis] for axis in range(3)))
    hits = met.any(axis=0)
    assert 0.2 < hits.mean() < 0.95
    assert (np.isfinite(near) == hits).mean() > 0.985  # rays that only graze may fall between two steps
    both = hits & np.isfinite(near)
    np.testing.assert_allclose(near[both], steps[met.argmax(axis=0)[both], 0], atol=0.03)
    if shape != "cone":  # its base is left out, so `far` tells only that it is hit
        last = len(steps) - 1 - met[::-1].argmax(axis=0)
        np.testing.assert_allclose(far[both], steps[last[both], 0], atol=0.03)


@SHAPES
def test_a_missing_ray_never_enters_and_never_leaves(shape):
    zero, five = np.zeros(1, np.float32), np.full(1, 5, np.float32)
    near, far = shapes.SHAPES[shape].intersect((five, five, five), (zero, zero, zero + 1))
    assert near == np.inf and far == -np.inf


@pytest.mark.parametrize("shape", ["sphere", "cube", "cylinder", "cone", "snitch"])
def test_normals_are_unit_vectors_that_point_out(shape):
    origin, direction = rays_from_above(400)
    near, _ = shapes.SHAPES[shape].intersect(tuple(origin), tuple(direction))
    hit = np.isfinite(near)
    points = tuple((origin[axis] + near * direction[axis])[hit] for axis in range(3))
    normals = shapes.SHAPES[shape].normal(*points)
    np.testing.assert_allclose(sum(n * n for n in normals), 1, atol=1e-4)
    against_ray = sum(n * direction[axis][hit] for axis, n in enumerate(normals)) < 1e-3
    assert against_ray.mean() > (0.8 if shape == "snitch" else 0.999)  # a ring may be seen from inside


def test_the_snitch_has_rings_round_a_smaller_ball():
    origin, direction = rays_from_above(2000)
    near, far = shapes.snitch(tuple(origin), tuple(direction))
    hit = np.isfinite(near)
    radius = np.sqrt(sum((origin[axis] + near * direction[axis])[hit] ** 2 for axis in range(3)))
    on_ring, on_ball = abs(radius - 1) < 1e-3, abs(radius - shapes.CORE_RADIUS) < 1e-3
    assert (on_ring | on_ball).all() and on_ring.any() and on_ball.any()
    assert (np.isfinite(far) >= hit).all()  # its shadow is that of the whole sphere


@pytest.mark.parametrize("shape", list(shapes.SHAPES))
def test_the_sphere_round_a_shape_holds_it(shape):
    height, reach = shapes.SHAPES[shape][2:]
    origin, direction = rays_from_above(2000)
    near, _ = shapes.SHAPES[shape].intersect(tuple(origin), tuple(direction))
    hit = np.isfinite(near)
    x, y, z = ((origin[axis] + near * direction[axis])[hit] for axis in range(3))
    assert np.sqrt(x * x + y * y + (z - height) ** 2).max() <= reach + 1e-3

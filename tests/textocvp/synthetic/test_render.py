import numpy as np
import pytest

from textocvp.synthetic import motion
from textocvp.synthetic.geometry import make_camera
from textocvp.synthetic.render import render_video
from textocvp.synthetic.scene import COLORS, SHAPES, SceneObject

FRAMES = 6


def make(shape="sphere", cell=(1, 1), color="red", material="rubber", size="medium", radius=0.8):
    return SceneObject(size, color, material, shape, radius, cell, 0.4)


def render(*objects, tracks=None, size=32, antialias=2):
    tracks = tracks or [motion.resting_track(thing, FRAMES) for thing in objects]
    return render_video(make_camera(size, antialias), objects, tracks)


def moved(thing, *places):
    track = motion.resting_track(thing, len(places))
    positions = track.positions.copy()
    positions[:, :2] = [place[:2] for place in places]
    positions[:, 2] += [place[2] if len(place) > 2 else 0 for place in places]
    return motion.replace(track, positions=positions)


def middle(mask):
    rows, columns = np.nonzero(mask)
    return rows.mean(), columns.mean()


@pytest.mark.parametrize("shape", [*SHAPES, "snitch"])
@pytest.mark.parametrize("material", ["rubber", "metal"])
def test_a_still_object_is_drawn_alike_in_every_frame_and_in_its_colour(shape, material):
    frames, masks = render(make(shape, material=material))
    assert frames.shape == (FRAMES, 32, 32, 3) and frames.dtype == np.uint8
    assert masks.shape == (FRAMES, 32, 32) and masks.dtype == np.uint8 and set(np.unique(masks)) == {0, 1}
    assert (frames == frames[0]).all() and (masks == masks[0]).all()
    red, green, blue = frames[0][masks[0] == 1].mean(axis=0)
    assert red > 1.5 * green and red > 1.5 * blue


def test_the_table_is_grey_and_darker_in_the_shadow():
    frames, masks = render(make(), size=64, antialias=1)  # with more samples, pixels at the edge are mixed
    table = frames[0].astype(int)[masks[0] == 0]
    assert (np.ptp(table, axis=1) < 12).all()
    assert table.min() < 0.7 * np.median(table)


def test_metal_shines_and_rubber_does_not():
    whitest = {}
    for material in ("rubber", "metal"):
        frames, masks = render(make(material=material, color="blue"), size=128)
        whitest[material] = frames[0][masks[0] == 1].min(axis=-1).max()
    assert whitest["metal"] > 1.5 * whitest["rubber"]


@pytest.mark.parametrize(
    "cell, side", [((-2, 1), "left"), ((2, 1), "right"), ((1, 3), "back"), ((1, -3), "front")]
)
def test_coordinates_grow_to_the_right_and_to_the_back(cell, side):
    row, column = middle(render(make(cell=cell))[1][0])
    assert {"left": column < 14, "right": column > 18, "back": row < 14, "front": row > 18}[side]


def test_the_nearer_object_hides_the_other():
    alone = render(make(cell=(1, 2), color="blue"))[1]
    front, back = make(cell=(1, 1), radius=1.0), make(cell=(1, 2), color="blue")
    masks = render(back, front)[1]
    assert (masks == 1).sum() < (alone == 1).sum()
    assert (masks == 2).sum() == (render(front)[1] == 1).sum()


def test_masks_follow_a_moving_object():
    thing = make(cell=(-3, 1))
    track = moved(thing, (-3, 1), (-1, 1), (1, 1), (3, 1))
    frames, masks = render(thing, tracks=[track])
    columns = [middle(mask)[1] for mask in masks]
    assert np.all(np.diff(columns) > 4)
    assert (frames[0] != frames[1]).any()


def test_a_lifted_object_leaves_the_table_and_its_shadow_stays_behind():
    thing = make(cell=(1, 1))
    frames, masks = render(thing, tracks=[moved(thing, (1, 1), (1, 1, 2.0))])
    assert middle(masks[1])[0] < middle(masks[0])[0] - 3
    empty = make_camera(32, 2).table_rgb.mean(axis=-1) * 255
    shadow = (frames[1].mean(axis=-1) < 0.8 * empty) & (masks[1] == 0)
    assert shadow.sum() > 5 and middle(shadow)[0] > middle(masks[1])[0] + 3


def test_a_moving_object_shades_a_still_one():
    still, mover = make(cell=(1, 1), radius=1.0), make(cell=(2, 1), color="blue")
    above = moved(mover, (3, -3), (2.2, 0.2, 2.0))
    frames, masks = render(still, mover, tracks=[motion.resting_track(still, 2), above])
    seen = (masks == 1).all(axis=0)
    change = frames[1][seen].astype(int).sum(axis=1) - frames[0][seen].astype(int).sum(axis=1)
    assert change.min() < -60 and change.max() <= 0


def test_a_contained_object_is_not_seen():
    cone = make("cone", cell=(-1, -1), size="large", radius=1.0)
    inner = make("cylinder", cell=(1, 1), color="blue")
    tracks = [motion.resting_track(thing, 12) for thing in (cone, inner)]
    stage = motion.Stage(np.random.default_rng(0), [cone, inner], 0.0, tracks, set())
    assert motion.choose_contain(stage, 0, np.linspace(0, 1, 12)).target == 1
    masks = render(cone, inner, tracks=stage.tracks, size=64)[1]
    visible = (masks == 2).sum(axis=(1, 2))
    assert visible[0] > 50 and visible[-1] == 0


def test_out_of_view_is_no_error():
    frames, masks = render(make(), tracks=[moved(make(), (40, 0), (0, 40), (-40, 0))])
    assert (masks == 0).all() and frames.min() > 50


def test_antialiasing_is_the_mean_of_more_samples():
    thing = make("cube", size="large", radius=1.0)
    fine = render(thing, size=128, antialias=1)[0][0].astype(float)
    blurred = fine.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    smooth = render(thing, size=64, antialias=2)[0][0]
    # the light's samples lie elsewhere, and so do the edges of the shadow
    assert np.abs(smooth - blurred).mean() < 1.5


@pytest.mark.parametrize("color", sorted(COLORS))
def test_every_colour_stands_out_from_the_table(color):
    frames, masks = render(make("cube", color=color))
    table = make_camera(32, 2).table_rgb * 255
    difference = np.abs(frames[0] - table).max(axis=-1)[masks[0] == 1] / 255
    assert (difference > 0.06).mean() > 0.9


def test_the_camera_sees_the_whole_grid_from_64_pixels_on():
    for cell in ((-3, -3), (3, -3), (-3, 3), (3, 3)):
        masks = render(make(cell=cell, radius=0.7), size=64)[1]
        seen = masks[0] == 1
        assert seen.any() and not (seen[0].any() or seen[-1].any() or seen[:, 0].any() or seen[:, -1].any())

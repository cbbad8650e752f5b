import itertools

import numpy as np
import pytest

from textocvp.config.synthetic import ACTIONS, VideoSettings
from textocvp.synthetic import motion
from textocvp.synthetic.cater import plan_video
from textocvp.synthetic.scene import SceneObject


def settings(**changes):
    counts = {"num_train": 1, "num_valid": 0, "num_test": 1}
    scene = {"dataset": "CATER_Hard", "size": 32, "num_frames": 10, "max_objects": 3, "antialias": 1}
    return VideoSettings(**{**counts, **scene, **changes})


def plans(count=60, **changes):
    return [plan_video(settings(**changes), "train", index) for index in range(count)]


def thing(shape="cube", size="large", radius=1.0, cell=(1, 1)):
    return SceneObject(size, "red", "rubber", shape, radius, cell, 0.3)


@pytest.mark.parametrize("num_frames", [2, 3, 5, 8, 10, 31])
def test_an_action_fills_the_clip(num_frames):
    for seed in range(20):
        progress = motion.action_progress(np.random.default_rng(seed), num_frames)
        slack = num_frames // 10
        assert progress[0] == 0 and progress[-1] == 1 and (np.diff(progress) >= 0).all()
        assert progress[1] == 0 or num_frames <= 4  # the context frame of an evaluation shows the start
        assert np.flatnonzero(progress == 1)[0] >= num_frames - 2 - slack or num_frames <= 4
        assert np.flatnonzero(progress > 0)[0] <= 2 + slack


@pytest.mark.parametrize("name", ["slide", "pick_place"])
def test_movers_start_on_their_cell_and_reach_the_goal(name):
    for plan in plans(actions=[name]):
        for action in plan.actions:
            assert action.name == name
            positions = plan.tracks[action.subject].positions
            np.testing.assert_array_equal(positions[0, :2], plan.objects[action.subject].cell)
            np.testing.assert_allclose(positions[-1, :2], action.goal)
            assert np.hypot(*(positions[-1] - positions[0])[:2]) > motion.SHORTEST_MOVE
            assert positions[-1, 2] == positions[0, 2]
            rise = np.ptp(positions[:, 2])
            assert rise == 0 if name == "slide" else rise > 1, "only sliding stays on the table"


def test_objects_without_an_action_stay_where_they_are():
    for plan in plans(actions=["slide", "rotate"]):
        moving = {action.subject for action in plan.actions}
        for index, track in enumerate(plan.tracks):
            still = all((value == value[0]).all() for value in (track.positions, track.yaw, track.tilt))
            assert still != (index in moving)


def test_nothing_is_touched_on_the_way():
    for plan in plans(actions=["slide", "pick_place"], max_objects=4):
        for (one, track), (other, second) in itertools.combinations(zip(plan.objects, plan.tracks), 2):
            gap = np.linalg.norm(track.positions - second.positions, axis=1)
            assert gap.min() >= 0.85 * (one.radius + other.radius) - 1e-9


def test_starts_and_goals_are_spaced():
    for plan in plans(actions=["slide", "pick_place"]):
        for track, second in itertools.combinations(plan.tracks, 2):
            apart = np.linalg.norm((track.positions - second.positions)[:, :2], axis=1)
            assert apart[0] >= 1.9 and apart[-1] >= 1.6


def test_one_or_two_objects_move():
    counts = {len(plan.actions) for plan in plans()}
    assert counts == {1, 2}
    assert {len(plan.actions) for plan in plans(max_moving=1)} == {1}


def test_all_actions_occur_and_no_object_acts_twice():
    names = set()
    for plan in plans(150, max_objects=5, size=128):
        involved = [index for action in plan.actions for index in (action.subject, action.target)]
        involved = [index for index in involved if index is not None]
        assert len(involved) == len(set(involved))
        names |= {action.name for action in plan.actions}
    assert names == set(ACTIONS)


def test_only_shapes_whose_rotation_shows_rotate():
    for plan in plans(actions=["rotate"]):
        for action in plan.actions:
            track = plan.tracks[action.subject]
            assert plan.objects[action.subject].shape in motion.ROTATING_SHAPES
            assert np.ptp(track.yaw) > 1 or np.ptp(track.tilt) > 1


def test_a_tipping_cylinder_stays_on_the_table():
    cylinder = thing("cylinder", radius=0.5)
    track = motion.rotate_track(np.random.default_rng(0), cylinder, np.linspace(0, 1, 9))
    half = motion.REST_HEIGHT["cylinder"] * 0.5
    lowest = track.positions[:, 2] - half * (np.abs(np.cos(track.tilt)) + np.abs(np.sin(track.tilt)))
    np.testing.assert_allclose(lowest, 0, atol=1e-12)
    assert abs(track.tilt[-1]) == pytest.approx(np.pi / 2)


def test_containing_puts_a_larger_cone_over_an_object_that_stays():
    sizes = motion.SIZES
    for plan in plans(actions=["contain"], max_objects=4, size=64):
        for action in plan.actions:
            cone, inner = plan.objects[action.subject], plan.objects[action.target]
            assert cone.shape == "cone" and sizes.index(inner.size) < sizes.index(cone.size)
            covered, target = plan.tracks[action.subject].positions, plan.tracks[action.target]
            np.testing.assert_allclose(covered[-1, :2], inner.cell)
            assert covered[-1, 2] == 0 and (target.positions == target.positions[0]).all()
            assert target.ceiling[0] == np.inf and target.ceiling[-1] == 0


def test_a_video_is_a_function_of_seed_split_and_index():
    def key(plan):
        return [track.positions.tolist() for track in plan.tracks], plan.objects, plan.actions

    reference = key(plan_video(settings(), "train", 3))
    assert key(plan_video(settings(num_train=99), "train", 3)) == reference
    assert key(plan_video(settings(), "train", 4)) != reference
    assert key(plan_video(settings(), "test", 3)) != reference
    assert key(plan_video(settings(seed=1), "train", 3)) != reference

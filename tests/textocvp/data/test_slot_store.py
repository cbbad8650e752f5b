import json

import h5py
import numpy as np
import pytest
import torch

from textocvp.data.frame_store import prepare_data
from textocvp.data.slot_store import SlotStore, plan_slot_parts, slots_key
from textocvp.data.videos import open_videos
from textocvp.files import UserError

from .conftest import assert_refused

SHA = "c" * 64
SHAPE = (4, 3, 2)  # T, N, D


def fake_slots(window):
    """Slots that tell which window they are of."""
    number = int(window.video_id.split("_")[1]) + 100 * window.start + 1000 * window.draw
    return np.full(SHAPE, number, np.float32) + np.arange(2, dtype=np.float32) / 4


def batches(part):
    return ((windows, np.stack([fake_slots(window) for window in windows])) for _, windows in part.videos)


@pytest.fixture
def make_store(make_experiment):
    """Writes the slot store of an experiment; returns (folder, experiment, parts of train)."""

    def make(train=3, overrides=("suite.slots.draws=2",), write=True, **settings):
        folder, experiment = make_experiment(train=train, overrides=overrides, **settings)
        prepare_data(folder, 1)
        parts = plan(folder, experiment)
        for part in parts if write else []:
            part.write(batches(part), {"made": "by a test"})
        return folder, experiment, parts

    return make


def plan(folder, experiment, split="train", sha=SHA, num_frames=4, **shards):
    videos = open_videos(experiment, folder, split)
    return plan_slot_parts(experiment, folder, videos, sha, num_frames, **shards)


def open_store(folder, experiment, split="train", sha=SHA, num_frames=4):
    key = slots_key(experiment, open_videos(experiment, folder, split).dataset, sha)
    return SlotStore(folder / "slots" / split, key, num_frames)


def test_gives_back_every_window_and_the_file_shows_where_it_comes_from(make_store):
    folder, experiment, (part,) = make_store()
    store = open_store(folder, experiment)
    assert len(store) == len(part.windows) == 2 * 3 * 2  # videos x starts x draws
    for window in part.windows:
        assert (store.slots(window) == fake_slots(window)).all()
        assert store.slots(window, num_frames=2).shape == (2, 3, 2)
    first = part.windows[0].video_id
    assert store.windows(first) == [window for window in part.windows if window.video_id == first]
    assert_refused("no window of video 'nobody'.*precompute-slots", store.windows, "nobody")

    with h5py.File(folder / "slots" / "train" / "part_0000.h5") as file:
        assert file["slots"].shape == (12, *SHAPE) and file["slots"].dtype == np.float32
        assert file["slots"].chunks == (1, *SHAPE) and file["slots"].fletcher32
        rows = list(zip(file["video_id"].asstr()[:], file["start"][:], file["draw"][:]))
        assert rows == part.windows
        assert file.attrs["checkpoint_sha256"] == SHA and file.attrs["seed"] == 0
        assert json.loads(file.attrs["config"]) == {"made": "by a test"}
        assert json.loads(file.attrs["statistics"])["count"] == 12 * 4 * 3
    slots = np.stack([fake_slots(window) for window in part.windows]).reshape(-1, 2)
    mean, deviation = open_store(folder, experiment).statistics()
    assert mean.dtype == torch.float32 and mean.shape == deviation.shape == (2,)
    assert mean.numpy() == pytest.approx(slots.mean(0)) and deviation.numpy() == pytest.approx(slots.std(0))


def test_evaluation_splits_hold_one_window_per_video(make_store):
    folder, experiment, _ = make_store()
    for split in ("valid", "test"):
        (part,) = plan(folder, experiment, split)
        part.write(batches(part), {})
        assert {(window.start, window.draw) for window in part.windows} == {(1, 0)}
        assert len(open_store(folder, experiment, split)) == len(part.videos)


def test_another_checkpoint_or_other_settings_are_refused(make_store):
    folder, experiment, (part,) = make_store()
    with pytest.raises(UserError, match=r"checkpoint_sha256 is cccccccccccc\.\.\., not dddddddddddd\.\.\."):
        open_store(folder, experiment, sha="d" * 64)
    (other,) = plan(folder, experiment, sha="d" * 64)
    assert_refused("part_0000.json: created from different data", other.is_finished)
    assert part.is_finished()
    assert_refused("windows of 4 frames, but 6 are needed", open_store, folder, experiment, num_frames=6)
    assert open_store(folder, experiment, num_frames=3).num_frames == 4
    (longer,) = plan(folder, experiment, num_frames=5)
    assert_refused("num_frames is 4, not 5", longer.is_finished)


def test_shards_write_different_parts_of_one_store(make_store, monkeypatch):
    folder, experiment, parts = make_store(train=140, length=6, size=4, img_size=4, masks=False, write=False)
    assert [part.part.index for part in parts] == [0, 1, 2]
    shards = [plan(folder, experiment, shard=shard, num_shards=2) for shard in range(2)]
    assert [[part.part.index for part in shard] for shard in shards] == [[0, 2], [1]]
    for part in shards[0]:
        part.write(batches(part), {})
    assert_refused(r"2 of 3 parts \(see part_0001\)", open_store, folder, experiment)
    assert [part.is_finished() for part in parts] == [True, False, True]  # a rerun continues
    shards[1][0].write(batches(shards[1][0]), {})
    assert len(open_store(folder, experiment)) == sum(len(part.windows) for part in parts) == 133 * 2 * 2


def test_slots_that_are_no_numbers_and_wrong_windows_are_refused(make_store):
    folder, _, (part,) = make_store(write=False)
    bad = ((windows, np.full((len(windows), *SHAPE), np.nan)) for _, windows in part.videos)
    assert_refused("video train_00.: slots are not finite", part.write, bad, {})
    assert not list((folder / "slots").rglob("*.*"))
    some = list(batches(part))
    for wrong in (some[:1], some[::-1], some + some[:1]):
        with pytest.raises(ValueError, match="part_0000"):
            part.write(iter(wrong), {})


def test_a_damaged_part_is_named(make_store):
    folder, experiment, (part,) = make_store()
    path = folder / "slots" / "train" / "part_0000.h5"
    data = bytearray(path.read_bytes())
    at = data.find(fake_slots(part.windows[0]).tobytes())
    data[at] ^= 255
    path.write_bytes(data)
    store = open_store(folder, experiment)
    with pytest.raises(UserError, match=r"part_0000.h5: damaged .*delete it and run precompute-slots again"):
        store.slots(part.windows[0])
    assert (store.slots(part.windows[1]) == fake_slots(part.windows[1])).all()

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from textocvp.config.data import DatasetConfig
from textocvp.config.errors import UserError
from textocvp.data.cater import CATER
from textocvp.data.dataset import write_video
from textocvp.data.frame_store import (
    FrameStore,
    frame_parts,
    frames_key,
    resize_frames,
    resize_masks,
    write_frame_part,
)

SIZE = (4, 4)


@pytest.fixture
def dataset(make_cater):
    return CATER(DatasetConfig(dataset_name="CATER_Hard"), make_cater(), "test")


def write_store(folder, dataset, size=SIZE):
    for part in frame_parts(dataset):
        write_frame_part(folder, part, dataset, size, {})
    return FrameStore.open(folder, frames_key(dataset, size))


def test_gives_the_resized_frames_and_masks(tmp_path, dataset):
    store = write_store(tmp_path / "frames", dataset)
    for row, video_id in enumerate(dataset.video_ids):
        expected = resize_frames(dataset.read_frames(row), SIZE)
        assert store.length(video_id) == 8
        assert (store.frames(video_id) == expected).all() and expected.shape == (8, 3, 4, 4)
        clip = store.frames(video_id, 2, 5)
        assert (clip == expected[2:5]).all() and clip.dtype == np.uint8
        assert (store.masks(video_id, 2, 5) == resize_masks(dataset.masks(row), SIZE)[2:5]).all()


def test_a_chunk_is_a_video(tmp_path, dataset):
    write_store(tmp_path, dataset)
    with h5py.File(tmp_path / "part_0000.h5") as file:
        assert file["frames"].shape == (2, 8, 3, 4, 4) and file["frames"].chunks == (1, 8, 3, 4, 4)
        assert file["frames"].dtype == np.uint8 and file["frames"].fletcher32
        assert file["masks"].shape == (2, 8, 4, 4)
        assert file["video_id"].asstr()[:].tolist() == ["test_000", "test_001"]


def test_videos_of_different_lengths(tmp_path, dataset):
    frames = dataset.read_frames(1)
    write_video(dataset.entries[1].video, np.concatenate([frames, frames]))
    (dataset.folder / "masks" / "test_001.npz").unlink()
    store = write_store(tmp_path / "frames", dataset)
    assert store.length("test_000") == 8 and store.length("test_001") == 16
    assert store.frames("test_000").shape[0] == 8
    assert (store.frames("test_001", 8) == store.frames("test_001", 0, 8)).all()
    assert store.masks("test_000") is not None and store.masks("test_001") is None
    message = "video test_000 has 8 frames, too few for a clip of 6 frames from frame 4"
    with pytest.raises(UserError, match=message):
        store.frames("test_000", 4, 10)
    with pytest.raises(UserError, match="too few"):
        store.frames("test_000", -1, 4)


def test_masks_of_another_length_are_refused(tmp_path, dataset):
    np.savez(dataset.folder / "masks" / "test_000.npz", masks=np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(UserError, match="video test_000: has 8 frames, but 3 masks"):
        write_store(tmp_path / "frames", dataset)
    assert not list((tmp_path / "frames").glob("*"))


def test_resizing_is_bilinear_with_antialiasing():
    frames = torch.randint(0, 256, (2, 16, 12, 3), dtype=torch.uint8)
    expected = torch.nn.functional.interpolate(
        frames.permute(0, 3, 1, 2).double(), size=(4, 6), mode="bilinear", antialias=True
    )
    resized = resize_frames(frames.numpy(), (4, 6))
    assert resized.shape == (2, 3, 4, 6)
    assert np.abs(resized - expected.numpy()).max() <= 0.5 + 1e-3
    same = resize_frames(frames.numpy(), (16, 12))
    assert (same == frames.permute(0, 3, 1, 2).numpy()).all()


def test_masks_take_the_nearest_object():
    masks = np.kron(np.array([[0, 1], [2, 3]], dtype=np.uint8), np.ones((4, 4), np.uint8))[None]
    assert resize_masks(masks, (2, 2)).tolist() == [[[0, 1], [2, 3]]]
    assert set(np.unique(resize_masks(masks, (3, 5)))) == {0, 1, 2, 3}


def test_a_video_with_two_captions_is_stored_once(tmp_path, dataset):
    values = json.loads(dataset.file.read_text())
    values["2"] = {**values["0"], "caption": "the cone is rotating."}
    dataset.file.write_text(json.dumps(values))
    dataset = CATER(DatasetConfig(dataset_name="CATER_Hard"), dataset.folder.parent, "test")
    assert len(dataset) == 3 and [list(part.rows) for part in frame_parts(dataset)] == [[0, 1]]
    store = write_store(tmp_path / "frames", dataset)
    assert store.frames(dataset.video_ids[2]).shape == (8, 3, 4, 4)


def test_a_store_of_another_size_or_list_is_refused(tmp_path, dataset):
    write_store(tmp_path / "frames", dataset)
    with pytest.raises(UserError, match="height is 4, not 8; width is 4, not 8"):
        FrameStore.open(tmp_path / "frames", frames_key(dataset, (8, 8)))
    dataset.file.write_text(dataset.file.read_text() + "\n")
    with pytest.raises(UserError, match="json_sha256 is .*move .*frames aside and make it anew"):
        FrameStore.open(tmp_path / "frames", frames_key(dataset, SIZE))


def test_unknown_video(tmp_path, dataset):
    with pytest.raises(UserError, match="holds no video 'nobody'; run prepare-data again"):
        write_store(tmp_path / "frames", dataset).frames("nobody")

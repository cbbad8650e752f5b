import json
import shutil

import h5py
import numpy as np
import pytest
import torch

from textocvp.config.data import DatasetConfig
from textocvp.config.experiment import create_predictor_experiment
from textocvp.data import part_files
from textocvp.data.dataset import open_dataset, write_video
from textocvp.data.frame_store import frame_parts, prepare_data, resize_frames, resize_masks, write_frame_part
from textocvp.data.readers import CATER
from textocvp.data.videos import StoredVideos, open_videos
from textocvp.files import UserError

from .conftest import assert_refused

SIZE = (4, 4)


@pytest.fixture
def dataset(make_cater):
    return CATER(DatasetConfig(dataset_name="CATER_Hard"), make_cater(), "test")


def write_store(folder, dataset, size=SIZE):
    for part in frame_parts(dataset):
        write_frame_part(folder, part, dataset, size, {})
    return StoredVideos(dataset, folder, size)


def test_gives_the_resized_frames_and_masks_a_video_in_a_chunk(tmp_path, dataset):
    store = write_store(tmp_path / "frames", dataset)
    for row in range(len(dataset)):
        expected = resize_frames(dataset.read_frames(row), SIZE)
        assert store.length(row) == 8
        assert (store.frames(row) == expected).all() and expected.shape == (8, 3, 4, 4)
        clip = store.frames(row, 2, 5)
        assert (clip == expected[2:5]).all() and clip.dtype == np.uint8
        assert (store.masks(row, 2, 5) == resize_masks(dataset.masks(row), SIZE)[2:5]).all()

    with h5py.File(tmp_path / "frames" / "part_0000.h5") as file:
        assert file["frames"].shape == (2, 8, 3, 4, 4) and file["frames"].chunks == (1, 8, 3, 4, 4)
        assert file["frames"].dtype == np.uint8 and file["frames"].fletcher32
        assert file["masks"].shape == (2, 8, 4, 4)
        assert file["video_id"].asstr()[:].tolist() == ["test_000", "test_001"]


def test_videos_of_different_lengths(tmp_path, dataset):
    frames = dataset.read_frames(1)
    write_video(dataset.entries[1].video, np.concatenate([frames, frames]))
    (dataset.folder / "masks" / "test_001.npz").unlink()
    store = write_store(tmp_path / "frames", dataset)
    assert store.length(0) == 8 and store.length(1) == 16
    assert store.frames(0).shape[0] == 8
    assert (store.frames(1, 8) == store.frames(1, 0, 8)).all()
    assert store.masks(0) is not None and store.masks(1) is None
    message = "video test_000 has 8 frames, too few for a clip of 6 frames from frame 4"
    assert_refused(message, store.frames, 0, 4, 10)
    assert_refused("too few", store.frames, 0, -1, 4)


def test_masks_of_another_length_are_refused(tmp_path, dataset):
    np.savez(dataset.folder / "masks" / "test_000.npz", masks=np.zeros((3, 8, 8), np.uint8))
    assert_refused("video test_000: has 8 frames, but 3 masks", write_store, tmp_path / "frames", dataset)
    assert not list((tmp_path / "frames").glob("*"))


def test_resizing():
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
    assert store.frames(2).shape == (8, 3, 4, 4)


def test_a_store_of_another_size_or_list_is_refused(tmp_path, dataset):
    write_store(tmp_path / "frames", dataset)
    with pytest.raises(UserError, match="height is 4, not 8; width is 4, not 8"):
        StoredVideos(dataset, tmp_path / "frames", (8, 8))
    dataset.video_ids.append("nobody")
    with pytest.raises(UserError, match="no video 'nobody'; run prepare-data again"):
        StoredVideos(dataset, tmp_path / "frames", SIZE)
    dataset.file.write_text(dataset.file.read_text() + "\n")
    assert_refused("json_sha256 is .*move .*frames aside", StoredVideos, dataset, tmp_path / "frames", SIZE)


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("part_*"))}


@pytest.mark.parametrize("workers", [1, 2])
def test_prepares_all_splits(make_experiment, capsys, workers):
    folder, experiment = make_experiment(img_size=4, train=66, valid=2, length=5, size=4)
    prepare_data(folder, workers)
    for split, count in (("train", 66), ("valid", 2), ("test", 2)):
        videos = open_videos(experiment, folder, split)
        assert isinstance(videos, StoredVideos) and len(videos) == count
        assert videos.frames(count - 1, 1, 4).shape == (3, 3, 4, 4)
    assert f"{folder / 'frames'}: 4 parts" in capsys.readouterr().out
    assert len(list((folder / "frames" / "train").glob("*.h5"))) == 2


def test_run_again_it_writes_what_is_missing(make_experiment, caplog):
    folder, experiment = make_experiment()
    prepare_data(folder, 1)
    before = stamps(folder)
    caplog.set_level("INFO")
    prepare_data(folder, 1)
    assert stamps(folder) == before and "3 of 3 parts" in caplog.text
    lost = folder / "frames" / "train" / "part_0000.h5"
    lost.write_bytes(lost.read_bytes()[:100])  # cut off by a full disk, say
    prepare_data(folder, 1)
    after = stamps(folder)
    changed = {path.relative_to(folder).as_posix() for path in after if after[path] != before.get(path)}
    assert changed == {"frames/train/part_0000.h5", "frames/train/part_0000.json"}
    assert open_videos(experiment, folder, "train").frames(0).shape == (8, 3, 8, 8)
    file = folder / "data" / "hard" / "test_explicit.json"
    file.write_text(file.read_text().replace("red", "blue"))
    assert_refused("created from different data", prepare_data, folder, 1)
    assert stamps(folder) == after


@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_video_is_named_and_the_rest_is_kept(make_experiment, workers):
    folder, _ = make_experiment()
    (folder / "data" / "hard" / "videos" / "test_001.avi").unlink()
    assert_refused(r"test_001.avi: .*\(1 of 3 parts not written", prepare_data, folder, workers)
    assert len(stamps(folder)) == 4
    assert not list((folder / "frames" / "test").glob("*"))


def test_an_unknown_word_is_found_before_anything_is_decoded(make_experiment):
    folder, _ = make_experiment(overrides=["dataset.tokenizer=T5"])
    file = folder / "data" / "hard" / "test_explicit.json"
    file.write_text(file.read_text().replace("red metal", "pink metal"))
    create_predictor_experiment(folder, "mute", "VanillaTransformer")
    prepare_data(folder, 1)
    create_predictor_experiment(folder, "reader", "TextOCVP_CustomTF")
    shutil.rmtree(folder / "frames")
    assert_refused("caption .* not in the vocabulary of CATER_Hard.* 'pink'", prepare_data, folder, 1)
    assert not (folder / "frames").exists()


def test_without_predictors_the_experiments_own_vocabulary_is_checked(make_experiment):
    folder, _ = make_experiment(overrides=["dataset.vocabulary=words.json"])
    (folder / "words.json").write_text('{"[PAD]": 0, "[CLS]": 1, "[SEP]": 2}')
    assert_refused("caption .* not in .*words.json.* 'the'", prepare_data, folder, 1)


def test_missing_data_says_where_it_was_looked_for(make_experiment):
    folder, experiment = make_experiment()
    (folder / "data").rename(folder / "elsewhere")
    assert_refused("data: no such data folder; set dataset.root", prepare_data, folder, 1)
    assert_refused("no such data folder", open_dataset, experiment, folder, "train")


def test_the_disk_is_checked_before_a_part_counts(make_experiment, monkeypatch):
    folder, _ = make_experiment()

    def damaged(path):
        raise OSError("checksum")

    monkeypatch.setattr(part_files, "_read_back", damaged)
    with pytest.raises(OSError, match="checksum"):
        prepare_data(folder, 1)
    assert not stamps(folder)

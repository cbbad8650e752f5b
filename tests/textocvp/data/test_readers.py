import hashlib
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from textocvp.config.data import DatasetConfig
from textocvp.data.readers import CATER, EXCLUDED, CLIPort, held_out_ids
from textocvp.files import UserError

from .conftest import assert_refused

CONFIG = DatasetConfig(dataset_name="CATER_Hard")
CLIPORT = DatasetConfig(dataset_name="CLIPort")


def test_reads_frames_masks_states_and_captions(make_cater):
    data = CATER(CONFIG, make_cater(length=5), "test")
    assert len(data) == 2 and data.video_ids == ["test_000", "test_001"] and data.eval_start == 1
    assert data.captions[0] == "the large red metal cone is sliding to (-1, 3)."
    frames = data.read_frames(1)
    assert frames.shape == (5, 8, 8, 3) and frames.dtype == np.uint8
    assert (frames[..., 0] == 4).all() and (frames[3, ..., 1] == 3).all()
    assert (data.masks(1) == np.arange(8)[:, None]).all() and data.masks(1).shape == (5, 8, 8)
    assert data.states(0) == {"number": 3}


def test_a_valid_file_is_used_and_real_data_has_no_masks(make_cater):
    root = make_cater(train=3, valid=2)
    assert CATER(CONFIG, root, "valid").video_ids == ["valid_000", "valid_001"]
    assert len(CATER(CONFIG, root, "train")) == 3
    shutil.rmtree(root / "hard" / "masks")
    shutil.rmtree(root / "hard" / "states")
    data = CATER(CONFIG, root, "test")
    assert data.masks(0) is None and data.states(0) is None


def test_five_percent_of_train_are_held_out_without_a_valid_file(make_cater):
    root = make_cater(train=40, length=1)
    train, valid = (CATER(CONFIG, root, split).video_ids for split in ("train", "valid"))
    assert len(valid) == 2 and set(train).isdisjoint(valid) and len(train) == 38
    hashes = sorted(train + valid, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert set(valid) == set(hashes[:2])
    assert set(valid).isdisjoint(CATER(CONFIG, root, "test").video_ids)

    names = [f"v{index}" for index in range(100)]
    assert held_out_ids(names) == held_out_ids(names[::-1] + names) and len(held_out_ids(names)) == 5
    assert held_out_ids(["only"]) == set()


def test_the_original_trains_on_all_and_validates_on_test(make_cater):
    root = make_cater(train=3)
    assert CATER(CONFIG, root, "valid", hold_out=False).video_ids == ["test_000", "test_001"]
    train = CATER(CONFIG, root, "train", hold_out=False)
    assert len(train) == 3 and train.key() != CATER(CONFIG, root, "train").key()


def test_videos_of_one_name_in_two_folders_get_their_paths_as_ids(make_cater):
    root = make_cater()
    entries = {str(i): {"video": f"{folder}/a.avi", "caption": "x"} for i, folder in enumerate("pq")}
    (root / "hard" / "test_explicit.json").write_text(json.dumps(entries))
    assert CATER(CONFIG, root, "test").video_ids == ["p--a", "q--a"]


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"0": {"video"', "damaged, not valid JSON"),
        ("[1, 2]", "expected "),
        ('{"0": {"video": "a.avi", "caption": "x"}, "7": {"video": "b.avi"}}', "entry '7' has no caption"),
        ('{"0": {"video": "a.avi", "caption": " "}}', "entry '0' has no caption"),
        ('{"3": {"caption": "x"}}', "entry '3' has no video"),
        ('{"3": "x"}', "entry '3' has no video"),
        ("{}", "has no video for the split 'test'"),
    ],
)
def test_damaged_split_file(make_cater, text, message):
    root = make_cater()
    (root / "hard" / "test_explicit.json").write_text(text)
    with pytest.raises(UserError, match=rf"test_explicit.json: {message}") as caught:
        CATER(CONFIG, root, "test")
    assert "\n" not in str(caught.value)


def test_what_is_missing_or_damaged_is_named(make_cater):
    root = make_cater()
    data = CATER(CONFIG, root, "test")
    (root / "hard" / "videos" / "test_000.avi").unlink()
    assert_refused(r"test_000.avi: .*test_explicit.json", data.read_frames, 0)
    (root / "hard" / "videos" / "test_001.avi").write_bytes(b"no video")
    assert_refused(r"test_001.avi", data.read_frames, 1)
    (root / "hard" / "masks" / "test_000.npz").write_bytes(b"no zip")
    assert_refused(r"test_000.npz: damaged", data.masks, 0)

    assert_refused(r"nowhere/hard: no such folder; .*dataset.root", CATER, CONFIG, root / "nowhere", "train")
    with pytest.raises(UserError, match=r"easy: no such folder; .*CATER_Easy"):
        CATER(DatasetConfig(dataset_name="CATER_Easy"), root, "train")
    assert_refused(r"CATER_Hard has no split 'tset'; it has train, valid, test", CATER, CONFIG, root, "tset")
    (root / "hard" / "test_explicit.json").unlink()
    assert_refused(r"test_explicit.json: no such file", CATER, CONFIG, root, "test")


def write_episode(root, split, name, caption="put the red block in the green bowl\n", frames=3, size=6):
    folder = root / split / name
    (folder / "color").mkdir(parents=True)
    (folder / "task_description.txt").write_text(caption)
    for number in range(frames):
        image = np.full((size, size, 3), 10 * number, np.uint8)
        Image.fromarray(image).save(folder / "color" / f"{number:03d}_color.png")
    return folder


@pytest.fixture
def root(tmp_path):
    for split in ("train", "val", "test"):
        write_episode(tmp_path, split, "episode00001", frames=12)
        write_episode(tmp_path, split, "episode00000")
    return tmp_path


def test_episodes_in_order_with_captions_frames_and_generated_ones_with_masks_and_states(root):
    data = CLIPort(CLIPORT, root, "train")
    assert len(data) == 2 and data.video_ids == ["episode00000", "episode00001"]
    assert data.captions == ["put the red block in the green bowl"] * 2 and data.eval_start == 0
    frames = data.read_frames(1)
    assert frames.shape == (12, 6, 6, 3) and frames.dtype == np.uint8
    assert frames[:, 0, 0, 0].tolist() == [10 * number for number in range(12)]
    assert data.masks(0) is None and data.states(0) is None

    folder = root / "val" / "episode00000"
    np.savez(folder / "masks.npz", masks=np.ones((3, 6, 6), np.uint8))
    (folder / "states.json").write_text(json.dumps({"block": 1}))
    data = CLIPort(CLIPORT, root, "valid")
    assert data.masks(0).sum() == 108 and data.states(0) == {"block": 1}
    (folder / "masks.npz").write_bytes(b"broken")
    assert_refused("masks.npz: damaged", data.masks, 0)


def test_splits_have_vocabulary_and_key_and_leave_out_the_originals_excluded_episodes(root):
    vocabularies = [CLIPort(CLIPORT, root, split).vocabulary for split in ("train", "valid", "test")]
    assert vocabularies == ["CLIPort", "CLIPort", "CLIPort_test"]

    for name in EXCLUDED:
        write_episode(root, "train", name)
    assert len(CLIPort(CLIPORT, root, "train")) == 2

    first = CLIPort(CLIPORT, root, "train").key()
    assert first == CLIPort(CLIPORT, root, "train").key() != CLIPort(CLIPORT, root, "test").key()
    (root / "train/episode00000/task_description.txt").write_text("put the red block in the blue bowl")
    assert CLIPort(CLIPORT, root, "train").key() != first


def test_what_is_missing_or_damaged_in_episodes_is_named(root):
    assert_refused("CLIPort has no split 'val'; it has train, valid, test", CLIPort, CLIPORT, root, "val")
    with pytest.raises(UserError, match="nowhere/train: no such folder; .*dataset.root"):
        CLIPort(CLIPORT, root / "nowhere", "train")
    (root / "empty/train").mkdir(parents=True)
    assert_refused("empty/train: contains no episodeNNNNN folder", CLIPort, CLIPORT, root / "empty", "train")

    data, folder = CLIPort(CLIPORT, root, "train"), root / "train" / "episode00000"
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "color" / "002_color.png")
    assert_refused("002_color.png: is 8x6 pixels, but the first frame 6x6", data.read_frames, 0)
    (folder / "color" / "001_color.png").write_bytes(b"broken")
    assert_refused("001_color.png: unreadable .*; generate or copy it again", data.read_frames, 0)
    for path in (folder / "color").iterdir():
        path.unlink()
    assert_refused("episode00000/color: contains no NNN_color.png", data.read_frames, 0)
    (folder / "task_description.txt").write_text(" \n")
    assert_refused("task_description.txt: empty", CLIPort, CLIPORT, root, "train")
    (folder / "task_description.txt").write_bytes(b"\xff\xfe\xff")
    assert_refused("task_description.txt: damaged, not UTF-8", CLIPort, CLIPORT, root, "train")
    (folder / "task_description.txt").unlink()
    assert_refused("task_description.txt: no such file", CLIPort, CLIPORT, root, "train")

import json

import numpy as np
import pytest
from PIL import Image

from textocvp.config.data import DatasetConfig
from textocvp.config.errors import UserError
from textocvp.data.cliport import EXCLUDED, CLIPort

CONFIG = DatasetConfig(dataset_name="CLIPort")


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


def test_episodes_in_order_with_captions_and_frames(root):
    data = CLIPort(CONFIG, root, "train")
    assert len(data) == 2 and data.video_ids == ["episode00000", "episode00001"]
    assert data.captions == ["put the red block in the green bowl"] * 2 and data.eval_start == 0
    frames = data.read_frames(1)
    assert frames.shape == (12, 6, 6, 3) and frames.dtype == np.uint8
    assert frames[:, 0, 0, 0].tolist() == [10 * number for number in range(12)]
    assert data.masks(0) is None and data.states(0) is None


def test_masks_and_states_of_generated_episodes(root):
    folder = root / "val" / "episode00000"
    np.savez(folder / "masks.npz", masks=np.ones((3, 6, 6), np.uint8))
    (folder / "states.json").write_text(json.dumps({"block": 1}))
    data = CLIPort(CONFIG, root, "valid")
    assert data.masks(0).sum() == 108 and data.states(0) == {"block": 1}
    (folder / "masks.npz").write_bytes(b"broken")
    with pytest.raises(UserError, match="masks.npz: damaged"):
        data.masks(0)


def test_the_test_split_has_a_vocabulary_of_its_own(root):
    vocabularies = [CLIPort(CONFIG, root, split).vocabulary for split in ("train", "valid", "test")]
    assert vocabularies == ["CLIPort", "CLIPort", "CLIPort_test"]


def test_the_originals_excluded_episodes_are_left_out(root):
    for name in EXCLUDED:
        write_episode(root, "train", name)
    assert len(CLIPort(CONFIG, root, "train")) == 2


def test_the_key_follows_episodes_and_captions(root):
    first = CLIPort(CONFIG, root, "train").key()
    assert first == CLIPort(CONFIG, root, "train").key() != CLIPort(CONFIG, root, "test").key()
    (root / "train/episode00000/task_description.txt").write_text("put the red block in the blue bowl")
    assert CLIPort(CONFIG, root, "train").key() != first


def test_what_is_missing_or_damaged_is_named(root):
    with pytest.raises(UserError, match="CLIPort has no split 'val'; it has train, valid, test"):
        CLIPort(CONFIG, root, "val")
    with pytest.raises(UserError, match="nowhere/train: no such folder; .*dataset.root"):
        CLIPort(CONFIG, root / "nowhere", "train")
    (root / "empty/train").mkdir(parents=True)
    with pytest.raises(UserError, match="empty/train: contains no episodeNNNNN folder"):
        CLIPort(CONFIG, root / "empty", "train")

    data, folder = CLIPort(CONFIG, root, "train"), root / "train" / "episode00000"
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "color" / "002_color.png")
    with pytest.raises(UserError, match="002_color.png: is 8x6 pixels, but the first frame 6x6"):
        data.read_frames(0)
    (folder / "color" / "001_color.png").write_bytes(b"broken")
    with pytest.raises(UserError, match="001_color.png: unreadable .*; generate or copy it again"):
        data.read_frames(0)
    for path in (folder / "color").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="episode00000/color: contains no NNN_color.png"):
        data.read_frames(0)
    (folder / "task_description.txt").write_text(" \n")
    with pytest.raises(UserError, match="task_description.txt: empty"):
        CLIPort(CONFIG, root, "train")
    (folder / "task_description.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="task_description.txt: damaged, not UTF-8"):
        CLIPort(CONFIG, root, "train")
    (folder / "task_description.txt").unlink()
    with pytest.raises(UserError, match="task_description.txt: no such file"):
        CLIPort(CONFIG, root, "train")

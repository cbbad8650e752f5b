import numpy as np
import pytest

from textocvp.config.data import DatasetConfig
from textocvp.config.synthetic import VideoSettings
from textocvp.data.readers import EXCLUDED, CLIPort
from textocvp.data.tokenizers import CustomTokenizer
from textocvp.files import UserError
from textocvp.synthetic.cliport import (
    BOWL,
    RGB,
    TRAIN_COLORS,
    UNSEEN_COLORS,
    episode_name,
    render_episode,
    sample_episode,
)
from textocvp.synthetic.generate import make_data

SMALL = {"dataset": "CLIPort", "num_train": 4, "num_valid": 1, "num_test": 2, "size": 24, "num_frames": 8}


def make(out, workers=1, **changes):
    make_data(VideoSettings(**{**SMALL, **changes}), out, workers)


def episodes(count, test=False, num_frames=16):
    seeds = range(count)
    return [sample_episode(np.random.default_rng([7, seed]), test, 2, 7, num_frames) for seed in seeds]


def content(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_named_block_ends_in_the_named_bowl():
    for episode in episodes(50):
        block, bowl = episode.pieces[episode.block], episode.pieces[episode.bowl]
        assert (block.kind, bowl.kind) == ("block", "bowl") and block.color != bowl.color
        assert episode.caption == f"put the {block.color} block in the {bowl.color} bowl"
        first, last = episode.positions[0], episode.positions[-1]
        assert np.linalg.norm(last[episode.block] - last[episode.bowl]) < BOWL / 10
        others = [i for i in range(len(episode.pieces)) if i != episode.block]
        assert np.array_equal(first[others], last[others])
        assert np.linalg.norm(first[episode.block] - first[episode.bowl]) > BOWL
        for kind in ("block", "bowl"):
            colors = [piece.color for piece in episode.pieces if piece.kind == kind]
            assert len(set(colors)) == len(colors), "the caption names one of each"
        distances = np.linalg.norm(first[:, None] - first, axis=-1) + 9 * np.eye(len(first))
        assert distances.min() > 0.15, "pieces do not touch at the start"


def test_test_episodes_show_colours_that_training_never_shows():
    seen = {piece.color for episode in episodes(60) for piece in episode.pieces}
    assert seen == set(TRAIN_COLORS)
    for episode in episodes(60, test=True):
        named = {episode.pieces[episode.block].color, episode.pieces[episode.bowl].color}
        assert named & set(UNSEEN_COLORS)

    for test, name in ((False, "CLIPort"), (True, "CLIPort_test")):
        tokenizer = CustomTokenizer(name)
        for episode in episodes(60, test):
            assert len(tokenizer(episode.caption)) == 10


def test_masks_agree_with_the_pictures():
    (episode,) = episodes(1)
    frames, masks = render_episode(episode, 64, 2)
    assert frames.shape == (16, 64, 64, 3) and frames.dtype == np.uint8
    assert masks.shape == (16, 64, 64) and masks.dtype == np.uint8
    assert masks.max() == len(episode.pieces) + 1, "the gripper is the last"
    assert len(episode.pieces) + 1 not in masks[0], "it starts outside"
    block = episode.pieces[episode.block]
    shown = frames[0][masks[0] == episode.block + 1].mean(axis=0) / 255
    assert np.abs(shown - np.array(RGB[block.color])).max() < 0.2
    x, y = episode.positions[-1, episode.block]
    assert masks[-1, int(y * 64), int(x * 64)] == episode.block + 1


def test_generated_data_is_read_and_the_same_again(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "b", workers=2)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    config = DatasetConfig(dataset_name="CLIPort")
    for split, count in (("train", 4), ("valid", 1), ("test", 2)):
        data = CLIPort(config, tmp_path / "a", split)
        assert len(data) == count and data.read_frames(0).shape == (8, 24, 24, 3)
        assert data.masks(0).shape == (8, 24, 24) and data.states(0)["caption"] == data.captions[0]


def test_a_rerun_makes_only_what_is_missing(tmp_path):
    import shutil

    make(tmp_path)
    before = content(tmp_path)
    shutil.rmtree(tmp_path / "train/episode00002")
    (tmp_path / "train/.episode00002/color").mkdir(parents=True)
    make(tmp_path)
    assert content(tmp_path) == before and not (tmp_path / "train/.episode00002").exists()
    with pytest.raises(UserError, match="size: 24 -> 32"):
        make(tmp_path, size=32)


def test_numbers_that_readers_leave_out_are_not_used():
    names = [episode_name(index) for index in (0, 7563, 7564, 9030, 13755)]
    assert names == ["episode00000", "episode07563", "episode07565", "episode09032", "episode13759"]
    assert not set(EXCLUDED) & {episode_name(index) for index in range(14000)}

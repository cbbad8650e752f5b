from __future__ import annotations

import dataclasses
import os

import pytest

from textocvp.config.errors import UserError
from textocvp.config.experiment import PredictorSection, create_predictor_experiment
from textocvp.config.predictors import TextOCVPConfig
from textocvp.data import part_files
from textocvp.data.prepare import prepare_data
from textocvp.data.text_store import TextStore
from textocvp.data.videos import StoredVideos, open_dataset, open_tokens, open_videos


def reader_of_text(experiment):
    """The same experiment with a predictor that reads captions."""
    section = PredictorSection("TextOCVP_CustomTF", TextOCVPConfig())
    return dataclasses.replace(experiment, predictor=section)


def stamps(folder):
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("part_*"))}


@pytest.mark.parametrize("workers", [1, 2])
def test_builds_frames_and_text_of_all_splits(make_experiment, capsys, workers):
    folder, experiment = make_experiment(img_size=4, train=66, valid=2, length=5, size=4)
    prepare_data(folder, workers)
    for split, count in (("train", 66), ("valid", 2), ("test", 2)):
        videos = open_videos(experiment, folder, split)
        assert isinstance(videos, StoredVideos) and len(videos) == count
        assert videos.frames(count - 1, 1, 4).shape == (3, 3, 4, 4)
        tokens = open_tokens(reader_of_text(experiment), folder, videos.dataset)
        assert isinstance(tokens, TextStore) and len(tokens) == count
        assert tokens.tokens(0)[0] == 1 and tokens.tokens(count - 1)[-1] == 2
    out = capsys.readouterr().out
    assert "8 parts, 0 already there" in out and "8/8 parts" in out
    assert len(list((folder / "frames" / "train").glob("*.h5"))) == 2


def test_run_again_it_writes_nothing(make_experiment, capsys):
    folder, _ = make_experiment()
    prepare_data(folder, 1)
    before = stamps(folder)
    prepare_data(folder, 1)
    assert stamps(folder) == before and "6 parts, 6 already there" in capsys.readouterr().out


def test_continues_after_the_finished_parts(make_experiment):
    folder, experiment = make_experiment()
    prepare_data(folder, 1)
    before = stamps(folder)
    lost = folder / "frames" / "train" / "part_0000.h5"
    lost.write_bytes(lost.read_bytes()[:100])  # cut off by a full disk, say
    prepare_data(folder, 1)
    after = stamps(folder)
    changed = {path.relative_to(folder).as_posix() for path in after if after[path] != before.get(path)}
    assert changed == {"frames/train/part_0000.h5", "frames/train/part_0000.json"}
    assert open_videos(experiment, folder, "train").frames(0).shape == (8, 3, 8, 8)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_missing_video_is_named_and_the_rest_is_kept(make_experiment, workers):
    folder, _ = make_experiment()
    (folder / "data" / "hard" / "videos" / "test_001.avi").unlink()
    with pytest.raises(UserError, match=r"test_001.avi: missing, .*\(1 of 6 parts not written;"):
        prepare_data(folder, workers)
    assert len(stamps(folder)) == 10
    assert not list((folder / "frames" / "test").glob("*"))


def test_an_unknown_word_is_named(make_experiment):
    folder, _ = make_experiment()
    file = folder / "data" / "hard" / "test_explicit.json"
    file.write_text(file.read_text().replace("red metal", "pink metal"))
    with pytest.raises(UserError, match="word 'pink' of the caption .* not in the vocabulary of CATER_Hard"):
        prepare_data(folder, 1)


def test_a_store_of_other_data_is_not_overwritten(make_experiment):
    folder, _ = make_experiment()
    prepare_data(folder, 1)
    before = stamps(folder)
    file = folder / "data" / "hard" / "test_explicit.json"
    file.write_text(file.read_text().replace("red", "blue"))
    with pytest.raises(UserError, match="made from something else"):
        prepare_data(folder, 1)
    assert stamps(folder) == before


def test_tokenizers_of_the_predictors_are_prepared(make_experiment):
    folder, _ = make_experiment(overrides=["dataset.tokenizer=T5"])
    prepare_data(folder, 1)
    assert not (folder / "text").exists()
    create_predictor_experiment(folder, "mute", "VanillaTransformer")
    prepare_data(folder, 1)
    assert not (folder / "text").exists()
    create_predictor_experiment(folder, "reader", "TextOCVP_CustomTF")
    prepare_data(folder, 1)
    assert sorted(os.listdir(folder / "text" / "CustomTokenizer")) == ["test", "train", "valid"]


def test_missing_data_says_where_it_was_looked_for(make_experiment):
    folder, experiment = make_experiment()
    (folder / "data").rename(folder / "elsewhere")
    with pytest.raises(UserError, match="data: no such data folder; set dataset.root"):
        prepare_data(folder, 1)
    with pytest.raises(UserError, match="no such data folder"):
        open_dataset(experiment, folder, "train")


def test_the_disk_is_checked_before_a_part_counts(make_experiment, monkeypatch):
    folder, _ = make_experiment()

    def damaged(path):
        raise OSError("checksum")

    monkeypatch.setattr(part_files, "_read_back", damaged)
    with pytest.raises(OSError, match="checksum"):
        prepare_data(folder, 1)
    assert not stamps(folder)

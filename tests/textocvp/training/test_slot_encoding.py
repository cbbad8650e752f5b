import json
import os
import shutil
import signal

import h5py
import pytest
import torch

from textocvp import stopping
from textocvp.cli import main
from textocvp.data.loaders import to_float
from textocvp.data.videos import open_videos
from textocvp.training import precompute_slots
from textocvp.training import slot_encoding as encoding
from textocvp.training.checkpoint import load_pth
from textocvp.training.slot_encoding import SlotWriter

FINAL = "checkpoint_epoch_final.pth"


def parts(folder):
    return sorted(path.relative_to(folder / "slots").as_posix() for path in (folder / "slots").rglob("*.h5"))


def stored_windows(folder, split="train"):
    """(video, start, draw) -> slots of every part."""
    found = {}
    for path in sorted((folder / "slots" / split).glob("*.h5")):
        with h5py.File(path) as file:
            names = [name.decode() for name in file["video_id"][:]]
            for row, key in enumerate(zip(names, file["start"][:], file["draw"][:], strict=True)):
                found[key] = file["slots"][row]
    return found


@pytest.fixture
def experiment(experiment, make_predictor):
    make_predictor(experiment)  # windows of 1 + 3 frames
    return experiment


def test_shards_write_disjoint_parts_that_join_to_the_whole(experiment, tmp_path, capsys):
    whole = shutil.copytree(experiment, tmp_path / "whole")
    assert main(["precompute-slots", "-d", str(whole)]) == 0
    names = ("test/part_0000", "train/part_0000", "train/part_0001", "valid/part_0000")
    assert parts(whole) == [f"{name}.h5" for name in names]
    assert precompute_slots(experiment, FINAL, 1, 2) == 0
    assert parts(experiment) == ["train/part_0001.h5"]
    assert precompute_slots(experiment, FINAL, 0, 2) == 0
    assert parts(experiment) == parts(whole)
    expected, found = stored_windows(whole), stored_windows(experiment)
    assert len(expected) == 70 * 3, "starts 0, 2, 4 of 8 frames"
    assert expected.keys() == found.keys()
    assert all((found[key] == slots).all() for key, slots in expected.items())
    capsys.readouterr()
    assert precompute_slots(whole) == 0
    assert "4 parts, 4 already there; 0 windows" in capsys.readouterr().err


def test_a_window_recomputed_alone_is_bit_equal_and_the_store_names_its_checkpoint(experiment):
    precompute_slots(experiment)
    writer = SlotWriter(experiment, FINAL)
    videos = open_videos(writer.experiment, experiment, "train")
    stored = stored_windows(experiment)
    for name, start, draw in [list(stored)[0], list(stored)[37], list(stored)[-1]]:
        frames = to_float(videos.frames(videos.video_ids.index(name)))[None]
        window = encoding.Window(name, int(start), int(draw))
        ((_, slots),) = encoding.encode_videos(writer.model, [(frames, [window])], 4, seed=0)
        assert torch.equal(slots[0], torch.from_numpy(stored[name, start, draw]))

    manifest = json.loads((experiment / "slots/train/part_0000.json").read_text())
    assert manifest["statistics"]["count"] == 64 * 3 * 4 * 3, "videos x windows x frames x slots"
    with h5py.File(experiment / "slots/train/part_0000.h5") as file:
        assert file.attrs["checkpoint_sha256"] == manifest["key"]["checkpoint_sha256"]
        assert json.loads(file.attrs["config"])["model"]["model_params"]["num_slots"] == 3


def test_features_are_computed_once_per_frame(experiment, monkeypatch):
    writer, shapes = SlotWriter(experiment, FINAL), []
    features = writer.model.features

    def counted(video):
        shapes.append(tuple(video.shape))
        return features(video)

    monkeypatch.setattr(writer.model, "features", counted)
    writer.write(0, 1)
    assert len(shapes) == 75 and set(shapes) == {(1, 8, 3, 16, 16)}


def test_signal_drops_the_part_in_hand_and_a_rerun_continues(experiment, monkeypatch, capsys):
    track, calls = encoding.track_windows, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 14:  # the first part has 192 windows, 12 batches
            os.kill(os.getpid(), signal.SIGTERM)
        return track(*arguments)

    monkeypatch.setattr(encoding, "track_windows", interrupted)
    assert precompute_slots(experiment) == 143
    assert "stopped by SIGTERM" in capsys.readouterr().err
    assert parts(experiment) == ["train/part_0000.h5"]
    assert not [path for path in (experiment / "slots").rglob("*") if path.suffix == ".tmp"]
    stopping.restore()
    assert precompute_slots(experiment) == 0
    assert "4 parts, 1 already there" in capsys.readouterr().err
    assert len(parts(experiment)) == 4


@pytest.mark.parametrize(
    "options, message",
    [
        (["--shard", "2", "--num_shards", "2"], "--shard 2: expected 0 <= shard < num_shards, which is 2"),
        (["--decomp_ckpt", "none.pth"], "none.pth: no such checkpoint"),
        (["--decomp_ckpt", "other.pth"], "created from different data or settings (checkpoint_sha256"),
    ],
)
def test_bad_requests(experiment, capsys, options, message):
    precompute_slots(experiment)
    content = load_pth(experiment / "models" / FINAL)
    torch.save({**content, "step": 99}, experiment / "models/other.pth")
    assert main(["precompute-slots", "-d", str(experiment), *options]) == 2
    assert message in capsys.readouterr().err

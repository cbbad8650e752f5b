"""Tiny data sets in CATER's format."""

import json

import numpy as np
import pytest

from textocvp.config.experiment import create_experiment, load_experiment
from textocvp.data.dataset import write_video
from textocvp.files import UserError

CAPTION = "the large red metal cone is sliding to (-1, 3)."


def assert_refused(message, call, *arguments, **options):
    """It is a user's error that says `message`."""
    with pytest.raises(UserError, match=message):
        call(*arguments, **options)


def video_frames(number, length, size):
    """Frames whose pixels tell which video and frame they are of."""
    frames = np.zeros((length, size, size, 3), dtype=np.uint8)
    frames[..., 0] = number
    frames[..., 1] = np.arange(length)[:, None, None]
    frames[..., 2] = 8 * np.arange(size)[None, :, None]
    return frames


@pytest.fixture
def make_cater(tmp_path):
    """Writes ROOT/hard with `counts` videos per split and returns ROOT."""

    def make(train=3, valid=0, test=2, length=8, size=8, masks=True, root=None):
        root = root or tmp_path / "data"
        folder = root / "hard"
        for name in ("videos", "masks", "states"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        number = 0
        for split, count in (("train", train), ("valid", valid), ("test", test)):
            entries = {}
            for index in range(count):
                name = f"{split}_{index:03d}"
                frames = video_frames(number, length, size)
                write_video(folder / "videos" / f"{name}.avi", frames)
                if masks:
                    np.savez_compressed(folder / "masks" / f"{name}.npz", masks=frames[..., 2] // 8)
                    (folder / "states" / f"{name}.json").write_text(json.dumps({"number": number}))
                entries[str(index)] = {"video": f"videos/{name}.avi", "caption": CAPTION}
                number += 1
            if count:
                (folder / f"{split}_explicit.json").write_text(json.dumps(entries))
        return root

    return make


@pytest.fixture
def make_experiment(tmp_path, make_cater):
    """Creates EXP with its data in EXP/data and returns (EXP, experiment)."""

    def make(img_size=8, num_frames=4, overrides=(), **data):
        folder = tmp_path / "exp"
        make_cater(root=folder / "data", **data)
        dataset = {"root": "data", "img_size": [img_size, img_size], "num_frames": num_frames}
        own = [f"dataset.{name}={json.dumps(value)}" for name, value in dataset.items()]
        own += ["dataset.tokenizer=CustomTokenizer", "prediction_params.num_preds=3", "suite.slots.stride=2"]
        create_experiment(tmp_path, "exp", "SAVi", "CATER_Hard", [*own, *overrides])
        return folder, load_experiment(folder)

    return make

import json

import pytest
from PIL import Image

from textocvp.config.data import DatasetConfig
from textocvp.data.check import check_data
from textocvp.data.dataset import write_video
from textocvp.data.readers import CATER
from textocvp.files import UserError


@pytest.mark.parametrize("workers", [1, 2])
def test_whole_data(make_cater, capsys, workers):
    root = make_cater(train=20, valid=2)
    data = CATER(DatasetConfig(dataset_name="CATER_Hard"), root, "test")
    write_video(data.entries[1].video, data.read_frames(1)[:5])
    (root / "hard" / "masks" / "test_001.npz").unlink()
    check_data("CATER_Hard", root, workers=workers)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[:3]] == ["train", "valid", "test"]
    assert "20 videos, 0 unreadable, shortest 8 frames" in lines[0]
    assert "shortest 5 frames (test_001), longest caption 16 tokens, decoding " in lines[2]
    assert lines[2].endswith("frames/s per process")
    assert lines[-1].endswith("no problem found")
    assert Image.open(root / "contact_sheet.png").size == (576, 6 * 112)


def test_the_sheet_goes_where_it_is_told(make_cater, tmp_path):
    root = make_cater()
    check_data("CATER_Hard", root, tmp_path / "elsewhere" / "sheet.png", workers=1)
    assert (tmp_path / "elsewhere" / "sheet.png").is_file() and not (root / "contact_sheet.png").exists()

    with pytest.raises(UserError, match="no such folder"):
        check_data("CATER_Hard", tmp_path / "nowhere")


def test_everything_that_is_broken_is_named(make_cater, capsys):
    root = make_cater(train=4, valid=1)
    folder = root / "hard"
    (folder / "videos" / "train_001.avi").unlink()
    (folder / "videos" / "train_002.avi").write_bytes(b"broken")
    (folder / "masks" / "train_003.npz").write_bytes(b"broken")
    (folder / "valid_explicit.json").write_text("{")
    values = json.loads((folder / "test_explicit.json").read_text())
    values["1"]["caption"] = "the cone covers the snitch."
    (folder / "test_explicit.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"CATER_Hard in .*: 5 problems; the first: .*valid_explicit.json"):
        check_data("CATER_Hard", root, workers=1)
    out = capsys.readouterr().out
    for name in (
        "train_001.avi: no such file",
        "train_002.avi",
        "train_003.npz: damaged",
        "valid_explicit.json",
        "caption 'the cone covers the snitch.': not in the vocabulary of CATER_Hard (50 words): 'covers'",
    ):
        assert name in out
    assert "train: 4 videos, 3 unreadable" in out

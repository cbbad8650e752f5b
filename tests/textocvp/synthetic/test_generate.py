import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from textocvp.config.schema import build
from textocvp.config.synthetic import VideoSettings
from textocvp.data.dataset import read_video
from textocvp.files import UserError
from textocvp.synthetic import cater, generate
from textocvp.synthetic.cater import CATERWriter
from textocvp.synthetic.generate import make_data

COUNTS = {"num_train": 5, "num_valid": 2, "num_test": 3}
SMALL = {"dataset": "CATER_Hard", **COUNTS, "size": 16, "num_frames": 6, "max_objects": 3}


def make(out, workers=1, **changes):
    make_data(build(VideoSettings, {**SMALL, **changes}, "test"), out, workers)


def content(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    out = tmp_path_factory.mktemp("reference") / "data"
    make(out)
    return out


def test_lists_videos_masks_and_states_agree(reference):
    folder = reference / "hard"
    for split, count in (("train", 5), ("valid", 2), ("test", 3)):
        entries = json.loads((folder / f"{split}_explicit.json").read_text())
        assert list(entries) == [str(index) for index in range(count)]
        for entry in entries.values():
            video = folder / entry["video"]
            states = json.loads((folder / "states" / f"{video.stem}.json").read_text())
            masks = np.load(folder / "masks" / f"{video.stem}.npz")["masks"]
            assert read_video(video).shape == (6, 16, 16, 3)
            assert masks.shape == (6, 16, 16) and masks.dtype == np.uint8
            assert masks.max() <= len(states["objects"]) == 3
            assert states["caption"] == entry["caption"]
            assert np.shape(states["objects"][0]["positions"]) == (6, 3)
    assert len(list((folder / "videos").iterdir())) == 10


def test_any_number_of_workers_gives_the_same_bytes(reference, tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "CHUNK", 2)
    make(tmp_path / "data", workers=2)
    assert content(tmp_path / "data") == content(reference)


def test_another_seed_gives_other_videos_and_another_format_is_refused(reference, tmp_path, monkeypatch):
    make(tmp_path, seed=1)
    other, first = content(tmp_path / "hard"), content(reference / "hard")
    assert other.keys() == first.keys()
    assert other["videos/test_000000.avi"] != first["videos/test_000000.avi"]

    settings = json.loads((tmp_path / "hard" / "settings.json").read_text())
    (tmp_path / "hard" / "settings.json").write_text(json.dumps({**settings, "format": 0}))
    with pytest.raises(UserError, match="format: 0 -> 1"):
        make(tmp_path, seed=1)


def test_easy_and_hard_live_side_by_side_and_nothing_is_listed_without_videos(tmp_path):
    for dataset in ("CATER_Easy", "CATER_Hard"):
        make(tmp_path, dataset=dataset, num_train=2, num_valid=0, num_test=1)
    entries = json.loads((tmp_path / "easy" / "train_explicit.json").read_text())
    assert all(entry["caption"].startswith(("the cone is", "the snitch is")) for entry in entries.values())
    lists = sorted(path.name for path in (tmp_path / "hard").glob("*_explicit.json"))
    assert lists == ["test_explicit.json", "train_explicit.json"]


def test_a_rerun_makes_only_what_is_missing_or_empty(reference, tmp_path, monkeypatch):
    make(tmp_path)
    before = content(tmp_path)
    folder = tmp_path / "hard"
    (folder / "masks" / "train_000001.npz").unlink()
    (folder / "videos" / "test_000002.avi").write_bytes(b"")
    (folder / "videos" / ".train_000000.avi").write_bytes(b"left by a run that was killed")
    (folder / "test_explicit.json").unlink()
    made, real = [], cater.write_video
    monkeypatch.setattr(
        cater, "write_video", lambda path, frames: made.append(path.name.split(".")[1]) or real(path, frames)
    )
    make(tmp_path)
    assert made == ["train_000001", "test_000002"]
    assert content(tmp_path) == before


def test_lists_come_last(tmp_path, monkeypatch):
    def fail(writer, split, index):
        if (split, index) == ("test", 2):
            raise RuntimeError("stopped here")
        return real(writer, split, index)

    real = CATERWriter.write
    monkeypatch.setattr(CATERWriter, "write", fail)
    with pytest.raises(RuntimeError, match="stopped here"):
        make(tmp_path)
    assert not list((tmp_path / "hard").glob("*_explicit.json"))
    assert (tmp_path / "hard" / "videos" / "train_000000.avi").is_file()


def run_in_process(out, count):
    command = f"""
from pathlib import Path
from textocvp.config.synthetic import VideoSettings
from textocvp.synthetic.generate import make_data
if __name__ == "__main__":
    settings = VideoSettings(**{ {**SMALL, "num_train": count, "num_valid": 0, "num_test": 1}!r})
    make_data(settings, Path({str(out)!r}), workers=2)
"""
    script = out.parent / "make.py"
    script.write_text(command)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, str(script)], env=environment, **pipes)


def ps(*options):
    return subprocess.run(["ps", *options], capture_output=True, text=True).stdout


def alive(pid):
    return ps("-o", "stat=", "-p", pid).strip()[:1] not in ("", "Z")


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_stopped_leaves_no_worker_and_can_be_continued(tmp_path, stop):
    out, pattern = tmp_path / "data", "hard/states/t*.json"
    process = run_in_process(out, 2000)
    wait_for(lambda: len(list(out.glob(pattern))) >= 20)
    workers = ps("-o", "pid=", "--ppid", str(process.pid)).split()
    process.send_signal(stop)
    process.communicate(timeout=30)
    assert process.returncode != 0 and len(workers) >= 2
    wait_for(lambda: not any(map(alive, workers)))
    assert not list(out.glob("hard/*_explicit.json"))
    done = {path: path.stat().st_mtime_ns for path in out.glob("hard/videos/t*.avi")}
    again = run_in_process(out, 2000)
    wait_for(lambda: len(list(out.glob(pattern))) >= len(done) + 5)
    again.kill()
    again.communicate(timeout=30)
    kept = [path for path in done if path.stat().st_mtime_ns == done[path]]
    assert len(kept) >= len(done) - 2  # one video of each worker may lack its masks


def test_scenes_without_room_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="no room for 10 to 10 objects"):
        make(tmp_path / "data", max_objects=10, min_objects=10, object_scale=4.0)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("data/hard/thesis.tex", r"hard: not empty.*choose another --out"),
        ("data/thesis.tex", r"contains thesis.tex.*choose another --out"),
        ("data", r"data: is a file; choose another --out"),
    ],
)
def test_a_place_that_holds_something_else_is_refused(tmp_path, found, message):
    (tmp_path / found).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / found).touch()
    with pytest.raises(UserError, match=message):
        make(tmp_path / "data")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / found]


@pytest.mark.parametrize(
    "changes, difference",
    [
        ({"size": 32}, "size: 16 -> 32"),
        ({"seed": 5}, "seed: 0 -> 5"),
        ({"num_train": 6}, "num_train: 5 -> 6"),
        ({"actions": "slide"}, r'actions: \["slide", "pick_place", "rotate", "contain"\] -> \["slide"\]'),
    ],
)
def test_a_folder_with_other_settings_is_refused_and_the_difference_told(reference, changes, difference):
    before = content(reference)
    with pytest.raises(UserError, match=rf"hard: .*{difference}.*choose another --out"):
        make(reference, **changes)
    assert content(reference) == before


def test_progress_in_a_log_is_plain_lines(tmp_path, capsys, caplog, monkeypatch):
    monkeypatch.setattr("textocvp.terminal.LINE_SECONDS", 0.0)
    monkeypatch.setattr(generate, "CHUNK", 5)
    caplog.set_level("INFO")
    make(tmp_path)
    assert "video 5/10" in caplog.text and "\r" not in caplog.text
    out = capsys.readouterr().out
    assert f"{tmp_path / 'hard'}: 5 training, 2 validation and 3 test videos of 6 frames" in out

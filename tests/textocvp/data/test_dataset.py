"""Video files, and a data set of one's own: one class, one registry line; with and without captions."""

import json

import av
import numpy as np
import pytest

from textocvp import stopping
from textocvp.cli import main
from textocvp.config.experiment import create_experiment, create_predictor_experiment
from textocvp.config.registry import DATASETS, Entry
from textocvp.data.dataset import read_video, write_video
from textocvp.data.tokenizers import build_vocabulary

from .conftest import assert_refused


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3)).astype(np.uint8)


def test_writing_is_lossless_and_the_same_frames_give_the_same_bytes(tmp_path, frames):
    view = frames[::2, ::-1, 4:20]  # not contiguous
    for name, written in (("a.avi", frames), ("b.avi", frames), ("c.avi", view)):
        write_video(tmp_path / name, written)
        assert read_video(tmp_path / name).dtype == np.uint8
        np.testing.assert_array_equal(read_video(tmp_path / name), written)
    assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()


@pytest.mark.parametrize("name, codec", [("clip.mp4", "mpeg4"), ("clip.avi", "mpeg4"), ("clip.mkv", "ffv1")])
def test_reads_what_other_programs_write(tmp_path, name, codec):
    ramp = np.linspace(20, 220, 64).astype(np.uint8)
    frames = np.broadcast_to(ramp[None, :, None, None], (6, 64, 48, 3))
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    read = read_video(tmp_path / name)
    assert read.shape == (6, 64, 48, 3)
    assert np.abs(read.astype(int) - frames).mean() < 4


@pytest.mark.parametrize(
    "frames",
    [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8)],
)
def test_refuses_to_write_what_is_no_video(tmp_path, frames):
    with pytest.raises(ValueError, match=r"expected uint8 \(T,H,W,3\)"):
        write_video(tmp_path / "clip.avi", frames)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such video file"),
        (b"no video" * 100, r"cannot be read as a video \(Invalid data"),
        (b"", "cannot be read as a video"),
    ],
)
def test_a_file_that_is_no_video_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "clip.avi").write_bytes(content)
    assert_refused(rf"clip\.avi: {message}", read_video, tmp_path / "clip.avi")


def test_a_sound_file_is_named(tmp_path):
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    assert_refused(r"sound\.wav: contains no video stream", read_video, tmp_path / "sound.wav")


def test_a_file_that_breaks_off_or_has_a_damaged_byte_is_named(tmp_path, frames):
    path = tmp_path / "clip.avi"
    write_video(path, frames)
    content = bytearray(path.read_bytes())
    for kept in (0.3, 0.6, 0.9):
        path.write_bytes(content[: int(kept * len(content))])
        assert_refused(r"clip\.avi: (ends after|cannot be read)", read_video, path)
    path.write_bytes(content[: content.rindex(b"00dc", 0, content.rindex(b"idx1"))])
    assert_refused(r"clip\.avi: ends after 4 of 5 frames", read_video, path)
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    assert_refused(r"clip\.avi: cannot be read as a video", read_video, path)


SPLIT_SIZES = {"train": 4, "valid": 2, "test": 2}
SIZES = {"token_dim": 8, "hidden_dim": 8, "num_layers": 1, "n_heads": 2}
TEXT = {
    "predictor_params": SIZES,
    "fusion_params": {"num_heads": 2, "head_dim": 4, "mlp_size": 8},
    "text_encoder_params": {"input_dim": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 6},
}
TRAINING = {"num_steps": 2, "batch_size": 2, "warmup_steps": 1, "num_workers": 0}
MODEL = {
    **{"num_slots": 2, "slot_dim": 8, "mlp_hidden": 8, "mlp_encoder_dim": 8},
    "transition_module": {"num_heads": 2, "mlp_size": 8},
    "encoder": {"encoder_params": {"num_channels": [4], "kernel_size": 3}},
    "decoder": {"decoder_params": {"num_channels": [4], "kernel_size": 3, "resolution": [16, 16]}},
}


class Squares:
    """A square that walks to the right or to the left, as its caption says."""

    eval_start = 0
    vocabulary = "Squares"

    def __init__(self, config, root, split, hold_out=True):
        self.name, self.split = config.dataset_name, split
        self.video_ids = [f"{split}{number}" for number in range(SPLIT_SIZES[split])]
        captions = json.loads((root / "captions.json").read_text())
        self.captions = [captions[number % 2] for number in range(len(self.video_ids))]

    def __len__(self):
        return len(self.video_ids)

    def key(self):
        return {"dataset": self.name, "split": self.split, "captions": self.captions}

    def read_frames(self, index):
        frames = np.zeros((6, 16, 16, 3), np.uint8)
        for t in range(6):
            x = 2 * t if index % 2 == 0 else 10 - 2 * t
            frames[t, 6:10, x : x + 4] = 255
        return frames

    def masks(self, index):
        return None

    def states(self, index):
        return None


@pytest.fixture
def root(tmp_path, monkeypatch):
    squares = Entry(f"{__name__}:Squares", "textocvp.config.data:DatasetConfig")
    monkeypatch.setitem(DATASETS.entries, "Squares", squares)
    (tmp_path / "captions.json").write_text('["go right", "go left"]')
    dataset = {"dataset_name": "Squares", "root": str(tmp_path), "img_size": [16, 16], "num_frames": 2}
    values = {"dataset": dataset, "model.model_params": MODEL, "training": TRAINING}
    create_experiment(tmp_path, "exp", "SAVi", "Squares", overrides(values))
    yield tmp_path
    stopping.restore()


def overrides(values):
    return [f"{path}={json.dumps(value)}" for path, value in values.items()]


def create_predictor(root, predictor, params, **more):
    windows = {"num_context": 1, "num_preds": 3, "input_buffer_size": 3}
    values = {"predictor.predictor_params": params, "training": TRAINING, "prediction_params": windows}
    create_predictor_experiment(root / "exp", predictor, predictor, overrides({**values, **more}))


def run(root, command, *options):
    stopping.restore()
    return main([command, "-d", str(root / "exp"), *options])


def test_a_data_set_of_ones_own_is_trained_end_to_end(root):
    build_vocabulary(root, root / "exp/words.json", dataset="Squares")
    words = json.loads((root / "exp/words.json").read_text())
    assert words == {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "go": 3, "left": 4, "right": 5}
    create_predictor(root, "VanillaTransformer", SIZES)
    create_predictor(root, "TextOCVP_CustomTF", TEXT, **{"dataset.vocabulary": "words.json"})
    for command in (
        ["prepare-data", "--workers", "1"],
        ["train-decomp"],
        ["precompute-slots"],
        ["train-predictor", "--name_pred_exp", "VanillaTransformer"],
        ["train-predictor", "--name_pred_exp", "TextOCVP_CustomTF"],
        ["evaluate-decomp"],
        ["evaluate-predictor", "--name_pred_exp", "VanillaTransformer"],
        ["evaluate-predictor", "--name_pred_exp", "TextOCVP_CustomTF"],
        ["figures", "--num_seqs", "1"],
        ["report"],
    ):
        assert run(root, *command) == 0, command
    assert (root / "exp/plots/prediction_00.png").is_file()


def test_without_captions_only_predictors_without_text_train(root, capsys):
    (root / "captions.json").write_text('["", ""]')
    create_predictor(root, "VanillaTransformer", SIZES)
    train = ["train-predictor", "--name_pred_exp", "VanillaTransformer"]
    for command in (["train-decomp"], ["precompute-slots"], train):
        assert run(root, *command) == 0, command
    create_predictor(root, "TextOCVP_CustomTF", {})
    capsys.readouterr()
    assert run(root, "train-predictor", "--name_pred_exp", "TextOCVP_CustomTF") == 2
    error = capsys.readouterr().err
    assert "Squares has no captions, but TextOCVP_CustomTF reads text; take a predictor without" in error


def test_a_data_set_without_vocabulary_says_how_to_get_one(root, capsys):
    create_predictor(root, "TextOCVP_CustomTF", {})
    assert run(root, "prepare-data") == 2
    error = capsys.readouterr().err
    assert "no vocabulary for 'Squares'" in error and "build-vocabulary" in error and error.count("\n") == 1

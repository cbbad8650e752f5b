"""A data set of one's own: one class, one registry line; here without captions, then with a vocabulary."""

import json

import numpy as np
import pytest

from textocvp import stopping
from textocvp.cli import main
from textocvp.config.errors import UserError
from textocvp.config.registry import DATASETS, Entry
from textocvp.data.tokenizers import build_vocabulary

SPLIT_SIZES = {"train": 4, "valid": 2, "test": 2}
SIZES = {"token_dim": 8, "hidden_dim": 8, "num_layers": 1, "n_heads": 2}


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
    monkeypatch.setitem(
        DATASETS.entries, "Squares", Entry(f"{__name__}:Squares", "textocvp.config.data:DatasetConfig")
    )
    (tmp_path / "captions.json").write_text('["go right", "go left"]')
    yield tmp_path
    stopping.restore()


def overrides(values):
    return [text for path, value in values.items() for text in ("--set", f"{path}={json.dumps(value)}")]


def run(*argv):
    stopping.restore()
    return main([str(argument) for argument in argv])


def create(root):
    training = {"num_steps": 2, "batch_size": 2, "warmup_steps": 1, "num_workers": 0}
    model = {
        "num_slots": 2,
        "slot_dim": 8,
        "mlp_hidden": 8,
        "mlp_encoder_dim": 8,
        "transition_module": {"num_heads": 2, "mlp_size": 8},
        "encoder": {"encoder_params": {"num_channels": [4], "kernel_size": 3}},
        "decoder": {"decoder_params": {"num_channels": [4], "kernel_size": 3, "resolution": [16, 16]}},
    }
    assert (
        run(
            "create-experiment",
            "-d",
            root,
            "--name",
            "exp",
            "--model_name",
            "SAVi",
            "--dataset_name",
            "Squares",
            *overrides(
                {
                    "dataset.dataset_name": "Squares",
                    "dataset.root": str(root),
                    "dataset.img_size": [16, 16],
                    "dataset.num_frames": 2,
                    "model.model_params": model,
                    "training": training,
                }
            ),
        )
        == 0
    )
    return training


def create_predictor(root, predictor, params, training, **more):
    return run(
        "create-predictor-experiment",
        "-d",
        root / "exp",
        "--name",
        predictor,
        "--predictor_name",
        predictor,
        *overrides(
            {
                "predictor.predictor_params": params,
                "training": training,
                "prediction_params": {"num_context": 1, "num_preds": 3, "input_buffer_size": 3},
                **more,
            }
        ),
    )


def test_a_data_set_of_ones_own_is_trained_end_to_end(root):
    training, exp = create(root), root / "exp"
    build_vocabulary(root, root / "exp/words.json", dataset="Squares")
    assert json.loads((root / "exp/words.json").read_text()) == {
        "[PAD]": 0,
        "[CLS]": 1,
        "[SEP]": 2,
        "go": 3,
        "left": 4,
        "right": 5,
    }
    assert create_predictor(root, "VanillaTransformer", SIZES, training) == 0
    text = {
        "predictor_params": SIZES,
        "fusion_params": {"num_heads": 2, "head_dim": 4, "mlp_size": 8},
        "text_encoder_params": {"input_dim": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 6},
    }
    assert (
        create_predictor(root, "TextOCVP_CustomTF", text, training, **{"dataset.vocabulary": "words.json"})
        == 0
    )
    for command in (
        ["prepare-data", "--workers", 1],
        ["train-decomp"],
        ["precompute-slots"],
        ["train-predictor", "--name_pred_exp", "VanillaTransformer"],
        ["train-predictor", "--name_pred_exp", "TextOCVP_CustomTF"],
        ["evaluate-decomp"],
        ["evaluate-predictor", "--name_pred_exp", "VanillaTransformer"],
        ["evaluate-predictor", "--name_pred_exp", "TextOCVP_CustomTF"],
        ["figures", "--num_seqs", 1],
        ["report"],
    ):
        assert run(command[0], "-d", exp, *command[1:]) == 0, command
    assert (exp / "plots/prediction_00.png").is_file()


def test_without_captions_only_predictors_without_text_train(root, capsys):
    (root / "captions.json").write_text('["", ""]')
    training, exp = create(root), root / "exp"
    assert create_predictor(root, "VanillaTransformer", SIZES, training) == 0
    for command in (
        ["train-decomp"],
        ["precompute-slots"],
        ["train-predictor", "--name_pred_exp", "VanillaTransformer"],
    ):
        assert run(command[0], "-d", exp, *command[1:]) == 0, command
    assert create_predictor(root, "TextOCVP_CustomTF", {}, training) == 0
    capsys.readouterr()
    assert run("train-predictor", "-d", exp, "--name_pred_exp", "TextOCVP_CustomTF") == 2
    error = capsys.readouterr().err
    assert "Squares has no captions, but TextOCVP_CustomTF reads text; take a predictor without" in error


def test_a_data_set_without_vocabulary_says_how_to_get_one(root, capsys):
    training, exp = create(root), root / "exp"
    assert create_predictor(root, "TextOCVP_CustomTF", {}, training) == 0
    capsys.readouterr()
    assert run("prepare-data", "-d", exp) == 2
    error = capsys.readouterr().err
    assert "no vocabulary for 'Squares'" in error and "build-vocabulary" in error and error.count("\n") == 1


def test_build_vocabulary_from_lines(tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("the cone is rotating. the cone\n\nis up.\n")
    out = tmp_path / "words.json"
    assert run("build-vocabulary", "--from", tmp_path / "captions.txt", "--out", out) == 0
    assert list(json.loads(out.read_text())) == [
        "[PAD]",
        "[CLS]",
        "[SEP]",
        ".",
        "cone",
        "is",
        "rotating",
        "the",
        "up",
    ]
    assert "9 words of 2 captions" in capsys.readouterr().out
    assert run("build-vocabulary", "--from", tmp_path / "captions.txt", "--out", out) == 2
    assert "the ids of a vocabulary must not change" in capsys.readouterr().err
    with pytest.raises(UserError, match="is a folder; give --dataset"):
        build_vocabulary(tmp_path, tmp_path / "other.json")
    (tmp_path / "no_text.txt").write_bytes(b"\x89PNG")
    with pytest.raises(UserError, match="no_text.txt: damaged, not UTF-8"):
        build_vocabulary(tmp_path / "no_text.txt", tmp_path / "other.json")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match="empty.txt: contains no captions"):
        build_vocabulary(tmp_path / "empty.txt", tmp_path / "other.json")
    assert run("build-vocabulary", "--from", tmp_path / "nowhere.txt", "--out", tmp_path / "x.json") == 2
    assert "nowhere.txt: No such file" in capsys.readouterr().err

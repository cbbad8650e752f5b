"""A tiny experiment: coloured squares that move over grey, an untrained SAVi, untrained predictors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

SIZE, LENGTH = 16, 7
CAPTIONS = ("the large red metal cone is sliding to (-1, 3).", "the small blue rubber cube is rotating.")


def squares(number):
    """Frames (T, H, W, 3) uint8 and masks (T, H, W): a red square that moves down, a blue one that stays."""
    frames = np.full((LENGTH, SIZE, SIZE, 3), 128, dtype=np.uint8)
    masks = np.zeros((LENGTH, SIZE, SIZE), dtype=np.uint8)
    for t in range(LENGTH):
        for label, (row, column), colour in (
            (1, (1 + t, 4 * (number % 4)), (250, 10, 10)),
            (2, (12, 4 * (-number % 4)), (10, 10, 250)),
        ):
            place = np.s_[t, row : row + 4, column : column + 4]
            frames[place], masks[place] = colour, label
    return frames, masks


def write_data(root, masks=True, **counts):
    from textocvp.data.dataset import write_video

    folder = Path(root) / "hard"
    for name in ("videos", "masks"):
        (folder / name).mkdir(parents=True)
    number = 0
    for split, count in counts.items():
        entries = {}
        for index in range(count):
            name = f"{split}_{index:03d}"
            video, labels = squares(number)
            write_video(folder / "videos" / f"{name}.avi", video)
            if masks:
                np.savez_compressed(folder / "masks" / f"{name}.npz", masks=labels)
            entries[str(index)] = {"video": f"videos/{name}.avi", "caption": CAPTIONS[index % 2]}
            number += 1
        (folder / f"{split}_explicit.json").write_text(json.dumps(entries))


TINY = [
    *f"dataset.root=data dataset.img_size=[{SIZE},{SIZE}] dataset.num_frames=4".split(),
    *(f"model.model_params.{size}=8" for size in ("slot_dim", "mlp_hidden", "mlp_encoder_dim")),
    *"dataset.tokenizer=CustomTokenizer model.model_params.num_slots=3".split(),
    'model.model_params.transition_module={"num_heads": 2, "mlp_size": 8}',
    'model.model_params.encoder.encoder_params={"num_channels": [4], "kernel_size": 3}',
    'model.model_params.decoder.decoder_params={"num_channels": [4], "resolution": [16, 16]}',
]
TINY_PREDICTORS = {
    "VanillaTransformer": [
        'predictor.predictor_params={"token_dim": 8, "hidden_dim": 8, "num_layers": 1, "n_heads": 2}'
    ],
    "TextOCVP_CustomTF": [
        'predictor.predictor_params={"predictor_params": {"token_dim": 8, "n_heads": 2, "hidden_dim": 8, '
        '"num_layers": 1}, "fusion_params": {"num_heads": 2, "head_dim": 4, "mlp_size": 8}, '
        '"text_encoder_params": {"input_dim": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 50}}'
    ],
}


def save_checkpoint(folder, experiment, model, name="checkpoint_epoch_final.pth"):
    from textocvp.training.checkpoint import save_pth

    content = {"epoch": 0, "step": 0, "model_state_dict": model.state_dict()}
    save_pth(Path(folder) / "models" / name, experiment, content)


class TinyExperiment:
    """EXP with data and a decomposition checkpoint, and ways to put more untrained ones into it."""

    def __init__(self, folder, masks=True):
        from textocvp.config.experiment import create_experiment, load_experiment

        self.folder = folder
        write_data(folder / "data", masks, train=4, valid=2, test=3)
        create_experiment(folder.parent, folder.name, "SAVi", "CATER_Hard", TINY)
        self.experiment = load_experiment(folder)
        self.add_decomposition()

    def add_decomposition(self, seed=0, folder=""):
        from textocvp.decomposition import build_model

        torch.manual_seed(seed)
        save_checkpoint(self.folder / folder, self.experiment, build_model(self.experiment))

    def add_predictor(self, name, seeds=(), trained=True):
        from textocvp.config.experiment import create_predictor_experiment, load_predictor_experiment
        from textocvp.predictors import build_forecaster

        overrides = ["prediction_params.num_preds=3", "prediction_params.input_buffer_size=2"]
        create_predictor_experiment(self.folder, name, name, [*TINY_PREDICTORS[name], *overrides])
        experiment = load_predictor_experiment(self.folder, name)
        for seed in seeds or [None]:
            torch.manual_seed(seed or 0)
            folder = self.folder / "predictors" / name / ("" if seed is None else f"seeds/{seed}")
            if trained:
                save_checkpoint(folder, experiment, build_forecaster(experiment))


@pytest.fixture
def tiny(tmp_path):
    """A TinyExperiment with a decomposition checkpoint."""
    return TinyExperiment(tmp_path / "exp")


@pytest.fixture
def tiny_without_masks(tmp_path):
    """The same, of data without object masks."""
    return TinyExperiment(tmp_path / "exp", masks=False)

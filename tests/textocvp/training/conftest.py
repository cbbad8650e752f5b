"""A tiny experiment: rendered videos, SAVi with 600 parameters, two predictors."""

import json
import shutil

import pytest

from textocvp import stopping
from textocvp.config.experiment import create_experiment, create_predictor_experiment
from textocvp.config.synthetic import VideoSettings
from textocvp.synthetic.generate import make_data
from textocvp.terminal import set_up_logging
from textocvp.training import train_decomp

CONV = {"num_channels": [4, 4], "kernel_size": 3, "strides": [2, 1]}
TRANSPOSED = {"num_channels": [4], "resolution": [8, 8]}
MODEL = {
    **{"num_slots": 3, "slot_dim": 8, "mlp_hidden": 8, "mlp_encoder_dim": 8, "num_iterations_first": 2},
    "transition_module": {"model_name": "TransformerBlock", "num_heads": 2, "mlp_size": 8},
    "encoder": {"encoder_name": "ConvEncoder", "encoder_params": CONV},
    "decoder": {"decoder_name": "TransposedConvDecoder", "decoder_params": TRANSPOSED},
}
TRAINING = {"num_steps": 4, "batch_size": 2, "lr": 0.001, "warmup_steps": 2, "num_workers": 0}
TRAINING.update({"log_frequency": 2, "image_log_frequency": 4})
SIZES = {"token_dim": 8, "hidden_dim": 8, "num_layers": 1, "n_heads": 2}
WITH_TEXT = {"predictor_params": SIZES, "fusion_params": {"num_heads": 2, "head_dim": 4, "mlp_size": 8}}
OWN_TEXT = {"input_dim": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 50}
PREDICTORS = {
    "VanillaTransformer": SIZES,
    "TextOCVP_T5": {**WITH_TEXT, "text_encoder_params": {"weights": "weights/t5"}},
    "TextOCVP_CustomTF": {**WITH_TEXT, "text_encoder_params": OWN_TEXT},
}


@pytest.fixture(autouse=True)
def notes():
    set_up_logging()


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """Root of a data set of 70 training videos (two parts of a store), 3 for validation, 2 for testing."""
    root = tmp_path_factory.mktemp("videos")
    settings = {"num_train": 70, "num_valid": 3, "num_test": 2, "size": 16, "num_frames": 8, "max_objects": 2}
    make_data(VideoSettings(dataset="CATER_Hard", seed=1, **settings), root, workers=1)
    return root


def dotted(settings, changes):
    """ "--set" arguments of settings and, with "__" for the dot, of changes to them."""
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return [f"{path}={json.dumps(value)}" for path, value in {**settings, **changes}.items()]


def new_experiment(parent, name, videos, changes):
    settings = {
        "dataset.root": str(videos),
        "dataset.img_size": [16, 16],
        "dataset.num_frames": 3,
        "dataset.tokenizer": "CustomTokenizer",
        "model.model_params": MODEL,
        "training": TRAINING,
        "suite.slots.stride": 2,
    }
    return create_experiment(parent, name, "SAVi", "CATER_Hard", dotted(settings, changes))


@pytest.fixture
def make_experiment(tmp_path, videos):
    """Creates the decomposition experiment EXP; keyword arguments are overrides."""
    return lambda name="exp", **changes: new_experiment(tmp_path, name, videos, changes)


@pytest.fixture(scope="session")
def make_predictor():
    """Creates a predictor experiment in EXP; returns its folder."""

    def make(folder, predictor="VanillaTransformer", name="pred", **changes):
        settings = {
            "predictor.predictor_params": PREDICTORS[predictor],
            "training": TRAINING,
            "prediction_params.num_preds": 3,
            "prediction_params.input_buffer_size": 2,
            "predictor_loss": [{"type": "pred_slot_mse"}],
        }
        return create_predictor_experiment(folder, name, predictor, dotted(settings, changes))

    return make


@pytest.fixture(scope="session")
def trained(tmp_path_factory, videos):
    """EXP with a decomposition checkpoint; copy it before writing into it."""
    folder = new_experiment(tmp_path_factory.mktemp("trained"), "exp", videos, {})
    assert train_decomp(folder) == 0
    stopping.restore()
    return folder


@pytest.fixture
def experiment(trained, tmp_path):
    """A copy of EXP with a decomposition checkpoint."""
    return shutil.copytree(trained, tmp_path / "trained")

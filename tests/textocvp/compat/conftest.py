"""Experiment folders as the original implementation leaves them, built from the golden states."""

import json

import pytest
import torch

from textocvp.cli import main
from textocvp.config.synthetic import VideoSettings
from textocvp.synthetic.generate import make_data

PREDICTORS = "vanilla_tiny ocvpseq_tiny textocvp_customtf_tiny textocvp_t5_tiny textocvp_t5_narrow".split()
CHECKPOINT = "checkpoint_epoch_7.pth"


def write_original(folder, values, state, prefix=""):
    """One folder of the original: its parameters and one checkpoint."""
    (folder / "models").mkdir(parents=True)
    (folder / "experiment_params.json").write_text(json.dumps(values))
    state = {prefix + key: value for key, value in state.items()}
    others = {"optimizer_state_dict": {"state": {}}, "scheduler_state_dict": {}, "lr_warmup": {}}
    torch.save({"epoch": 7, "model_state_dict": state, **others}, folder / "models" / CHECKPOINT)


def dataset(size, name="CATER_Hard"):
    values = {"dataset_name": name, "root": "data", "tokenizer": "T5", "num_frames": 4}
    shuffles = {"random_start": True, "shuffle_train": True, "shuffle_eval": False}
    return {**values, **shuffles, "img_size": [size, size]}


def small_data(folder, dataset="CATER_Hard"):
    """Videos for an experiment in `folder`: 4 training, 2 validation and 2 test videos."""
    sizes = {"size": 16, "num_frames": 8, "max_objects": 2}
    if dataset == "CLIPort":
        sizes = {"size": 56, "num_frames": 6}
    settings = VideoSettings(dataset=dataset, num_train=4, num_valid=2, num_test=2, **sizes)
    make_data(settings, folder / "data", workers=1)


@pytest.fixture
def original(golden, tmp_path):
    """SAVi with all predictors: (folder, {folder below it: state})."""
    folder, case = tmp_path / "original", golden("savi_tiny")
    values = {"dataset": dataset(16), "model": case.config["model"], "loss": [{"type": "mse", "weight": 1}]}
    states = {".": case.part("state.")}
    write_original(folder, {**values, "predictor": {}}, states["."], prefix="module.")
    for name in PREDICTORS:
        own, below = golden(name), f"predictors/{name}"
        predictor = {key: own.config["predictor"][key] for key in ("predictor_name", "predictor_params")}
        prediction = own.config["prediction_params"]
        states[below] = own.part("state.")
        write_original(
            folder / below, {**values, "predictor": predictor, "prediction_params": prediction}, states[below]
        )
    return folder, states


@pytest.fixture
def original_dinosaur(golden, tmp_path):
    """ExtendedDINOSAUR: (folder, state)."""
    folder, case = tmp_path / "original_dinosaur", golden("dinosaur_tiny")
    state, values = case.part("state."), {key: case.config[key] for key in ("model", "loss")}
    write_original(folder, {"dataset": dataset(56, "CLIPort"), **values}, state)
    return folder, state


@pytest.fixture
def error_of(capsys):
    """The one line with which a command fails."""

    def run(*argv):
        capsys.readouterr()
        assert main([str(argument) for argument in argv]) == 2
        return capsys.readouterr().err.strip().splitlines()[-1]

    return run

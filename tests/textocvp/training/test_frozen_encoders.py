"""ExtendedDINOSAUR and TextOCVP_T5, whose encoders are frozen and whose weights lie in the experiment."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from textocvp import stopping
from textocvp.cli import main
from textocvp.compat import native_files
from textocvp.config.experiment import create_experiment, load_experiment
from textocvp.config.synthetic import VideoSettings, WeightsSettings
from textocvp.synthetic.generate import make_data
from textocvp.synthetic.weights import make_weights
from textocvp.training.checkpoint import load_decomposition, load_pth

FINAL = "models/checkpoint_epoch_final.pth"
DECODER = {"patch_size": 14, "num_patches": 4, "in_dim": 8, "hidden_dim": 16, "out_dim": 9, "num_layers": 2}
MODEL = {
    **{"img_size": 28, "num_slots": 3, "slot_dim": 8, "mlp_hidden": 8, "mlp_encoder_dim": 8},
    "transition_module": {"model_name": "TransformerBlock", "num_heads": 2, "mlp_size": 8},
    "encoder": {"encoder_name": "vit_small_patch14_dinov2", "encoder_params": {"weights": "weights/vit"}},
    "decoder": {"decoder_name": "MLPPatchDecoder", "decoder_params": DECODER},
}
TRAINING = {"num_steps": 2, "batch_size": 2, "lr": 0.01, "warmup_steps": 1, "num_workers": 0}
TRAINING.update(stage3_param_persistence_threshold=0, log_frequency=1, image_log_frequency=2)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    """An experiment on CLIPort-like episodes, with weights."""
    settings = {"dataset.root": "data", "dataset.img_size": [28, 28], "dataset.num_frames": 2}
    settings.update({"model.model_params": MODEL, "training": TRAINING, "suite.slots.stride": 2})
    overrides = [f"{path}={json.dumps(value)}" for path, value in settings.items()]
    parent = tmp_path_factory.mktemp("untrained")
    folder = create_experiment(parent, "exp", "ExtendedDINOSAUR", "CLIPort", overrides)
    sizes = VideoSettings(dataset="CLIPort", num_train=4, num_valid=2, num_test=2, size=28, num_frames=6)
    make_data(sizes, folder / "data", workers=1)
    make_weights(WeightsSettings(kind="dinov2", width=8), folder / "weights/vit")
    make_weights(WeightsSettings(kind="t5", width=12), folder / "weights/t5")
    return folder


@pytest.fixture
def folder(untrained, tmp_path):
    return shutil.copytree(untrained, tmp_path / "exp")


@pytest.fixture(scope="module")
def finished(untrained, tmp_path_factory):
    folder = shutil.copytree(untrained, tmp_path_factory.mktemp("finished") / "exp")
    assert main(["train-decomp", "-d", str(folder)]) == 0
    stopping.restore()
    return folder


@pytest.fixture
def trained(finished, tmp_path):
    """The same experiment, its decomposition model trained."""
    return shutil.copytree(finished, tmp_path / "trained")


def change(folder, **training):
    path = folder / "experiment_params.json"
    values = json.loads(path.read_text())
    values["training"].update(training)
    path.write_text(json.dumps(values))


def state(folder):
    return load_pth(folder / FINAL)["model_state_dict"]


def test_new_experiments_get_the_sound_settings(folder):
    experiment = load_experiment(folder)
    terms = [(term.type, term.clamp_features) for term in experiment.loss]
    assert terms == [("mse", False), ("pred_feature_mse", False)]
    assert experiment.model.model_params.encoder.encoder_params.normalization == "imagenet"


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_trains_at_every_zero_stage_without_its_encoder(folder, stage, capsys):
    change(folder, zero_stage=stage)
    assert main(["train-decomp", "-d", str(folder)]) == 0
    content = load_pth(folder / FINAL)
    assert not any(name.startswith("encoder.") for name in content["model_state_dict"])
    assert all(value.numel() for value in content["model_state_dict"].values())
    model = load_decomposition(load_experiment(folder), folder / FINAL)
    assert not model.encoder.training and model.encoder.train() is model.encoder
    assert not model.encoder.training


def test_continues_as_if_it_had_never_stopped(folder, tmp_path):
    whole = shutil.copytree(folder, tmp_path / "whole")
    for target in (folder, whole):
        change(target, num_steps=4, save_every_steps=2)
    assert main(["train-decomp", "-d", str(whole)]) == 0
    change(folder, num_steps=2)
    assert main(["train-decomp", "-d", str(folder)]) == 0
    change(folder, num_steps=4)
    stopping.restore()
    assert main(["train-decomp", "-d", str(folder), "--resume_training"]) == 0
    for name, value in state(whole).items():
        assert torch.equal(state(folder)[name], value), name


def test_the_whole_chain_to_a_predictor_with_t5(folder, make_predictor, capsys):
    make_predictor(folder, "TextOCVP_T5")
    run, own = ["-d", str(folder)], ["--name_pred_exp", "pred"]
    for command in (
        ["prepare-data", *run, "--workers", "1"],
        ["train-decomp", *run],
        ["precompute-slots", *run],
        ["train-predictor", *run, *own],
        ["evaluate-decomp", *run],
        ["evaluate-predictor", *run, *own],
        ["figures", *run, "--num_seqs", "1"],
        ["report", *run],
    ):
        assert main(command) == 0, capsys.readouterr().err
        stopping.restore()
    trained = state(folder / "predictors/pred")
    assert not any(".t5." in name for name in trained)
    assert "predictor.text_encoder.projection.weight" in trained
    assert (folder / "plots/prediction_00.gif").is_file()


def test_exported_models_see_frames_as_the_original_normalises_them(trained, tmp_path):
    original = tmp_path / "original"
    assert main(["export", "-d", str(trained), "--out", str(original / "models/out.pth")]) == 0
    values = json.loads((trained / "experiment_params.json").read_text())
    del values["suite"], values["model"]["model_params"]["encoder"]["encoder_params"]["normalization"]
    (original / "experiment_params.json").write_text(json.dumps(values))
    shutil.copytree(trained / "weights", original / "weights")
    again = load_experiment(original)
    assert again.model.model_params.encoder.encoder_params.normalization == "mean"
    frames, noise = torch.rand(1, 2, 3, 28, 28), torch.randn(1, 3, 8)
    with native_files("evaluate-decomp", {"exp_directory": original, "decomp_ckpt": "out.pth"}) as options:
        exported = load_decomposition(again, Path(options["decomp_ckpt"]))
    models = (exported, load_decomposition(load_experiment(trained), trained / FINAL))
    slots = [model.encode(frames, model.initial_slots(1, noise=noise)) for model in models]
    assert_close(*slots, atol=3e-5, rtol=0)


def test_a_t5_of_another_width_cannot_be_exported(trained, make_predictor, tmp_path, capsys):
    make_predictor(trained, "TextOCVP_T5", suite__slots__mode="online")
    assert main(["train-predictor", "-d", str(trained), "--name_pred_exp", "pred"]) == 0
    capsys.readouterr()
    out = tmp_path / "x.pth"
    assert main(["export", "-d", str(trained), "--name_pred_exp", "pred", "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert "token_dim: differs from the width of its T5; the original has no projection" in error
    assert not out.exists()


def test_a_predictors_checkpoint_is_no_models(trained, capsys):
    path = trained / "models/other.pth"
    content = load_pth(trained / FINAL)
    content["frozen_sha256"], content["model_state_dict"] = "other", {"predictor.x": torch.zeros(1)}
    torch.save(content, path)
    assert main(["evaluate-decomp", "-d", str(trained), "--decomp_ckpt", "other.pth"]) == 2
    error = capsys.readouterr().err
    assert "does not fit the configured model: " in error and "other weights" not in error


def test_other_weights_than_those_of_the_training_are_refused(trained, capsys):
    (trained / "weights/vit").rename(trained / "weights/first")
    make_weights(WeightsSettings(kind="dinov2", width=8, seed=1), trained / "weights/vit")
    assert main(["evaluate-decomp", "-d", str(trained)]) == 2
    assert "was trained with other weights of the frozen encoder" in capsys.readouterr().err
    make_weights(WeightsSettings(kind="t5", width=8), trained / "weights/text")
    shutil.copyfile(trained / "weights/text/model.safetensors", trained / "weights/vit/model.safetensors")
    assert main(["evaluate-decomp", "-d", str(trained)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Dinov2Model" in error
    (trained / "weights/vit/model.safetensors").write_bytes(b"cut off")
    assert main(["evaluate-decomp", "-d", str(trained)]) == 2
    error = capsys.readouterr().err
    assert "weights/vit: cannot be read as Dinov2Model" in error


def test_missing_weights_are_one_line(folder, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("TEXTOCVP_WEIGHTS", str(folder / "shared"))
    (folder / "weights/vit").rename(folder / "weights/elsewhere")
    assert main(["train-decomp", "-d", str(folder)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "weights 'weights/vit': not found" in error
    assert f"at {folder / 'weights/vit'} or {folder / 'shared/weights/vit'}" in error
    (folder / "shared/weights").mkdir(parents=True)
    (folder / "weights/elsewhere").rename(folder / "shared/weights/vit")
    assert main(["train-decomp", "-d", str(folder)]) == 0

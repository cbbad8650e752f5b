"""Checkpoints of the original used by the commands as they are, without an import."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from textocvp import stopping
from textocvp.cli import main
from textocvp.compat import is_original, native_files
from textocvp.config.experiment import load_experiment, load_predictor_experiment
from textocvp.config.synthetic import WeightsSettings
from textocvp.data.tokenizers import Text
from textocvp.synthetic.weights import make_weights
from textocvp.training.checkpoint import load_decomposition, load_forecaster, load_pth

from .conftest import CHECKPOINT, small_data

FINAL = "models/checkpoint_epoch_final.pth"
TRAINING = {"num_steps": 1, "batch_size": 2, "warmup_steps": 1, "num_workers": 0}


def native(folder, command="figures-decomp", option="decomp_ckpt", **options):
    """The file that a command reads in place of the checkpoint."""
    with native_files(command, {"exp_directory": folder, option: CHECKPOINT, **options}) as options:
        return Path(options[option])


def decomposition(folder):
    return load_decomposition(load_experiment(folder), native(folder))


def forecaster(folder, name):
    path = native(folder, "figures-predictor", "pred_ckpt", name_pred_exp=name)
    return load_forecaster(load_predictor_experiment(folder, name), path)


def set_training(folder, **training):
    path = folder / "experiment_params.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "training": {**TRAINING, **training}}))


def train(folder, checkpoint):
    status = main(["train-decomp", "-d", str(folder), "--checkpoint", checkpoint])
    stopping.restore()
    return status


def test_an_originals_checkpoint_is_read_wherever_it_is_named(original):
    folder, _ = original
    assert decomposition(folder).num_slots == 4
    name = "textocvp_customtf_tiny"
    experiment = load_predictor_experiment(folder, name)
    assert not experiment.predictor.predictor_params.fusion_params.mask_padding
    whole = forecaster(folder, name).state_dict()
    path = folder / "predictors" / name / "models" / CHECKPOINT
    content = torch.load(path, weights_only=True)
    state = content["model_state_dict"].items()
    content["model_state_dict"] = {key.removeprefix("predictor."): value for key, value in state}
    torch.save(content, path)
    for key, value in forecaster(folder, name).state_dict().items():
        assert torch.equal(value, whole[key])


def test_a_file_from_before_torch_1_6_is_read_too(original, tmp_path):
    """torch.save wrote no zip archives then."""
    folder, _ = original
    path, native_file = folder / "models" / CHECKPOINT, tmp_path / "native.pth"
    content, expected = torch.load(path, weights_only=True), decomposition(folder).state_dict()
    torch.save(content, path, _use_new_zipfile_serialization=False)
    assert is_original(path)
    for name, value in decomposition(folder).state_dict().items():
        assert torch.equal(value, expected[name])
    torch.save({**content, "config": {}}, native_file, _use_new_zipfile_serialization=False)
    assert not is_original(native_file)


def test_copies_are_reused_and_equal_wherever_they_are(original, tmp_path, monkeypatch, capsys):
    """Slot stores are keyed by their hash."""
    folder, _ = original
    copy = native(folder)
    assert copy.is_relative_to(folder / ".native") and not is_original(copy)
    before = copy.stat()
    set_training(folder)
    assert native(folder) == copy and copy.stat().st_mtime_ns == before.st_mtime_ns
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere", ignore=shutil.ignore_patterns(".native"))
    assert native(elsewhere).read_bytes() == copy.read_bytes()
    with native_files("figures-decomp", {"exp_directory": folder, "decomp_ckpt": str(copy)}) as options:
        assert options["decomp_ckpt"] == str(copy)

    shutil.rmtree(folder / ".native")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with native_files("figures-decomp", {"exp_directory": folder, "decomp_ckpt": CHECKPOINT}) as options:
        temporary = Path(options["decomp_ckpt"])
        assert load_pth(temporary)["epoch"] == 7
    assert not temporary.exists() and not (folder / ".native").exists()


def test_keys_that_do_not_fit_are_named_as_in_the_original(original, error_of):
    folder, states = original
    path = folder / "models" / CHECKPOINT
    state = dict(states["."])
    del state["slot_attention.to_q.weight"]
    torch.save({"model_state_dict": state}, path)
    error = error_of("figures-decomp", "-d", folder, "--decomp_ckpt", CHECKPOINT)
    assert str(path) in error and "slot_attention.to_q.weight is missing" in error.replace(
        " (slot_attention.to_q.weight)", ""
    )
    torch.save({"model_state_dict": {**state, "ema.decay": torch.zeros(1)}}, path)
    error = error_of("figures-decomp", "-d", folder, "--decomp_ckpt", CHECKPOINT)
    assert str(path) in error and "ema.decay" in error and not list(folder.glob(".native/*"))


def test_a_checkpoint_without_its_frozen_encoder_is_named(original_dinosaur, error_of, monkeypatch):
    folder, state = original_dinosaur
    path, key = folder / "models" / CHECKPOINT, "encoder.vit_backbone.patch_embed.proj.weight"
    torch.save({"model_state_dict": {name: value for name, value in state.items() if name != key}}, path)
    error = error_of("figures-decomp", "-d", folder, "--decomp_ckpt", CHECKPOINT)
    assert str(path) in error and f"no {key}" in error

    def broken(*arguments):
        raise KeyError("a mistake of ours")

    torch.save({"model_state_dict": state}, path)
    monkeypatch.setattr("textocvp.compat.checkpoints.from_original", broken)
    with pytest.raises(KeyError, match="a mistake of ours"):
        main(["figures-decomp", "-d", str(folder), "--decomp_ckpt", CHECKPOINT])


def test_figures_of_a_whole_folder_of_the_original(original, capsys):
    folder, _ = original
    small_data(folder)
    for path in (folder, folder / "predictors/ocvpseq_tiny", folder / "predictors/vanilla_tiny"):
        (path / "models" / CHECKPOINT).rename(path / FINAL)
    content = torch.load(folder / "predictors/vanilla_tiny" / FINAL, weights_only=True)
    content["model_state_dict"].popitem()
    torch.save(content, folder / "predictors/vanilla_tiny" / FINAL)
    assert main(["figures", "-d", str(folder), "--num_seqs", "1"]) == 0
    out, error = capsys.readouterr()
    assert "ocvpseq_tiny" in out and "vanilla_tiny" not in out.splitlines()[-1]
    assert "is missing" in error and "vanilla_tiny" in error
    assert (folder / "plots/prediction_00.gif").is_file()


def test_frozen_encoders_of_any_size_are_read(original_dinosaur, original, golden, capsys):
    """Unless the configured weights are found, the checkpoint says how large the encoder is."""
    folder, state = original_dinosaur
    model = decomposition(folder)
    assert torch.equal(model.encoder.vit.layernorm.bias, state["encoder.vit_backbone.norm.bias"])
    assert not (folder / "weights").exists()

    folder, _ = original
    case = golden("textocvp_t5_tiny")
    text = Text(case.tensors["caption_tokens"], case.tensors["attn_masks"].bool())
    with torch.no_grad():
        predicted = forecaster(folder, "textocvp_t5_tiny")(case.tensors["slot_history"], text, 1, 4)
    assert_close(predicted, case.tensors["out.ctx1.pred_slots"], atol=1e-5, rtol=0)


def test_a_predictor_of_the_original_trains_without_a_store_and_alike_with_one(original):
    folder, _ = original
    small_data(folder)
    own, states = folder / "predictors/ocvpseq_tiny", []
    set_training(own, num_steps=2)
    run = ["-d", str(folder), "--decomp_ckpt", CHECKPOINT]
    own_run = [*run, "--name_pred_exp", "ocvpseq_tiny", "--checkpoint", CHECKPOINT]
    for precomputes in (False, True):
        assert not precomputes or main(["precompute-slots", *run]) == 0
        assert main(["train-predictor", *own_run]) == 0
        stopping.restore()
        states.append(load_pth(own / FINAL)["model_state_dict"])
        shutil.rmtree(own / "resume")
        (own / FINAL).unlink()
    for name, value in states[0].items():
        assert_close(states[1][name], value, atol=1e-5, rtol=0)


def test_training_begins_from_a_frozen_encoder_in_a_checkpoint(original_dinosaur, capsys):
    folder, state = original_dinosaur
    small_data(folder, "CLIPort")
    set_training(folder)
    assert train(folder, CHECKPOINT) == 0
    weights = folder / "weights/facebook/dinov2-base"
    assert sorted(path.name for path in weights.iterdir()) == ["config.json", "model.safetensors"]
    model = load_decomposition(load_experiment(folder), folder / FINAL)
    assert torch.equal(model.encoder.vit.layernorm.bias, state["encoder.vit_backbone.norm.bias"])

    shutil.rmtree(folder / "resume")
    (folder / FINAL).unlink()
    content = torch.load(folder / "models" / CHECKPOINT, weights_only=True)
    content["model_state_dict"]["encoder.vit_backbone.norm.bias"] += 1
    torch.save(content, folder / "models/other.pth")
    assert train(folder, "other.pth") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "other.pth" in error and "encoder.vit_backbone.norm.bias" in error and "import-checkpoint" in error


def test_weights_that_are_configured_by_their_path(original_dinosaur, tmp_path, error_of):
    """The checkpoint's own are used, but training needs them where they are configured."""
    folder, state = original_dinosaur
    make_weights(WeightsSettings(kind="dinov2", width=32, num_heads=2), tmp_path / "vit")
    path = folder / "experiment_params.json"
    values = json.loads(path.read_text())
    values["model"]["model_params"]["encoder"]["encoder_params"]["weights"] = str(tmp_path / "vit")
    path.write_text(json.dumps(values))
    vit = decomposition(folder).encoder.vit
    assert torch.equal(vit.layernorm.bias, state["encoder.vit_backbone.norm.bias"])
    assert vit.config.num_attention_heads == 2
    error = error_of("train-decomp", "-d", folder, "--checkpoint", CHECKPOINT)
    assert str(folder / "models" / CHECKPOINT) in error and "encoder.vit_backbone." in error

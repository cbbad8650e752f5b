import json
import shutil

import pytest
import torch
from torch.testing import assert_close

from textocvp.cli import main
from textocvp.config.experiment import load_experiment
from textocvp.config.synthetic import WeightsSettings
from textocvp.data.tokenizers import T5Tokenizer
from textocvp.files import UserError
from textocvp.synthetic.weights import make_weights
from textocvp.training.checkpoint import load_decomposition, load_pth

from .conftest import CHECKPOINT, small_data


def imported(source, to, *options):
    assert main(["import-checkpoint", "--from", str(source), "--to", str(to), *options]) == 0
    return to


def exported(folder, out, *options):
    assert main(["export", "-d", str(folder), "--checkpoint", CHECKPOINT, "--out", str(out), *options]) == 0
    return torch.load(out, weights_only=True)


def assert_same(state, expected):
    assert sorted(state) == sorted(expected)
    for key, value in expected.items():
        assert torch.equal(state[key], value), key


def test_golden_states_survive_import_and_export(original, tmp_path, capsys):
    source, states = original
    folder = imported(source, tmp_path / "imported")
    assert f"imported {folder / 'models' / CHECKPOINT}" in capsys.readouterr().out
    sections = {"epoch", "model_state_dict", "optimizer_state_dict", "scheduler_state_dict", "lr_warmup"}
    for below, expected in states.items():
        name = () if below == "." else ("--name_pred_exp", below.split("/")[1])
        content = exported(folder, tmp_path / f"{below.replace('/', '_')}.pth", *name)
        assert set(content) == sections and content["epoch"] == 7
        assert_same(content["model_state_dict"], expected)


def test_golden_dinosaur_survives_import_and_export(original_dinosaur, golden, tmp_path):
    source, expected = original_dinosaur
    folder = imported(source, tmp_path / "imported", "--num_heads", "2")
    assert (folder / "weights/vit_base_patch14_dinov2/model.safetensors").is_file()
    content = load_pth(folder / "models" / CHECKPOINT)
    assert not any("vit" in key for key in content["model_state_dict"]) and content["frozen_sha256"]
    assert_same(exported(folder, tmp_path / "out.pth")["model_state_dict"], expected)

    experiment, case = load_experiment(folder), golden("dinosaur_tiny")
    assert experiment.model.model_params.encoder.encoder_params.normalization == "mean"
    assert [term.clamp_features for term in experiment.loss] == [False, True]
    model = load_decomposition(experiment, folder / "models" / CHECKPOINT)
    with torch.no_grad():
        slots = model.initial_slots(2, noise=case.tensors["initial_noise"])
        slots, _ = model(case.tensors["input"], slots)
    assert_close(slots, case.tensors["out.slot_history"], atol=3e-5, rtol=0)


def test_imported_experiments_are_evaluated_and_drawn(original, tmp_path, error_of):
    folder = imported(original[0], tmp_path / "imported")
    small_data(folder)
    run = ["-d", str(folder), "--decomp_ckpt", CHECKPOINT]
    own = [*run, "--name_pred_exp", "textocvp_customtf_tiny", "--pred_ckpt", CHECKPOINT]
    assert main(["evaluate-decomp", *run]) == 0
    assert main(["evaluate-predictor", *own]) == 0
    assert main(["figures-decomp", *run, "--num_seqs", "1"]) == 0
    assert main(["figures-predictor", *own, "--num_preds", "6", "--num_seqs", "1"]) == 0
    predictor = folder / "predictors/textocvp_customtf_tiny"
    assert json.loads((folder / "results/decomposition.json").read_text())["num_clips"] == 2
    assert json.loads((predictor / "results/prediction.json").read_text())["num_clips"] == 2
    assert [path.name for path in (folder / "plots").iterdir()] == ["decomposition_00.png"]
    plots = sorted(path.name for path in (predictor / "plots").iterdir())
    assert plots == ["prediction_00.gif", "prediction_00.png"]
    assert "8 frames" in error_of("figures-predictor", *own)


def test_bad_folders_and_files_are_named(original, tmp_path, error_of):
    source, _ = original
    to = tmp_path / "to"

    def failure(source=source, to=to):
        return error_of("import-checkpoint", "--from", source, "--to", to)

    assert "nowhere/experiment_params.json: no such file" in failure(tmp_path / "nowhere")
    assert f"{source}: exists" in failure(to=source)

    for folder in source.glob("predictors/*_*_*"):
        shutil.rmtree(folder)
    path = source / "predictors/vanilla_tiny/models" / CHECKPOINT
    state = torch.load(path, weights_only=True)["model_state_dict"]
    bias = state.pop("predictor.mlp_in.bias")
    ours = "predictor.mlp_in.bias (predictor.input_projection.bias)"
    for changes, expected in (
        ({"predictor.mlp_in.bias": bias, "predictor.ema": bias}, "predictor.ema"),
        ({}, f"{ours} is missing"),
        ({"predictor.mlp_in.bias": torch.zeros(3)}, f"{ours} has shape [3], expected [{len(bias)}]"),
        ({"predictor.mlp_in.bias": 3}, "model_state_dict"),
    ):
        torch.save({"model_state_dict": {**state, **changes}}, path)
        error = failure()
        assert str(path) in error and expected in error
    torch.save({"model_state_dict": [1, 2]}, path)
    assert f"{path}: not a checkpoint" in failure()
    path.write_bytes(b"damaged")
    assert f"{path}: damaged" in failure()
    assert not to.exists() and not list(tmp_path.glob(".to*"))


def test_a_folder_without_checkpoints_gives_a_warning(original, tmp_path, capsys):
    source, _ = original
    (source / "models" / CHECKPOINT).unlink()
    imported(source, tmp_path / "imported")
    assert f"{source / 'models'} contains no .pth" in capsys.readouterr().err


def test_a_vision_transformer_of_an_unpublished_width(original_dinosaur, tmp_path, capsys, error_of):
    source, _ = original_dinosaur
    imported(source, tmp_path / "imported")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(source / "models" / CHECKPOINT) in error
    assert "width 32" in error and "assuming 1 attention heads" in error and "--num_heads" in error
    error = error_of("import-checkpoint", "--from", source, "--to", tmp_path / "x", "--num_heads", 3)
    assert "3 attention heads" in error and "width 32" in error


def test_t5s_tokenizer_is_taken_along(original, tmp_path, capsys, monkeypatch, error_of):
    """It is in no checkpoint, and transformers would make one up that knows no word."""
    source, _ = original
    folder = imported(source, tmp_path / "without")
    note = capsys.readouterr().err
    parts = ("google-t5/t5-small", "tokenizer.json", "weights/textocvp_t5_tiny_t5")
    assert all(part in note for part in parts)
    small_data(folder)
    checkpoints = ("--decomp_ckpt", CHECKPOINT, "--pred_ckpt", CHECKPOINT)
    error = error_of("evaluate-predictor", "-d", folder, "--name_pred_exp", "textocvp_t5_tiny", *checkpoints)
    assert "weights/textocvp_t5_tiny_t5/tokenizer.json: no such file" in error

    make_weights(WeightsSettings(kind="t5", width=8), tmp_path / "shared/google-t5--t5-small")
    monkeypatch.setenv("TEXTOCVP_WEIGHTS", str(tmp_path / "shared"))
    folder = imported(source, tmp_path / "with")
    tokenizer = T5Tokenizer("weights/textocvp_t5_tiny_t5", folder)
    assert tokenizer("the cone") == T5Tokenizer("google-t5/t5-small", folder)("the cone")
    assert "tokenizer" not in capsys.readouterr().err


def test_a_checkpoint_of_ours_is_not_imported_again_nor_used_after_an_edit_of_its_model(
    original, tmp_path, error_of
):
    folder = imported(original[0], tmp_path / "imported")
    error = error_of("import-checkpoint", "--from", folder, "--to", tmp_path / "again")
    assert f"{folder / 'models' / CHECKPOINT}: is a checkpoint of this suite already" in error

    path = folder / "experiment_params.json"
    values = json.loads(path.read_text())
    values["model"]["model_params"]["num_slots"] = 3
    path.write_text(json.dumps(values))
    error = error_of("figures-decomp", "-d", folder, "--decomp_ckpt", CHECKPOINT)
    assert str(folder / "models" / CHECKPOINT) in error and "model.model_params.num_slots: 4 -> 3" in error


def test_native_code_refuses_a_checkpoint_of_the_original(original):
    path = original[0] / "models" / CHECKPOINT
    with pytest.raises(UserError, match=f"{path}: holds no configuration.*import-checkpoint"):
        load_decomposition(load_experiment(original[0]), path)

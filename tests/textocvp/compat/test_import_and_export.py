from __future__ import annotations

import json

import pytest
import torch
from torch.testing import assert_close

from textocvp.cli import main
from textocvp.config.experiment import load_experiment
from textocvp.data.tokenizers import T5Tokenizer
from textocvp.synthetic.generate import make_data
from textocvp.synthetic.weights import make_weights
from textocvp.training.checkpoint import load_decomposition, load_pth

CHECKPOINT = "checkpoint_epoch_7.pth"


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
    for below, expected in states.items():
        name = () if below == "." else ("--name_pred_exp", below.split("/")[1])
        content = exported(folder, tmp_path / f"{below.replace('/', '_')}.pth", *name)
        assert set(content) == {
            "epoch",
            "model_state_dict",
            "optimizer_state_dict",
            "scheduler_state_dict",
            "lr_warmup",
        }
        assert content["epoch"] == 7
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


def test_imported_experiments_are_evaluated_drawn_and_trained_on(original, tmp_path, capsys):
    source, _ = original
    folder = imported(source, tmp_path / "imported")
    make_data("CATER_Hard", folder / "data", 4, 2, 2, size=16, num_frames=8, max_objects=2, workers=1)
    run = ["-d", str(folder), "--decomp_ckpt", CHECKPOINT]
    assert main(["evaluate-decomp", *run]) == 0
    own = [*run, "--name_pred_exp", "textocvp_customtf_tiny", "--pred_ckpt", CHECKPOINT]
    assert main(["evaluate-predictor", *own]) == 0
    assert main(["figures-decomp", *run, "--num_seqs", "1"]) == 0
    assert main(["figures-predictor", *own, "--num_preds", "6", "--num_seqs", "1"]) == 0
    out = capsys.readouterr().out
    for line in (
        "evaluate-decomp: clip 4/4 (100%)",
        "evaluate-predictor: clip 2/2 (100%)",
        "figures-decomp: clip 1/1 (100%)",
        "figures-predictor: clip 1/1 (100%)",
    ):
        assert line in out
    plots = folder / "predictors/textocvp_customtf_tiny/plots"
    assert (folder / "plots/decomposition_00.png").is_file()
    assert (plots / "prediction_00.png").is_file() and (plots / "prediction_00.gif").is_file()
    capsys.readouterr()
    assert main(["figures-predictor", *own]) == 2
    assert "has 8 frames, too few" in capsys.readouterr().err


def test_bad_folders_and_files_are_named(original, tmp_path, capsys):
    source, _ = original

    def error_of(*argv):
        assert main([str(argument) for argument in argv]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    to = tmp_path / "to"
    assert "experiment_params.json: no such file; --from is" in error_of(
        "import-checkpoint", "--from", tmp_path / "nowhere", "--to", to
    )
    assert "exists; choose another folder" in error_of("import-checkpoint", "--from", source, "--to", source)

    path = source / "predictors/vanilla_tiny/models" / CHECKPOINT
    content = torch.load(path, weights_only=True)
    content["model_state_dict"]["predictor.ema"] = torch.zeros(1)
    torch.save(content, path)
    error = error_of("import-checkpoint", "--from", source, "--to", to)
    assert str(path) in error and "predictor.ema" in error
    del content["model_state_dict"]["predictor.ema"], content["model_state_dict"]["predictor.mlp_in.bias"]
    torch.save(content, path)
    error = error_of("import-checkpoint", "--from", source, "--to", to)
    assert str(path) in error
    assert "predictor.mlp_in.bias (predictor.input_projection.bias) is missing" in error
    content["model_state_dict"]["predictor.mlp_in.bias"] = torch.zeros(3)
    torch.save(content, path)
    assert "predictor.mlp_in.bias (predictor.input_projection.bias) has shape [3], not [" in error_of(
        "import-checkpoint", "--from", source, "--to", to
    )
    for wrong in ({"predictor.mlp_in.bias": 3}, [1, 2]):
        torch.save({"model_state_dict": wrong}, path)
        error = error_of("import-checkpoint", "--from", source, "--to", to)
        assert str(path) in error and "its model_state_dict holds something else than tensors" in error
    path.write_bytes(b"damaged")
    assert "damaged or no checkpoint" in error_of("import-checkpoint", "--from", source, "--to", to)
    assert not to.exists() and not list(tmp_path.glob(".to*"))


def test_a_folder_without_checkpoints_is_told_of(original, tmp_path, capsys):
    source, _ = original
    (source / "models" / CHECKPOINT).unlink()
    imported(source, tmp_path / "imported")
    assert f"{source / 'models'} holds no .pth: parameters alone are imported" in capsys.readouterr().err


def test_epochs_that_a_checkpoint_does_not_tell(original, tmp_path):
    folder, states = original
    path = folder / "models" / CHECKPOINT
    for epoch in ({}, {"epoch": None}):
        torch.save({"model_state_dict": states["."], **epoch}, path)
        out = tmp_path / f"out{len(epoch)}.pth"
        assert exported(folder, out)["epoch"] == 0


def test_an_unusual_vision_transformer_is_told_of(original_dinosaur, tmp_path, capsys):
    source, _ = original_dinosaur
    imported(source, tmp_path / "imported")
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(source / "models" / CHECKPOINT) in error
    assert "of width 32 is none of the published ones; --num_heads 1 is assumed" in error
    assert (
        main(["import-checkpoint", "--from", str(source), "--to", str(tmp_path / "x"), "--num_heads", "3"])
        == 2
    )
    assert "3 attention heads do not divide the vision transformer's width 32" in capsys.readouterr().err


def test_t5s_tokenizer_is_taken_along(original, tmp_path, capsys, monkeypatch):
    """It lies in no checkpoint, and transformers would make one up that knows no word."""
    source, _ = original
    folder = imported(source, tmp_path / "without")
    assert (
        "'google-t5/t5-small' is not at hand; put its tokenizer.json into weights/textocvp_t5_tiny_t5"
        in capsys.readouterr().out
    )
    make_data("CATER_Hard", folder / "data", 4, 2, 2, size=16, num_frames=8, max_objects=2, workers=1)
    assert (
        main(
            [
                "evaluate-predictor",
                "-d",
                str(folder),
                "--decomp_ckpt",
                CHECKPOINT,
                "--name_pred_exp",
                "textocvp_t5_tiny",
                "--pred_ckpt",
                CHECKPOINT,
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert "weights/textocvp_t5_tiny_t5: has no tokenizer.json; copy that of the T5" in error

    make_weights("t5", tmp_path / "shared/google-t5--t5-small", width=8)
    monkeypatch.setenv("TEXTOCVP_WEIGHTS", str(tmp_path / "shared"))
    folder = imported(source, tmp_path / "with")
    tokenizer = T5Tokenizer("weights/textocvp_t5_tiny_t5", folder)
    assert tokenizer("the cone") == T5Tokenizer("google-t5/t5-small", folder)("the cone")
    assert "not at hand" not in capsys.readouterr().out


def test_what_the_original_cannot_do_is_not_exported(tmp_path, capsys):
    from textocvp.compat.export import refuse_other_models
    from textocvp.config.errors import UserError
    from textocvp.config.experiment import experiment_values, parse_experiment

    for model, setting in (
        ("SAVi", {"model.model_params.input_scale": 4.0}),
        ("SAVi", {"model.model_params.initializer": "BackgroundRandom"}),
        ("ExtendedDINOSAUR", {"model.model_params.encoder.encoder_params.num_blocks": 3}),
    ):
        dataset = {"SAVi": "CATER_Hard", "ExtendedDINOSAUR": "CLIPort"}[model]
        experiment = parse_experiment(experiment_values(model, dataset, setting), "test")
        with pytest.raises(UserError, match=f"{next(iter(setting))}: the original has no such setting"):
            refuse_other_models(experiment)


def test_a_checkpoint_of_ours_is_not_imported_again(original, tmp_path, capsys):
    source, _ = original
    folder = imported(source, tmp_path / "imported")
    assert main(["import-checkpoint", "--from", str(folder), "--to", str(tmp_path / "again")]) == 2
    assert "is a checkpoint of this suite already" in capsys.readouterr().err


def test_an_edited_model_section_is_refused(original, tmp_path, capsys):
    folder = imported(original[0], tmp_path / "imported")
    path = folder / "experiment_params.json"
    values = json.loads(path.read_text())
    values["model"]["model_params"]["num_slots"] = 3
    path.write_text(json.dumps(values))
    assert main(["figures-decomp", "-d", str(folder), "--decomp_ckpt", CHECKPOINT]) == 2
    error = capsys.readouterr().err
    assert "was trained with another configuration (model.model_params.num_slots: 4 -> 3)" in error

"""Checkpoints of the original used where they lie, without an import."""

from __future__ import annotations

import json
import shutil

import torch
from torch.testing import assert_close

from textocvp import stopping
from textocvp.cli import main
from textocvp.config.experiment import load_experiment, load_predictor_experiment
from textocvp.data.tokenizers import Text
from textocvp.synthetic.generate import make_data
from textocvp.training.checkpoint import load_decomposition, load_forecaster, load_pth

CHECKPOINT = "checkpoint_epoch_7.pth"


def test_an_originals_checkpoint_is_read_wherever_it_is_named(original):
    folder, _ = original
    model = load_decomposition(load_experiment(folder), folder / "models" / CHECKPOINT)
    assert model.num_slots == 4
    experiment = load_predictor_experiment(folder, "textocvp_customtf_tiny")
    assert not experiment.predictor.predictor_params.fusion_params.mask_padding
    path = folder / "predictors/textocvp_customtf_tiny/models" / CHECKPOINT
    whole = load_forecaster(experiment, path).state_dict()
    content = torch.load(path, weights_only=True)
    content["model_state_dict"] = {
        key.removeprefix("predictor."): value for key, value in content["model_state_dict"].items()
    }
    torch.save(content, path)
    for key, value in load_forecaster(experiment, path).state_dict().items():
        assert torch.equal(value, whole[key])


def test_frozen_encoders_of_any_size_are_read_in_place(original_dinosaur, original, golden, capsys):
    """Where no folder of weights is named, the checkpoint tells the encoder's size."""
    folder, state = original_dinosaur
    model = load_decomposition(load_experiment(folder), folder / "models" / CHECKPOINT)
    assert torch.equal(model.encoder.vit.layernorm.bias, state["encoder.vit_backbone.norm.bias"])
    assert "--num_heads 1 is assumed" in capsys.readouterr().err

    folder, _ = original
    experiment = load_predictor_experiment(folder, "textocvp_t5_tiny")
    path = folder / "predictors/textocvp_t5_tiny/models" / CHECKPOINT
    forecaster, case = load_forecaster(experiment, path), golden("textocvp_t5_tiny")
    text = Text(case.tensors["caption_tokens"], case.tensors["attn_masks"].bool())
    with torch.no_grad():
        predicted = forecaster(case.tensors["slot_history"], text, 1, 4)
    assert_close(predicted, case.tensors["out.ctx1.pred_slots"], atol=1e-5, rtol=0)


def test_a_predictor_of_the_original_trains_without_a_store_and_alike_with_one(original):
    folder, _ = original
    make_data("CATER_Hard", folder / "data", 4, 2, 2, size=16, num_frames=8, max_objects=2, workers=1)
    own = folder / "predictors/ocvpseq_tiny"
    values = json.loads((own / "experiment_params.json").read_text())
    values["training"] = {"num_steps": 2, "batch_size": 2, "warmup_steps": 1, "num_workers": 0}
    (own / "experiment_params.json").write_text(json.dumps(values))
    states = []
    for precomputes in (False, True):
        run = ["-d", str(folder), "--decomp_ckpt", CHECKPOINT]
        if precomputes:
            assert main(["precompute-slots", *run]) == 0
        own_run = [*run, "--name_pred_exp", "ocvpseq_tiny", "--checkpoint", CHECKPOINT]
        assert main(["train-predictor", *own_run]) == 0
        stopping.restore()
        final = own / "models/checkpoint_epoch_final.pth"
        states.append(load_pth(final)["model_state_dict"])
        shutil.rmtree(own / "resume")
        final.unlink()
    for name, value in states[0].items():
        assert_close(states[1][name], value, atol=1e-5, rtol=0)


def test_training_begins_from_a_frozen_encoder_in_a_checkpoint(original_dinosaur, capsys):
    folder, state = original_dinosaur
    make_data("CLIPort", folder / "data", 4, 2, 2, size=56, num_frames=6, workers=1)
    path = folder / "experiment_params.json"
    values = json.loads(path.read_text())
    values["training"] = {"num_steps": 1, "batch_size": 2, "warmup_steps": 1, "num_workers": 0}
    path.write_text(json.dumps(values))
    assert main(["train-decomp", "-d", str(folder), "--checkpoint", CHECKPOINT]) == 0
    stopping.restore()
    weights = folder / "weights/facebook/dinov2-base"
    assert (weights / "model.safetensors").is_file() and not list(folder.glob(".encoder*"))
    final = folder / "models/checkpoint_epoch_final.pth"
    model = load_decomposition(load_experiment(folder), final)
    assert torch.equal(model.encoder.vit.layernorm.bias, state["encoder.vit_backbone.norm.bias"])

    shutil.rmtree(folder / "resume")
    final.unlink()
    content = torch.load(folder / "models" / CHECKPOINT, weights_only=True)
    content["model_state_dict"]["encoder.vit_backbone.norm.bias"] += 1
    torch.save(content, folder / "models/other.pth")
    assert main(["train-decomp", "-d", str(folder), "--checkpoint", "other.pth"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "other.pth: its frozen encoder differs from the weights that are configured" in error
    assert "encoder.vit_backbone.norm.bias" in error and "import-checkpoint makes a folder with both" in error

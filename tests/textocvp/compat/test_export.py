from pathlib import Path

import pytest
import torch

from textocvp.cli import main
from textocvp.compat.checkpoints import Trained
from textocvp.compat.export import refuse_settings
from textocvp.config.experiment import experiment_values, parse_experiment
from textocvp.files import UserError

from .conftest import CHECKPOINT


@pytest.mark.parametrize(
    ("model", "dataset", "setting", "value"),
    [
        ("SAVi", "CATER_Hard", "model.model_params.input_scale", 4.0),
        ("SAVi", "CATER_Hard", "model.model_params.initializer", "BackgroundRandom"),
        ("ExtendedDINOSAUR", "CLIPort", "model.model_params.encoder.encoder_params.num_blocks", 3),
    ],
)
def test_what_the_original_cannot_do_is_not_exported(model, dataset, setting, value):
    experiment = parse_experiment(experiment_values(model, dataset, {setting: value}), "test")
    with pytest.raises(UserError, match=f"{setting}: the original has no such setting"):
        refuse_settings(Trained(experiment, "model", Path()))


def test_epochs_that_a_checkpoint_does_not_say(original, tmp_path):
    folder, states = original
    for epoch in ({}, {"epoch": None}):
        torch.save({"model_state_dict": states["."], **epoch}, folder / "models" / CHECKPOINT)
        out = tmp_path / f"out{len(epoch)}.pth"
        assert main(["export", "-d", str(folder), "--checkpoint", CHECKPOINT, "--out", str(out)]) == 0
        assert torch.load(out, weights_only=True)["epoch"] == 0


def test_an_existing_file_is_kept(original, error_of):
    out = original[0] / "models" / CHECKPOINT
    assert f"{out}: exists" in error_of("export", "-d", original[0], "--out", out)

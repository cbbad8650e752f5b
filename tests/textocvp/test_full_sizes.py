"""The default sizes with random values: all builds, takes two steps, goes to the original and back."""

from pathlib import Path

import pytest
import torch

from textocvp.compat.checkpoints import Trained
from textocvp.compat.keys import from_original, to_original
from textocvp.config.experiment import experiment_values, parse_experiment, predictor_values
from textocvp.config.registry import DATASETS, MODELS, PREDICTORS
from textocvp.data.tokenizers import Text
from textocvp.decomposition import build_model
from textocvp.predictors import build_forecaster

# frames as small as patches of 14 pixels allow with the same widths; SAVi's own size
PATCHES = {"model.model_params.img_size": 56, "model.model_params.decoder.decoder_params.num_patches": 16}
SMALL_FRAMES = {"SAVi": {}, "ExtendedDINOSAUR": {"dataset.img_size": [56, 56], **PATCHES}}
DATASET = {"SAVi": "CATER_Hard", "ExtendedDINOSAUR": "CLIPort"}

pytestmark = pytest.mark.slow


def experiment_of(name):
    return parse_experiment(experiment_values(name, DATASET[name], SMALL_FRAMES[name]), "test")


def forecaster_of(name):
    parent = experiment_values("SAVi", "CATER_Hard", {})
    experiment = parse_experiment(predictor_values(parent, name, {}), "test")
    return experiment, build_forecaster(experiment, pretrained=False)


def two_steps(model, loss_of):
    """Two optimiser steps; which parameters they changed."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.Adam(trained.values(), lr=1e-4)
    for _ in range(2):
        loss = loss_of()
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name for name, p in trained.items() if not torch.equal(p, before[name])}, set(trained)


def assert_survives(model, names):
    state = model.state_dict()
    back = from_original(to_original(state, names), names)
    assert sorted(back) == sorted(state)
    assert all(torch.equal(back[name], value) for name, value in state.items())


@pytest.mark.parametrize("name", list(MODELS))
def test_decomposition_models(name):
    experiment = experiment_of(name)
    model = build_model(experiment, pretrained=False).train()
    assert_survives(model, Trained(experiment, "model", Path()).names)
    video = torch.rand(1, 2, 3, *experiment.dataset.img_size)

    def loss():
        _, rendering = model(video)
        features = 0.0
        if rendering.features is not None:
            features = (rendering.features - rendering.target_features).square().mean()
        return (rendering.frames - video).square().mean() + features

    changed, trained = two_steps(model, loss)
    assert changed == trained


@pytest.mark.parametrize("name", list(PREDICTORS))
def test_predictors(name):
    experiment, forecaster = forecaster_of(name)
    assert_survives(forecaster, Trained(experiment, "predictor", Path()).names)
    slots = torch.randn(1, 3, 8, 128)
    text = Text(torch.tensor([[5, 6, 7, 1]]), torch.ones(1, 4, dtype=torch.bool))

    def loss():
        return (forecaster.train()(slots, text, 1, 2) - slots[:, 1:]).square().mean()

    changed, trained = two_steps(forecaster, loss)
    unused = {n for n in trained if n.endswith(("time_embedding.table",))}  # its last rows are never read
    assert changed | unused == trained


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_default_file_makes_an_experiment(name):
    for model in MODELS:
        values = experiment_values(model, name, SMALL_FRAMES[model])
        assert parse_experiment(values, "test").dataset.dataset_name == name

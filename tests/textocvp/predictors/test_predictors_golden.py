"""Predictors in the rollout against the original implementation."""

import json
import tempfile
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from textocvp.compat.keys import PREDICTORS, from_original, to_original
from textocvp.config import registry
from textocvp.config.schema import build, filled_in
from textocvp.data.tokenizers import Text
from textocvp.modules.attention import PackedSelfAttention
from textocvp.predictors.rollout import SlotForecaster

CASES = ("vanilla_tiny", "ocvpseq_tiny", "textocvp_customtf_tiny", "textocvp_t5_tiny", "textocvp_t5_narrow")
WITH_TEXT = [name for name in CASES if name.startswith("textocvp")]


def build_forecaster(name, case, **changes):
    """The case's forecaster with the original's weights, and the table of names."""
    section = case.config["predictor"]
    entry, names = registry.PREDICTORS.get(section["predictor_name"]), PREDICTORS[section["predictor_name"]]
    predictor_class, config_class, weights = entry.load(), entry.load_config(), ()
    values = filled_in({**section["predictor_params"], **changes}, config_class.original)
    if predictor_class.reads_weights:
        values["text_encoder_params"] = {"weights": str(t5_folder(case))}
        weights = (None, False)
    config = build(config_class, values, "golden")
    forecaster = SlotForecaster(predictor_class(config, 16, 3, *weights), buffer_size=3)
    forecaster.load_state_dict(from_original(case.part("state."), names))
    return forecaster.eval(), names


def t5_folder(case):
    """A folder that tells of the case's T5 only how large it is; the case's state has its weights."""
    folder = Path(tempfile.mkdtemp())
    (folder / "config.json").write_text(json.dumps(case.config["_fixture"]["t5_config"]))
    return folder


def text_of(case):
    tokens = case.tensors["caption_tokens"]
    if "attn_masks" in case.tensors:
        return Text(tokens, case.tensors["attn_masks"].bool())
    return Text(tokens, torch.arange(tokens.shape[1]) < case.tensors["caption_lengths"][:, None])


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("num_context", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_golden_rollout(golden, name, num_context, grad):
    case = golden(name)
    forecaster, _ = build_forecaster(name, case)
    expected, slots = case.part(f"out.ctx{num_context}."), case.tensors["slot_history"]
    with torch.set_grad_enabled(grad):
        predicted = forecaster(slots, text_of(case), num_context, 4)
    assert_close(predicted, expected["pred_slots"], atol=1e-5, rtol=0, check_device=False)
    loss = (predicted - slots[:, num_context : num_context + 4]).square().mean()
    assert_close(loss, expected["slot_mse"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_context", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_golden_teacher_forcing_while_training(golden, name, num_context):
    """The original forces the truth in eval mode too; here only training does, so dropout is switched off."""
    case = golden(name)
    forecaster, _ = build_forecaster(name, case)
    slots, text = case.tensors["slot_history"], text_of(case)
    ignored = forecaster(slots, text, num_context, 4, teacher_forcing=True)
    forecaster.train()
    for module in forecaster.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, PackedSelfAttention):
            module.dropout = 0.0
    forced = forecaster(slots, text, num_context, 4, teacher_forcing=True)
    expected = case.part(f"out.ctx{num_context}.")
    assert_close(forced, expected["pred_slots_teacher_force"], atol=1e-5, rtol=0)
    assert_close(ignored, expected["pred_slots"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_golden_gradient_norms_and_names_of_the_state(golden, name):
    case = golden(name)
    forecaster, names = build_forecaster(name, case)
    slots = case.tensors["slot_history"]
    (forecaster(slots, text_of(case), 1, 4) - slots[:, 1:5]).square().mean().backward()
    trained = {n: p.grad for n, p in forecaster.named_parameters() if p.requires_grad}
    gradients = to_original(trained, names)
    order, expected = case.config["_fixture"]["grad_norms_order"], case.tensors["out.ctx1.grad_norms"]
    frozen = [key for key, norm in zip(order, expected) if torch.isnan(norm)]
    assert frozen == case.config["_fixture"].get("params_without_grad", [])
    assert sorted(gradients) == sorted(set(order) - set(frozen))
    norms = torch.stack([gradients[key].norm() for key in order if key in gradients])
    assert_close(norms, expected[~expected.isnan()], atol=1e-5, rtol=1e-4)
    original = to_original(forecaster.state_dict(), names)
    assert sorted(original) == sorted(case.part("state."))


@pytest.mark.parametrize("name", CASES)
def test_golden_single_step(golden, name):
    case = golden(name)
    predictor = build_forecaster(name, case)[0].predictor
    text = predictor.encode_text(text_of(case)) if predictor.needs_text else None
    with torch.no_grad():
        step = predictor(case.tensors["slot_history"][:, :3], text)
    assert_close(step, case.tensors["out.single_step_window3"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", WITH_TEXT)
def test_golden_text_embeddings_and_an_unpadded_caption(golden, name):
    """Without padding, masked and unmasked cross-attention are the same."""
    case = golden(name)
    slots, text = case.tensors["slot_history"][1:], text_of(case)
    length = int(text.mask[1].sum())
    expected = case.tensors["out.ctx2.pred_slots_caption1_unpadded"]
    forecaster, _ = build_forecaster(name, case)
    with torch.no_grad():
        embedding = forecaster.predictor.encode_text(text)
        unpadded = forecaster(slots, Text(text.tokens[1:, :length], text.mask[1:, :length]), 2, 4)
        forecaster.predictor.mask_padding = True
        padded_and_masked = forecaster(slots, Text(text.tokens[1:], text.mask[1:]), 2, 4)
    assert embedding.mask is None
    assert_close(embedding.embeddings, case.tensors["out.text_embeddings"], atol=1e-5, rtol=0)
    assert_close(unpadded, expected, atol=1e-5, rtol=0)
    assert_close(padded_and_masked, expected, atol=1e-5, rtol=0)

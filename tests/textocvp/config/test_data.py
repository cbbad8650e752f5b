from __future__ import annotations

import dataclasses
import json

import pytest

from textocvp.config import registry, schema
from textocvp.config.data import DatasetConfig, PredictionConfig, SlotStoreConfig
from textocvp.config.errors import ConfigError


@pytest.mark.parametrize("name", ["CATER_Easy", "CATER_Hard"])
def test_the_originals_defaults_are_kept(name):
    entry = registry.DATASETS.get(name)
    values = entry.read_defaults()
    config = schema.build(entry.load_config(), values, "file")
    assert config.dataset_name == name and {**values, "vocabulary": None} == schema.to_dict(config)
    assert config == dataclasses.replace(DatasetConfig(), dataset_name=name)


@pytest.mark.parametrize(
    "cls, values, message",
    [
        (
            DatasetConfig,
            {"img_size": [64, 0]},
            r"img_size: at least 1 x 1 pixels are needed, found \[64, 0\]",
        ),
        (DatasetConfig, {"img_size": 64}, "img_size: 64 is not allowed"),
        (DatasetConfig, {"num_frames": 0}, "num_frames: 0 is not allowed, at least 1"),
        (DatasetConfig, {"root": ""}, "root: must name the folder"),
        (DatasetConfig, {"tokenizer": "CustomTokeniser"}, "tokenizer: .* did you mean 'CustomTokenizer'"),
        (DatasetConfig, {"img_sise": [1, 1]}, "img_sise: unknown key, did you mean 'img_size'"),
        (
            PredictionConfig,
            {"num_context": 5, "input_buffer_size": 3},
            "input_buffer_size: 3 frames cannot hold",
        ),
        (PredictionConfig, {"num_preds": 0}, "num_preds: 0 is not allowed"),
        (SlotStoreConfig, {"mode": "shop"}, "mode: 'shop' is not allowed"),
        (SlotStoreConfig, {"stride": 0}, "stride: 0 is not allowed"),
    ],
)
def test_bad_values(cls, values, message):
    with pytest.raises(ConfigError, match=message):
        schema.build(cls, values, "file")


def test_a_window_is_context_and_predictions():
    assert PredictionConfig().num_frames == 10
    assert PredictionConfig(num_context=5, input_buffer_size=None).num_frames == 14


def test_every_vocabulary_numbers_its_words_from_zero():
    from textocvp.data.tokenizers import VOCABULARIES

    for path in VOCABULARIES.glob("*.json"):
        vocabulary = json.loads(path.read_text())
        assert list(vocabulary.values()) == list(range(len(vocabulary)))
        assert list(vocabulary)[:3] == ["[PAD]", "[CLS]", "[SEP]"]

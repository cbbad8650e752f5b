import json

import pytest

from textocvp.config import schema
from textocvp.config.data import DatasetConfig, PredictionConfig, SlotStoreConfig
from textocvp.files import ConfigError


@pytest.mark.parametrize(
    "cls, values, message",
    [
        (DatasetConfig, {"img_size": [64, 0]}, r"img_size\[1\]: expected a value > 0, got 0"),
        (DatasetConfig, {"img_size": 64}, "img_size: expected a list, got 64"),
        (DatasetConfig, {"num_frames": 0}, "num_frames: expected a value > 0, got 0"),
        (DatasetConfig, {"root": ""}, "root: expected text that is not empty"),
        (DatasetConfig, {"tokenizer": "Custom"}, "tokenizer: expected 'CustomTokenizer' or 'T5', got"),
        (DatasetConfig, {"img_sise": [1, 1]}, "img_sise: unknown key, did you mean 'img_size'"),
        (DatasetConfig, {"dataset_name": "CATER"}, "dataset_name: unknown data set 'CATER', did you mean"),
        (PredictionConfig, {"num_context": 5, "input_buffer_size": 3}, "input_buffer_size: .* 5, got 3"),
        (PredictionConfig, {"num_preds": 0}, "num_preds: .* got 0"),
        (SlotStoreConfig, {"mode": "shop"}, "mode: .* got 'shop'"),
        (SlotStoreConfig, {"stride": 0}, "stride: .* got 0"),
    ],
)
def test_bad_values(cls, values, message):
    if cls is DatasetConfig:
        values = {"dataset_name": "CATER_Hard", **values}
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

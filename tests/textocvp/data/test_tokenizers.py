import json
from pathlib import Path

import pytest
import torch

from textocvp.cli import main
from textocvp.data.tokenizers import CustomTokenizer, build_vocabulary, split_words, tokenize
from textocvp.files import UserError

from .conftest import assert_refused

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "tokenizer.json").read_text())
VOCABULARIES = {name: name.replace("_train", "") for name in GOLDEN if "vocab_size" in GOLDEN[name]}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_golden_ids_words_and_batch(name):
    tokenizer = CustomTokenizer(VOCABULARIES[name])
    assert len(tokenizer.vocabulary) == GOLDEN[name]["vocab_size"]
    for case in GOLDEN[name]["captions"]:
        assert split_words(case["caption"]) == case["nltk_word_tokenize"]
        if "error" in case:
            word = case["error"].split("'")[1]
            with pytest.raises(UserError) as caught:
                tokenizer(case["caption"])
            message = str(caught.value)
            assert repr(word) in message and repr(case["caption"]) in message
            assert f"not in the vocabulary of {VOCABULARIES[name]}" in message and "\n" not in message
        else:
            assert tokenizer(case["caption"]) == case["ids"] and len(case["ids"]) == case["length"]

    text = tokenize(tokenizer, GOLDEN[name]["batch"]["captions"])
    assert text.tokens.dtype == torch.int64 and text.tokens.tolist() == GOLDEN[name]["batch"]["tokens"]
    assert text.mask.dtype == torch.bool and text.mask.sum(1).tolist() == GOLDEN[name]["batch"]["lengths"]
    assert (text.tokens[~text.mask] == 0).all()


def test_unknown_words_each_once_and_unknown_vocabularies():
    with pytest.raises(UserError, match="caption 'The pink cone.* 'The', 'pink'$"):
        CustomTokenizer("CATER_Hard")("The pink cone is The pink cone.")

    assert_refused("no vocabulary for 'CATER_Hart', did you mean 'CATER_Hard'", CustomTokenizer, "CATER_Hart")


def test_a_vocabulary_of_ones_own(tmp_path):
    path = tmp_path / "words.json"
    assert_refused("words.json: no such file", CustomTokenizer, path)
    path.write_text('{"the": 3}')
    assert_refused("words.json: not a vocabulary; .*build-vocabulary", CustomTokenizer, path)
    path.write_text('{"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "the": 3}')
    assert CustomTokenizer(path)("the the") == [1, 3, 3, 2]
    with pytest.raises(UserError, match="caption 'the cone': not in .*words.json.* 'cone'"):
        CustomTokenizer(path)("the cone")


def test_text_moves_between_devices():
    text = tokenize(CustomTokenizer("CLIPort"), ["put", "put in"]).to(torch.device("meta"))
    assert text.tokens.device.type == text.mask.device.type == "meta"


def test_build_vocabulary_from_lines(tmp_path, capsys):
    captions, out = tmp_path / "captions.txt", tmp_path / "words.json"
    captions.write_text("the cone is rotating. the cone\n\nis up.\n")
    assert main(["build-vocabulary", "--from", str(captions), "--out", str(out)]) == 0
    assert " ".join(json.loads(out.read_text())) == "[PAD] [CLS] [SEP] . cone is rotating the up"
    assert "9 words of 2 captions" in capsys.readouterr().out
    with pytest.raises(UserError, match="words.json: exists; the ids of a vocabulary must not change"):
        build_vocabulary(captions, out)
    assert main(["build-vocabulary", "--from", str(tmp_path / "none.txt"), "--out", str(tmp_path / "x")]) == 2
    assert "none.txt: No such file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "captions: is a folder; give --dataset"),
        (b"\x89PNG", "captions: damaged, not UTF-8"),
        (b"\n", "captions: contains no captions"),
    ],
)
def test_sources_without_captions(tmp_path, content, message):
    source = tmp_path / "captions"
    source.mkdir() if content is None else source.write_bytes(content)
    assert_refused(message, build_vocabulary, source, tmp_path / "words.json")

"""Captions to token ids."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch

from textocvp.config import registry
from textocvp.config.data import DatasetConfig
from textocvp.config.errors import UserError, nearest
from textocvp.data.dataset import read_text
from textocvp.files import read_json, sha256_json, write_json

VOCABULARIES = Path(__file__).parent / "vocabularies"
SPECIAL_WORDS = ("[PAD]", "[CLS]", "[SEP]")


class Text(NamedTuple):
    """The captions of a batch."""

    tokens: torch.Tensor
    """(B, S) int64, padded with 0."""
    mask: torch.Tensor
    """(B, S) bool, True = a real token."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Text:
        """The same on another device."""
        return Text(*(tensor.to(device, non_blocking=non_blocking) for tensor in self))


class CustomTokenizer:
    """Words and punctuation of a fixed vocabulary, between [CLS] and [SEP]; no unknown token, no lower case.

    The words are nltk's `word_tokenize`: sentences first, so that an inner full stop is a word of its own.
    Punkt needs no trained parameters for that, hence no download.
    """

    name = "CustomTokenizer"

    store_name = name

    def __init__(self, vocabulary: Union[str, Path]) -> None:
        """vocabulary: the name of one that comes with the suite, or a file that build-vocabulary wrote."""
        self.source = vocabulary
        self.vocabulary = read_vocabulary(vocabulary)

    def key(self) -> Dict[str, str]:
        """What identifies this tokenizer's ids."""
        return {"tokenizer": self.name, "vocabulary_sha256": sha256_json(self.vocabulary)}

    def words(self, caption: str) -> List[str]:
        """Words and punctuation of a caption in order."""
        return split_words(caption)

    def unknown_words(self, caption: str) -> List[str]:
        """Words of a caption that the vocabulary lacks, in order, each once."""
        return [word for word in dict.fromkeys(self.words(caption)) if word not in self.vocabulary]

    def __call__(self, caption: str) -> List[int]:
        """Token ids; UserError naming word, caption and vocabulary where a word is unknown."""
        unknown = self.unknown_words(caption)
        if unknown:
            raise UserError(
                f"word {unknown[0]!r} of the caption {caption!r} is not in the vocabulary of "
                f"{self.source} ({len(self.vocabulary)} words)"
            )
        ids = [self.vocabulary[word] for word in self.words(caption)]
        return [self.vocabulary["[CLS]"], *ids, self.vocabulary["[SEP]"]]


def read_vocabulary(vocabulary: Union[str, Path]) -> Dict[str, int]:
    """Word -> id, from a file, or of a name that comes with the suite (UserError: neither, or damaged)."""
    if isinstance(vocabulary, Path):
        words = read_json(vocabulary)
        if not isinstance(words, dict) or not all(word in words for word in SPECIAL_WORDS):
            raise UserError(
                f"{vocabulary}: no vocabulary, words and ids with {', '.join(SPECIAL_WORDS)} are "
                f"expected; build-vocabulary writes one"
            )
        return words
    path = VOCABULARIES / f"{vocabulary}.json"
    if not path.is_file():
        known = [file.stem for file in VOCABULARIES.glob("*.json")]
        raise UserError(
            f"CustomTokenizer has no vocabulary for {vocabulary!r}{nearest(vocabulary, known)}; "
            f"write one with build-vocabulary and name it in dataset.vocabulary"
        )
    return json.loads(path.read_text())


def split_words(caption: str) -> List[str]:
    """Words and punctuation of a caption in order, as nltk's word_tokenize splits them."""
    sentences, words = _nltk()
    return [word for sentence in sentences(caption) for word in words(sentence)]


@functools.cache
def _nltk() -> Tuple[Callable[[str], List[str]], Callable[[str], List[str]]]:
    """nltk's splitters of texts and of sentences; importing it takes seconds, which a text store saves."""
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    return PunktSentenceTokenizer().tokenize, NLTKWordTokenizer().tokenize


def pad_tokens(captions: Sequence[Sequence[int]]) -> Text:
    """Token ids of several captions as one batch, padded to the longest."""
    longest = max(map(len, captions))
    tokens = torch.zeros(len(captions), longest, dtype=torch.int64)
    mask = torch.zeros(len(captions), longest, dtype=torch.bool)
    for row, ids in enumerate(captions):
        tokens[row, : len(ids)] = torch.as_tensor(ids, dtype=torch.int64)
        mask[row, : len(ids)] = True
    return Text(tokens, mask)


class T5Tokenizer:
    """Token ids of a caption, with T5's end token.

    Args:
        weights: name or folder of the T5 that the tokenizer lies with.
        folder: the experiment's folder, for weights that lie in it.

    Raises:
        UserError: the tokenizer is neither on this machine nor on the hub.
    """

    name = "T5"

    def __init__(self, weights: str, folder: Path) -> None:
        from transformers import AutoTokenizer  # seconds to import

        from textocvp.pretrained import read_tokenizer

        self._tokenizer = read_tokenizer(AutoTokenizer, weights, folder)
        if self._tokenizer.pad_token_id != 0:
            raise UserError(
                f"weights {weights!r}: the tokenizer pads with {self._tokenizer.pad_token_id}, "
                f"not with 0 as T5 does; give the folder of a T5"
            )
        self._sha256 = hashlib.sha256(self._tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
        self.store_name = f"{self.name}-{self._sha256[:8]}"

    def key(self) -> Dict[str, str]:
        """What identifies this tokenizer's ids."""
        return {"tokenizer": self.name, "tokenizer_sha256": self._sha256}

    def unknown_words(self, caption: str) -> List[str]:
        """Always none: pieces of words serve for every caption."""
        return []

    def __call__(self, caption: str) -> List[int]:
        """Token ids of one caption."""
        return list(self._tokenizer(caption).input_ids)


def build_vocabulary(source: Path, out: Path, dataset: Optional[str] = None) -> None:
    """Write {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, word: 3, ...}, words in alphabetical order.

    Args:
        source: a text file with one caption per line; with `dataset` the root of that data set, whose
            training captions are read.

    Raises:
        UserError: no captions there, or `out` exists.
    """
    if out.exists():
        raise UserError(f"{out}: exists; ids of a vocabulary must not change, choose another --out")
    captions = _captions(source, dataset)
    if not captions:
        raise UserError(f"{source}: holds no caption")
    words = sorted({word for caption in captions for word in split_words(caption)} - set(SPECIAL_WORDS))
    write_json(out, {word: number for number, word in enumerate([*SPECIAL_WORDS, *words])})
    print(
        f"{out}: {len(SPECIAL_WORDS) + len(words)} words of {len(captions)} captions; name it in "
        f"dataset.vocabulary, and its size in text_encoder_params.vocab_size"
    )


def _captions(source: Path, dataset: Optional[str]) -> List[str]:
    if dataset is not None:
        dataset_class = registry.DATASETS.get(dataset).load()
        captions = dataset_class(DatasetConfig(dataset_name=dataset), source, "train").captions
    elif source.is_dir():
        raise UserError(f"{source}: is a folder; say with --dataset whose root it is, or give a text file")
    else:
        captions = read_text(source).splitlines()
    return [caption.strip() for caption in captions if caption.strip()]

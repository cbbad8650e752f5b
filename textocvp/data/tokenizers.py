"""Captions to token ids: when they are read, by `tokenize` for training, evaluation and prediction alike."""

import functools
import json
import re
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Union

import torch

from textocvp.config import registry
from textocvp.config.data import DatasetConfig
from textocvp.config.experiment import VOCABULARIES, Experiment, experiment_root
from textocvp.data.dataset import VideoDataset, read_text
from textocvp.files import UserError, nearest, read_json, write_json

SPECIAL_WORDS = ("[PAD]", "[CLS]", "[SEP]")
_CLITIC = re.compile(r"(?i)(?<=\w)(?=(?:n't|'(?:s|m|d|ll|re|ve))\b)")
_WORD = re.compile(
    r"""
      \.{2,} | --                      # an ellipsis, a dash
    | [][(){}<>;@#$%&?!*"]             # always a word of its own
    | [,:](?!\d)                       # "1,3" is one word, "1, 3" are three
    | \.(?=[])}>"']*(?:\s|$))          # the end of a sentence; "1.5" is one word
    | (?: [^][(){}<>;@#$%&?!*",:.\s-] | [,:](?=\d) | \.(?!\.|[])}>"']*(?:\s|$)) | -(?!-) )+
    """,
    re.VERBOSE,
)


class Text(NamedTuple):
    """The captions of a batch."""

    tokens: torch.Tensor
    """(B, S) int64, padded with 0."""
    mask: torch.Tensor
    """(B, S) bool, True = a real token."""

    def to(self, device: torch.device, non_blocking: bool = False) -> "Text":
        """The same on another device."""
        return Text(*(tensor.to(device, non_blocking=non_blocking) for tensor in self))


Tokenizer = Callable[[str], List[int]]
"""Token ids of one caption; UserError if a word is unknown."""


def tokenize(tokenizer: Tokenizer, captions: Sequence[str]) -> Text:
    """The captions of a batch as a text encoder reads them, padded to the longest."""
    ids = [tokenizer(caption) for caption in captions]
    lengths = torch.tensor([len(values) for values in ids])
    longest = int(lengths.max())
    tokens = torch.tensor([values + [0] * (longest - len(values)) for values in ids])
    return Text(tokens, torch.arange(longest) < lengths[:, None])


def open_tokenizer(experiment: Experiment, folder: Path, dataset: VideoDataset) -> Optional[Tokenizer]:
    """The tokenizer of the experiment's predictor for the captions of a split; None: it reads no text.

    Every caption is checked here, so that an unknown word stops a run at its start.

    Raises:
        UserError: no captions, no vocabulary, an unknown word, or no tokenizer of a pretrained encoder.
    """
    predictor = experiment.predictor
    if predictor is None or predictor.predictor_params.tokenizer is None:
        return None
    if not any(dataset.captions):
        raise UserError(
            f"{dataset.name} has no captions, but {predictor.predictor_name} reads text; "
            f"take a predictor without text"
        )
    if predictor.predictor_params.tokenizer == T5Tokenizer.name:
        tokenizer: Tokenizer = T5Tokenizer(predictor.predictor_params.tokenizer_weights, folder)
    else:
        tokenizer = open_custom_tokenizer(experiment, folder, dataset)
    return functools.lru_cache(maxsize=None)(tokenizer)  # captions come again every epoch


def open_custom_tokenizer(experiment: Experiment, folder: Path, dataset: VideoDataset) -> "CustomTokenizer":
    """The experiment's own vocabulary, or that of its data set; UserError if it lacks a caption's word."""
    vocabulary: Union[str, Path] = dataset.vocabulary
    if experiment.dataset.vocabulary is not None:
        inside = experiment_root(folder) / experiment.dataset.vocabulary
        vocabulary = inside if inside.is_file() else Path(experiment.dataset.vocabulary)
    tokenizer = CustomTokenizer(vocabulary)
    for caption in dict.fromkeys(dataset.captions):
        tokenizer(caption)
    return tokenizer


class CustomTokenizer:
    """Words of a fixed vocabulary between [CLS] and [SEP]; no unknown token, case is kept."""

    name = "CustomTokenizer"

    def __init__(self, vocabulary: Union[str, Path]) -> None:
        """vocabulary: the name of one that comes with the suite, or a file that build-vocabulary wrote."""
        self.source = vocabulary
        self.vocabulary = read_vocabulary(vocabulary)

    def __call__(self, caption: str) -> List[int]:
        """Token ids; UserError naming words, caption and vocabulary if words are unknown."""
        words = ["[CLS]", *split_words(caption), "[SEP]"]
        unknown = [repr(word) for word in dict.fromkeys(words) if word not in self.vocabulary]
        if unknown:
            raise UserError(
                f"caption {caption!r}: not in the vocabulary of {self.source} "
                f"({len(self.vocabulary)} words): {', '.join(unknown)}"
            )
        return [self.vocabulary[word] for word in words]


def split_words(caption: str) -> List[str]:
    """Words and punctuation of a caption in order, as nltk's word_tokenize splits such sentences."""
    return _WORD.findall(_CLITIC.sub(" ", caption))


def read_vocabulary(vocabulary: Union[str, Path]) -> Dict[str, int]:
    """Word -> id, from a file, or of a name that comes with the suite (UserError: neither, or damaged)."""
    if isinstance(vocabulary, Path):
        words = read_json(vocabulary)
        if not isinstance(words, dict) or not all(word in words for word in SPECIAL_WORDS):
            raise UserError(
                f"{vocabulary}: not a vocabulary; expected words and their ids, with "
                f"{', '.join(SPECIAL_WORDS)}, as build-vocabulary writes them"
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


class T5Tokenizer:
    """Token ids of a caption, with T5's end token.

    Args:
        weights: name or folder of the T5 whose tokenizer it is.
        folder: the experiment's folder, which may contain the weights.

    Raises:
        UserError: the tokenizer is neither on this machine nor on the hub.
    """

    name = "T5"

    def __init__(self, weights: str, folder: Path) -> None:
        from textocvp.pretrained import read_tokenizer

        self._tokenizer = read_tokenizer(weights, folder)
        if self._tokenizer.pad_token_id != 0:
            raise UserError(
                f"weights {weights!r}: the tokenizer pads with {self._tokenizer.pad_token_id}, "
                f"not with 0 as T5 does; give the folder of a T5"
            )

    def __call__(self, caption: str) -> List[int]:
        """Token ids; no word is unknown, for there are pieces of words."""
        return list(self._tokenizer(caption).input_ids)


def build_vocabulary(source: Path, out: Path, dataset: Optional[str] = None) -> None:
    """Write {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, word: 3, ...}, words in alphabetical order.

    Args:
        source: a text file with one caption per line; with `dataset` the root of that data set, whose
            training captions are read.

    Raises:
        UserError: there are no captions, or `out` exists.
    """
    if out.exists():
        raise UserError(f"{out}: exists; the ids of a vocabulary must not change, choose another --out")
    if dataset is not None:
        config = DatasetConfig(dataset_name=dataset)
        lines = registry.DATASETS.get(dataset).load()(config, source, "train").captions
    elif source.is_dir():
        raise UserError(f"{source}: is a folder; give --dataset if it is a data set's root, or a text file")
    else:
        lines = read_text(source).splitlines()
    captions = [line.strip() for line in lines if line.strip()]
    if not captions:
        raise UserError(f"{source}: contains no captions")
    words = sorted({word for caption in captions for word in split_words(caption)} - set(SPECIAL_WORDS))
    write_json(out, {word: number for number, word in enumerate([*SPECIAL_WORDS, *words])})
    print(
        f"{out}: {len(SPECIAL_WORDS) + len(words)} words of {len(captions)} captions; name it in "
        f"dataset.vocabulary, and its size in text_encoder_params.vocab_size"
    )

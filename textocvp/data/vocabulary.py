"""`python -m textocvp build-vocabulary`: words and ids for CustomTokenizer, from captions of your own."""

from __future__ import annotations

from pathlib import Path
from typing import List, Optional

from textocvp.artifacts import write_json
from textocvp.config import registry
from textocvp.config.data import DatasetConfig
from textocvp.config.errors import UserError
from textocvp.data.dataset import read_text
from textocvp.data.tokenizers import SPECIAL_WORDS, split_words


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

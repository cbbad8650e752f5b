"""text/STORE_NAME/{train,valid,test}: the token ids of every caption.

A part holds `tokens` (V, S) int32, padded with 0, `lengths` (V,), `video_id` (V,) and `caption` (V,), one row
per caption in the order of the split. The key holds the captions' and the vocabulary's hashes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Mapping, Protocol, Sequence

import h5py
import numpy as np

from textocvp.config.errors import UserError
from textocvp.data.part_files import Part, PartReader, read_manifests, write_part
from textocvp.files import sha256_json

COMMAND = "prepare-data"


class Tokenizer(Protocol):
    """What turns captions into ids."""

    name: str
    store_name: str
    """Folder below text/."""

    def key(self) -> Dict[str, str]:
        """What identifies its ids."""

    def __call__(self, caption: str) -> List[int]:
        """Token ids of one caption."""


def text_key(captions: Sequence[str], tokenizer: Tokenizer) -> Dict[str, Any]:
    """What a text store is made from: captions x tokenizer."""
    return {"kind": "text", "captions_sha256": sha256_json(list(captions)), **tokenizer.key()}


def write_text_part(
    folder: Path,
    part: Part,
    video_ids: Sequence[str],
    captions: Sequence[str],
    tokenizer: Tokenizer,
    config: Mapping[str, Any],
) -> None:
    """Tokenise and write the captions of one part; UserError where a word is unknown."""
    names = [video_ids[row] for row in part.rows]
    texts = [captions[row] for row in part.rows]
    ids = [tokenizer(text) for text in texts]

    def fill(file: h5py.File) -> None:
        tokens = np.zeros((len(ids), max(map(len, ids))), dtype=np.int32)
        for row, values in enumerate(ids):
            tokens[row, : len(values)] = values
        file.create_dataset("tokens", data=tokens, chunks=tokens.shape, fletcher32=True)
        file["lengths"] = np.array([len(values) for values in ids], dtype=np.int32)
        file["video_id"] = np.array(names, dtype=h5py.string_dtype())
        file["caption"] = np.array(texts, dtype=h5py.string_dtype())

    write_part(folder, part, text_key(captions, tokenizer), [len(values) for values in ids], fill, config)


class TextStore:
    """Reads the token ids of one split by the caption's position in it."""

    def __init__(self, folder: Path, manifests: Sequence[Mapping[str, Any]]) -> None:
        self._reader = PartReader(folder, COMMAND)
        self._index = [
            (manifest["file"], row, length)
            for manifest in manifests
            for row, length in enumerate(manifest["content"])
        ]

    @classmethod
    def open(cls, folder: Path, key: Mapping[str, Any]) -> TextStore:
        """Open the store of one split; UserError where it is incomplete, cut off or of another key."""
        return cls(folder, read_manifests(folder, key, COMMAND))

    def __len__(self) -> int:
        return len(self._index)

    def tokens(self, index: int) -> List[int]:
        """Token ids of one caption, without padding."""
        file, row, length = self._index[index]
        return self._reader.read(file, "tokens", np.s_[row, :length]).tolist()


class TokenizedCaptions:
    """The same without a store: tokenised when asked for."""

    def __init__(self, captions: Sequence[str], tokenizer: Tokenizer) -> None:
        self.captions = captions
        self.tokenizer = tokenizer

    def __len__(self) -> int:
        return len(self.captions)

    def tokens(self, index: int) -> List[int]:
        """Token ids of one caption, without padding."""
        if not 0 <= index < len(self.captions):
            raise UserError(f"there is no caption {index}, only {len(self.captions)}")
        return self.tokenizer(self.captions[index])

"""T5's tokenizer: SentencePiece of the weights' folder, no vocabulary of ours."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Dict, List

from textocvp.config.errors import UserError


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

"""`python -m textocvp make-weights`: small frozen encoders with random values, as transformers saves them.

For machines without the pretrained weights: a recipe's `weights` section, and tests, train on these. They
take the same way through the code as pretrained ones, and learn nothing by themselves.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch

from textocvp.config.errors import UserError
from textocvp.data.tokenizers import VOCABULARIES

KINDS = ("dinov2", "dino", "t5")
UNKNOWN, PADDING, END = "<unk>", "<pad>", "</s>"


def make_weights(
    kind: str,
    out: Path,
    width: int = 32,
    depth: int = 2,
    num_heads: int = 2,
    patch_size: int = 14,
    seed: int = 0,
) -> None:
    """Write a random encoder of this kind into the folder `out`; nothing is done where it is there already.

    Args:
        width: length of a feature vector; num_heads must divide it.
        patch_size: height and width (pixels) of a patch; of vision transformers only.

    Raises:
        UserError: sizes do not fit, or `out` holds something else.
    """
    if width % num_heads:
        raise UserError(f"--num_heads {num_heads} does not divide --width {width}")
    settings = {
        "kind": kind,
        "width": width,
        "depth": depth,
        "num_heads": num_heads,
        "patch_size": patch_size,
        "seed": seed,
    }
    note = out / "made_by_make_weights.json"
    if note.is_file() and json.loads(note.read_text()) == settings:
        print(f"{out}: already there")
        return
    if out.exists():
        raise UserError(f"{out}: exists and holds other weights; choose another folder, or move it aside")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        torch.manual_seed(seed)
        _save(kind, temporary, width, depth, num_heads, patch_size)
        (temporary / note.name).write_text(json.dumps(settings, indent=1) + "\n")
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"{out}: a random {kind}, {depth} layers of width {width}")


def _save(kind: str, folder: Path, width: int, depth: int, num_heads: int, patch_size: int) -> None:
    from transformers import Dinov2Config, Dinov2Model, T5Config, T5EncoderModel, ViTConfig, ViTModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    folder.mkdir(parents=True)
    size = {"num_attention_heads": num_heads, "num_hidden_layers": depth, "hidden_size": width}
    if kind == "t5":
        tokenizer = _tokenizer()
        config = T5Config(
            d_model=width,
            d_kv=width // num_heads,
            d_ff=2 * width,
            num_layers=depth,
            num_heads=num_heads,
            vocab_size=len(tokenizer),
        )
        model = T5EncoderModel(config)
        tokenizer.save_pretrained(folder)
    elif kind == "dinov2":
        model = Dinov2Model(Dinov2Config(**size, patch_size=patch_size, image_size=16 * patch_size))
    else:
        model = ViTModel(
            ViTConfig(**size, intermediate_size=4 * width, patch_size=patch_size, image_size=16 * patch_size),
            add_pooling_layer=False,
        )
    model.save_pretrained(folder)


def _tokenizer() -> object:
    """Words and punctuation of all shipped vocabularies; a caption ends in </s>, as T5's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = {word for path in VOCABULARIES.glob("*.json") for word in json.loads(path.read_text())}
    plain = sorted(word for word in words if not word.startswith("["))
    vocabulary = {word: i for i, word in enumerate([PADDING, END, UNKNOWN, *plain])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PADDING, eos_token=END, unk_token=UNKNOWN
    )

"""`python -m textocvp make-weights`: small frozen encoders with random values, as transformers saves them.

For machines without the pretrained weights: a recipe's `weights` section and tests train on these. The code
treats them like pretrained ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from textocvp.config.errors import UserError
from textocvp.data.tokenizers import VOCABULARIES
from textocvp.files import atomic_folder, read_json

NOTE = "made_by_make_weights.json"
"""In the folder of the weights: their kind and sizes."""
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
    """Write a random encoder of this kind into the folder `out`, unless it exists.

    Args:
        width: length of a feature vector; num_heads must divide it.
        patch_size: height and width (pixels) of a patch; of vision transformers only.

    Raises:
        UserError: sizes do not fit, or `out` contains something else.
    """
    if width % num_heads:
        raise UserError(f"--num_heads {num_heads} does not divide --width {width}")
    sizes = {"width": width, "depth": depth, "num_heads": num_heads, "patch_size": patch_size}
    settings = {"kind": kind, **sizes, "seed": seed}
    if (out / NOTE).is_file() and read_json(out / NOTE) == settings:
        print(f"{out}: already there")
        return
    if out.exists():
        raise UserError(f"{out}: contains other weights; choose another folder or move it aside")
    with atomic_folder(out) as folder:
        torch.manual_seed(seed)
        _save(kind, folder, **sizes)
        (folder / NOTE).write_text(json.dumps(settings, indent=1) + "\n")
    print(f"{out}: a random {kind}, {depth} layers of width {width}")


def _save(kind: str, folder: Path, width: int, depth: int, num_heads: int, patch_size: int) -> None:
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    model: transformers.PreTrainedModel
    vit: dict[str, Any] = {"num_attention_heads": num_heads, "num_hidden_layers": depth, "hidden_size": width}
    vit |= {"patch_size": patch_size, "image_size": 16 * patch_size}
    if kind == "t5":
        tokenizer = _tokenizer()
        tokenizer.save_pretrained(folder)
        t5: dict[str, Any] = {"d_model": width, "d_kv": width // num_heads, "d_ff": 2 * width}
        t5 |= {"num_layers": depth, "num_heads": num_heads, "vocab_size": len(tokenizer)}
        model = transformers.T5EncoderModel(transformers.T5Config(**t5))
    elif kind == "dinov2":
        model = transformers.Dinov2Model(transformers.Dinov2Config(**vit))
    else:
        config = transformers.ViTConfig(**vit, intermediate_size=4 * width)
        model = transformers.ViTModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)


def _tokenizer() -> Any:  # noqa: ANN401 (transformers has no type for its generated tokenizers)
    """The words of all shipped vocabularies; a caption ends in </s>, as T5's does."""
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

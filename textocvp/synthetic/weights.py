"""`python -m textocvp make-weights`: small frozen encoders with random values, as transformers saves them.

For machines without the pretrained weights: a recipe's `weights` section and tests train on these. The code
treats them like pretrained ones.
"""

import json
from pathlib import Path
from typing import Any

import torch

from textocvp.config.schema import to_dict
from textocvp.config.synthetic import WeightsSettings
from textocvp.data.tokenizers import VOCABULARIES
from textocvp.files import UserError, atomic_folder, read_json

NOTE = "made_by_make_weights.json"
"""In the folder of the weights: their kind and sizes."""
UNKNOWN, PADDING, END = "<unk>", "<pad>", "</s>"


def make_weights(settings: WeightsSettings, out: Path) -> None:
    """Write a random encoder of this kind into the folder `out`, unless it exists.

    Raises:
        UserError: `out` contains something else.
    """
    values = to_dict(settings)
    if (out / NOTE).is_file() and read_json(out / NOTE) == values:
        print(f"{out}: already there")
        return
    if out.exists():
        raise UserError(f"{out}: contains other weights; choose another folder or move it aside")
    with atomic_folder(out) as folder:
        torch.manual_seed(settings.seed)
        _save(settings, folder)
        (folder / NOTE).write_text(json.dumps(values, indent=1) + "\n")
    print(f"{out}: a random {settings.kind}, {settings.depth} layers of width {settings.width}")


def _save(settings: WeightsSettings, folder: Path) -> None:
    import transformers
    from transformers.utils import logging

    logging.disable_progress_bar()
    width, depth, num_heads = settings.width, settings.depth, settings.num_heads
    model: transformers.PreTrainedModel
    vit: dict[str, Any] = {"num_attention_heads": num_heads, "num_hidden_layers": depth, "hidden_size": width}
    vit |= {"patch_size": settings.patch_size, "image_size": 16 * settings.patch_size}
    if settings.kind == "t5":
        tokenizer = _tokenizer()
        tokenizer.save_pretrained(folder)
        t5: dict[str, Any] = {"d_model": width, "d_kv": width // num_heads, "d_ff": 2 * width}
        t5 |= {"num_layers": depth, "num_heads": num_heads, "vocab_size": len(tokenizer)}
        model = transformers.T5EncoderModel(transformers.T5Config(**t5))
    elif settings.kind == "dinov2":
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

import pytest
import torch
from torch.testing import assert_close

from textocvp.config.predictors import TextTransformerConfig
from textocvp.files import UserError
from textocvp.modules.text_encoders import TextTransformer

CONFIG = TextTransformerConfig(input_dim=8, num_layers=2, num_heads=2, vocab_size=20, context_length=10)


def test_words_do_not_see_padding_and_their_order_matters():
    encoder = TextTransformer(CONFIG, out_dim=6).eval()
    tokens, mask = torch.randint(1, 20, (2, 7)), torch.arange(7) < torch.tensor([[7], [4]])
    embeddings = encoder(tokens, mask)
    assert embeddings.shape == (2, 7, 6)
    assert_close(embeddings[1:, :4], encoder(tokens[1:, :4], mask[1:, :4]))

    tokens, mask = torch.arange(1, 6)[None], torch.ones(1, 5, dtype=torch.bool)
    assert (encoder(tokens, mask).flip(1) - encoder(tokens.flip(1), mask)).abs().max() > 1e-4


def test_too_long_caption():
    encoder = TextTransformer(CONFIG, out_dim=6)
    with pytest.raises(UserError, match="11 tokens, but text_encoder_params.context_length is 10"):
        encoder(torch.ones(1, 11, dtype=torch.long), torch.ones(1, 11, dtype=torch.bool))

from __future__ import annotations

import h5py
import pytest

from textocvp.config.errors import UserError
from textocvp.data.part_files import plan_parts
from textocvp.data.text_store import TextStore, TokenizedCaptions, text_key, write_text_part
from textocvp.data.tokenizers import CustomTokenizer

CAPTIONS = ["the cone is rotating.", "the cone is containing the snitch.", "the snitch is rotating"]
EASY, HARD = CustomTokenizer("CATER_Easy"), CustomTokenizer("CATER_Hard")


@pytest.fixture
def folder(tmp_path):
    for part in plan_parts(3, part_videos=2):
        write_text_part(tmp_path, part, ["a", "b", "c"], CAPTIONS, EASY, {})
    return tmp_path


def test_gives_the_tokenizers_ids(folder):
    store = TextStore.open(folder, text_key(CAPTIONS, EASY))
    online = TokenizedCaptions(CAPTIONS, EASY)
    assert len(store) == len(online) == 3
    for index, caption in enumerate(CAPTIONS):
        assert store.tokens(index) == online.tokens(index) == EASY(caption)


def test_the_file_tells_what_it_holds(folder):
    with h5py.File(folder / "part_0000.h5") as file:
        assert file["tokens"].shape == (2, 9) and file["lengths"][:].tolist() == [7, 9]
        assert file["tokens"].fletcher32 and file["tokens"][0, 7:].tolist() == [0, 0]
        assert file["caption"].asstr()[1] == CAPTIONS[1] and file["video_id"].asstr()[1] == "b"
        assert file.attrs["tokenizer"] == "CustomTokenizer"


def test_other_captions_or_another_vocabulary_are_refused(folder):
    with pytest.raises(UserError, match="captions_sha256 is"):
        TextStore.open(folder, text_key(CAPTIONS[:2], EASY))
    with pytest.raises(UserError, match="vocabulary_sha256 is"):
        TextStore.open(folder, text_key(CAPTIONS, HARD))


def test_an_unknown_word_leaves_no_part(tmp_path):
    (part,) = plan_parts(1)
    with pytest.raises(UserError, match="word 'flies' of the caption 'the cone flies'"):
        write_text_part(tmp_path, part, ["a"], ["the cone flies"], EASY, {})
    assert not list(tmp_path.iterdir())

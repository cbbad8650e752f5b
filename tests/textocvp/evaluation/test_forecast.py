import h5py
import pytest
import torch
from torch import nn

from textocvp.data.tokenizers import CustomTokenizer
from textocvp.decomposition import Rendering, build_model
from textocvp.evaluation import forecast
from textocvp.evaluation.forecast import clip_loader, encode_clips, forecast_scene, score_forecasters
from textocvp.training import precompute_slots
from textocvp.training.checkpoint import find_checkpoint, load_decomposition

SIZE, FINAL = 12, "checkpoint_epoch_final.pth"


class PixelModel(nn.Module):
    """A slot is the mean grey value of its frame; decoding paints it. `shift` spoils every decoded frame."""

    num_slots, slot_dim = 1, 1

    def __init__(self, shift=0.0):
        super().__init__()
        self.shift, self.device = shift, nn.Parameter(torch.zeros(()))

    def initial_slots(self, batch, noise=None):
        return torch.zeros(batch, 1, 1)

    def features(self, video):
        return video.mean(dim=(2, 3, 4))[:, :, None, None]

    def track(self, features, initial_slots):
        return features

    def decode(self, slots):
        frames = (slots + self.shift).unsqueeze(-1).expand(-1, -1, 3, SIZE, SIZE)
        return Rendering(frames, frames.unsqueeze(2), torch.ones(*slots.shape[:3], 1, SIZE, SIZE))


class Brighten(nn.Module):
    """Forecasts `step` more with every frame; `text` says by how much instead where it is read."""

    def __init__(self, step, tokenizer=None):
        super().__init__()
        self.step, self.predictor = step, nn.Module()
        self.predictor.tokenizer = tokenizer
        self.texts = []

    def forward(self, slots, text, num_context, num_preds):
        assert slots.shape[1] == num_context  # it never sees the future
        self.texts.append(text)
        steps = torch.arange(1, num_preds + 1).view(1, -1, 1, 1)
        return slots[:, -1:] + self.step * steps


def clips():
    """Two batches of clips whose frames brighten by 0.1 each: 2 context frames, 3 to forecast."""
    values = 0.1 + 0.1 * torch.arange(5)
    video = values.view(1, 5, 1, 1, 1).expand(1, 5, 3, SIZE, SIZE)
    caption = "the large red metal cone is sliding to (-1, 3)."
    batch = {"video": video, "start": torch.tensor([1]), "video_id": ["a"], "caption": [caption]}
    return [batch, batch]


def predictor(tokenizer=None, **forecasters):
    return forecast.Predictor("name", forecasters, [], tokenizer, 2, 3)


def test_references_and_predictors_are_scored_on_the_same_frames():
    scored = score_forecasters(PixelModel(), predictor(right=Brighten(0.1), slow=Brighten(0.05)), clips(), 0)
    assert scored["right"]["psnr"] == pytest.approx(80.0, abs=0.1)
    assert scored["ceiling"]["psnr"] == pytest.approx(80.0, abs=0.1)
    errors = [0.05, 0.10, 0.15]
    expected = [-20 * torch.log10(torch.tensor(error)).item() for error in errors]
    assert scored["slow"]["psnr_per_frame"] == pytest.approx(expected, abs=1e-2)
    assert scored["slow"]["psnr_last"] == pytest.approx(expected[-1], abs=1e-2)
    pooled = sum(error**2 for error in errors) / 3
    moving, last = (
        -scale * torch.log10(torch.tensor(error)).item() for scale, error in ((10, pooled), (20, 0.3))
    )
    assert scored["slow"]["psnr_moving"] == pytest.approx(moving, abs=1e-2)
    assert scored["copy_frame"]["psnr_last"] == pytest.approx(last, abs=1e-2)
    for name, value in scored["copy_frame"].items():
        assert scored["copy_slots"][name] == pytest.approx(value, abs=1e-3), name


def test_copies_repeat_the_last_context_frame_and_the_decoder_spoils_all_but_the_raw_one():
    context, _, frames = forecast_scene(PixelModel(shift=0.2), predictor(), clips()[0], 0)
    assert context.shape[1] == 2
    expected = {"copy_frame": [0.2] * 3, "copy_slots": [0.4] * 3, "ceiling": [0.5, 0.6, 0.7]}
    for name, values in expected.items():
        assert frames[name][0, :, 0, 0, 0].tolist() == pytest.approx(values), name


def test_only_predictors_that_need_text_get_it():
    reader, mute = Brighten(0.1, "CustomTokenizer"), Brighten(0.1)
    score_forecasters(PixelModel(), predictor(CustomTokenizer("CATER_Hard"), reader=reader), clips(), 0)
    score_forecasters(PixelModel(), predictor(mute=mute), clips(), 0)
    assert mute.texts == [None, None]
    assert reader.texts[0].tokens.shape == reader.texts[0].mask.shape
    assert reader.texts[0].mask.all()


def test_slots_depend_on_no_batch_and_equal_those_of_the_slot_store(tiny):
    model = load_decomposition(tiny.experiment, find_checkpoint(tiny.folder, FINAL))
    slots = {}
    for batch_size in (1, 3):
        batches = list(clip_loader(tiny.experiment, tiny.folder, "test", 4, batch_size).loader)
        seed = tiny.experiment.suite.slots.seed
        slots[batch_size] = torch.cat([encode_clips(model, batch, seed)[1] for batch in batches])
    assert torch.allclose(slots[1], slots[3], atol=1e-5)
    assert not torch.allclose(slots[1][0], slots[1][1], atol=1e-2)
    tiny.add_predictor("VanillaTransformer")
    precompute_slots(tiny.folder, FINAL)
    with h5py.File(tiny.folder / "slots/test/part_0000.h5") as store:
        assert [name.decode() for name in store["video_id"]] == batches[0]["video_id"]
        assert torch.allclose(torch.from_numpy(store["slots"][:]), slots[3], atol=1e-5)


def test_decoding_in_parts_changes_nothing(tiny, monkeypatch):
    model, slots = build_model(tiny.experiment).eval(), torch.randn(2, 4, 3, 8)
    whole = model.decode(slots)
    monkeypatch.setattr(forecast, "DECODED_AT_ONCE", 10)
    parts = forecast.decode_slots(model, slots)
    for name in ("frames", "slot_frames", "masks"):
        assert torch.allclose(getattr(parts, name), getattr(whole, name), atol=1e-6), name

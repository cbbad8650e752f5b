import json

import pytest
import torch

from textocvp.config.errors import UserError
from textocvp.evaluation.select import CRITERIA, best_seed, select_decomp
from textocvp.files import sha256_file

FINAL = "models/checkpoint_epoch_final.pth"


@pytest.fixture
def seeded(tiny):
    for seed in (0, 1, 10):
        tiny.add_decomposition(seed, f"seeds/{seed}")
    return tiny


@pytest.mark.parametrize("criterion", [None, "validation_loss"])
def test_winner_is_copied_and_every_score_of_every_seed_is_kept(seeded, capsys, criterion):
    select_decomp(seeded.folder, criterion)
    selected = json.loads((seeded.folder / "selected.json").read_text())
    assert list(selected["scores"]) == ["0", "1", "10"]
    assert all(list(scores) == list(CRITERIA) for scores in selected["scores"].values())
    name = criterion or "background_agreement"
    values = {seed: scores[name] for seed, scores in selected["scores"].items()}
    best = min if criterion else max
    assert selected["criterion"] == name
    assert selected["selected"] == best(values, key=values.get)
    assert selected["checkpoint"] == f"seeds/{selected['selected']}/{FINAL}"
    copy = seeded.folder / FINAL
    assert not copy.is_symlink()
    assert sha256_file(copy) == sha256_file(seeded.folder / selected["checkpoint"])
    assert sha256_file(copy) == selected["checkpoint_sha256"]
    assert f"selected seed {selected['selected']} by {name}" in capsys.readouterr().out


def test_validation_loss_is_the_training_loss_of_the_validation_clips(seeded):
    from textocvp.data.loaders import ClipDataset
    from textocvp.data.order import initial_noise
    from textocvp.data.videos import open_videos
    from textocvp.training.checkpoint import load_decomposition

    select_decomp(seeded.folder)
    model = load_decomposition(seeded.experiment, seeded.folder / "seeds/1" / FINAL)
    losses = []
    for item in ClipDataset(open_videos(seeded.experiment, seeded.folder, "valid"), 4):
        noise = initial_noise(0, item["video_id"], 1, 0, (3, 8))
        _, rendering = model(item["video"][None], model.initial_slots(1, noise=noise[None]))
        losses.append((rendering.frames[0].clamp(0, 1) - item["video"]).square().mean())
    found = json.loads((seeded.folder / "selected.json").read_text())["scores"]["1"]["validation_loss"]
    assert found == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


def test_masks_of_the_data_are_never_read(seeded, monkeypatch):
    from textocvp.data.cater import CATER
    from textocvp.data.videos import DecodedVideos

    def forbidden(self, *arguments):
        raise AssertionError("labels were read")

    monkeypatch.setattr(DecodedVideos, "masks", forbidden)
    monkeypatch.setattr(CATER, "states", forbidden)
    select_decomp(seeded.folder)


def test_seeds_that_failed_are_left_out_loudly(seeded, capsys):
    (seeded.folder / "seeds/0" / FINAL).unlink()
    path = seeded.folder / "seeds/1" / FINAL
    path.write_bytes(path.read_bytes()[:1000])
    select_decomp(seeded.folder)
    errors = capsys.readouterr().err
    assert "seed 0 is left out: no " in errors
    assert "seed 1 is left out: " in errors
    assert "damaged" in errors
    selected = json.loads((seeded.folder / "selected.json").read_text())
    assert selected["selected"] == "10"
    assert sorted(selected["left_out"]) == ["0", "1"]


def test_a_seed_that_diverged_is_left_out(seeded, capsys):
    path = seeded.folder / "seeds/1" / FINAL
    content = torch.load(path, weights_only=True)
    for value in content["model_state_dict"].values():
        value.fill_(float("nan"))
    torch.save(content, path)
    select_decomp(seeded.folder, "mask_entropy")
    assert "seed 1 is left out: its scores are not finite: training diverged" in capsys.readouterr().err


def test_without_a_finished_seed_nothing_is_selected(tiny):
    (tiny.folder / "seeds" / "3").mkdir(parents=True)
    before = sha256_file(tiny.folder / FINAL)
    with pytest.raises(UserError, match=r"no seed has a models/checkpoint_epoch_final.pth.*\(1 began\)"):
        select_decomp(tiny.folder)
    assert sha256_file(tiny.folder / FINAL) == before
    assert not (tiny.folder / "selected.json").exists()


def test_unknown_criterion_is_refused_before_any_work(tmp_path):
    with pytest.raises(UserError, match="unknown criterion 'best'"):
        select_decomp(tmp_path / "absent", "best")


def test_the_first_of_equals_wins_and_without_scores_there_is_none(tmp_path):
    scores = {"4": {"steadiness": 0.5}, "2": {"steadiness": 0.5}}
    assert best_seed(scores, "steadiness", tmp_path) == "4"
    with pytest.raises(UserError, match="no seed can be scored"):
        best_seed({}, "steadiness", tmp_path)

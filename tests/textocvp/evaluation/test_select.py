import json

import pytest
import torch

from textocvp.config.training import CRITERIA
from textocvp.evaluation.select import Observation, best_seed, select_decomp
from textocvp.files import UserError, sha256_file

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


def test_validation_loss_is_the_training_loss_of_the_clips_whose_masks_are_never_read(seeded, monkeypatch):
    from textocvp.data.loaders import ClipDataset
    from textocvp.data.order import Window, window_noise
    from textocvp.data.readers import CATER
    from textocvp.data.videos import DecodedVideos, open_videos
    from textocvp.training.checkpoint import load_decomposition

    def forbidden(self, *arguments):
        raise AssertionError("labels were read")

    monkeypatch.setattr(DecodedVideos, "masks", forbidden)
    monkeypatch.setattr(CATER, "states", forbidden)
    select_decomp(seeded.folder)
    model = load_decomposition(seeded.experiment, seeded.folder / "seeds/1" / FINAL)
    losses = []
    for item in ClipDataset(open_videos(seeded.experiment, seeded.folder, "valid"), 4):
        noise = window_noise(0, [Window(item["video_id"], 1, 0)], (3, 8))
        _, rendering = model(item["video"][None], model.initial_slots(1, noise=noise))
        losses.append((rendering.frames[0].clamp(0, 1) - item["video"]).square().mean())
    found = json.loads((seeded.folder / "selected.json").read_text())["scores"]["1"]["validation_loss"]
    assert found == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


def test_seeds_that_failed_are_left_out_loudly(seeded, caplog):
    (seeded.folder / "seeds/0" / FINAL).unlink()
    path = seeded.folder / "seeds/1" / FINAL
    path.write_bytes(path.read_bytes()[:1000])
    select_decomp(seeded.folder)
    assert "seed 0 is left out: no " in caplog.text
    assert "seed 1 is left out: " in caplog.text and "damaged" in caplog.text
    selected = json.loads((seeded.folder / "selected.json").read_text())
    assert selected["selected"] == "10"
    assert sorted(selected["left_out"]) == ["0", "1"]


def test_a_seed_that_diverged_is_left_out(seeded, caplog):
    path = seeded.folder / "seeds/1" / FINAL
    content = torch.load(path, weights_only=True)
    for value in content["model_state_dict"].values():
        value.fill_(float("nan"))
    torch.save(content, path)
    select_decomp(seeded.folder, "mask_entropy")
    assert "seed 1 is left out: its scores are not finite: training diverged" in caplog.text


def test_without_a_finished_seed_nothing_is_selected(tiny):
    (tiny.folder / "seeds" / "3").mkdir(parents=True)
    before = sha256_file(tiny.folder / FINAL)
    with pytest.raises(UserError, match=r"no seed has a models/checkpoint_epoch_final.pth.*\(1 began\)"):
        select_decomp(tiny.folder)
    assert sha256_file(tiny.folder / FINAL) == before
    assert not (tiny.folder / "selected.json").exists()


def test_unknown_criterion_and_the_first_of_equals(tmp_path):
    with pytest.raises(UserError, match="'steadines', did you mean 'steadiness'"):
        select_decomp(tmp_path / "absent", "steadines")

    scores = {"4": {"steadiness": 0.5}, "2": {"steadiness": 0.5}}
    assert best_seed(scores, "steadiness", tmp_path) == "4"
    with pytest.raises(UserError, match="no seed can be scored"):
        best_seed({}, "steadiness", tmp_path)


MEDIAN = torch.full((3, 8, 8), 0.5)


def clip():
    """Video (1, 4, 3, 8, 8): two 2 x 2 objects that stay on a grey background."""
    video = MEDIAN.repeat(1, 4, 1, 1, 1)
    video[..., 1:3, 1:3], video[..., 5:7, 4:6] = 0.9, 0.1
    return video


def masks(labels, certainty=1.0):
    """One-hot masks (1, 4, 3, 8, 8) of labels (4, 8, 8), mixed with even ones."""
    hard = torch.nn.functional.one_hot(labels, 3).permute(0, 3, 1, 2).float()[None]
    return certainty * hard + (1 - certainty) / 3


def true_labels():
    labels = torch.zeros(4, 8, 8, dtype=torch.long)
    labels[:, 1:3, 1:3], labels[:, 5:7, 4:6] = 1, 2
    return labels


def seen(labels, certainty=1.0):
    return Observation(clip(), masks(labels, certainty), torch.zeros(1), MEDIAN)


def score(name, observation):
    return float(getattr(observation, name)())


def test_a_perfect_decomposition_has_the_best_score_of_every_criterion():
    worst_or_best = {"validation_loss": 0.0, "mask_entropy": 0.0}
    for name in CRITERIA:
        values = getattr(seen(true_labels()), name)()
        assert values.shape == (1,)
        assert float(values) == pytest.approx(worst_or_best.get(name, 1.0), abs=1e-5), name


def test_background_agreement_is_the_iou_of_the_largest_slot_and_a_shared_background_loses():
    labels = true_labels()
    labels[:, 1:3, 1:3] = 0  # one object stays in the background's slot: 56 of 60 pixels agree
    assert score("background_agreement", seen(labels)) == pytest.approx(56 / 60)
    assert score("background_mass", seen(labels)) == pytest.approx(1.0)
    assert score("foreground_release", seen(labels)) == pytest.approx(0.5)
    assert score("separation", seen(labels)) == pytest.approx(0.5)
    assert score("object_sharing", seen(labels)) == pytest.approx(0.0, abs=1e-5)

    assert score("background_agreement", seen((true_labels() + 1) % 3)) == 1.0

    shared = true_labels()
    shared[:, :, 4:] = 2  # the right half belongs to the second object's slot
    for name in ("background_agreement", "background_mass", "separation"):
        assert score(name, seen(shared)) < 0.7
    assert score("mask_confidence", seen(shared)) == 1.0  # blind to it


def test_unsure_masks_lose():
    for name in ("background_mass", "separation", "mask_confidence"):
        assert score(name, seen(true_labels(), 0.5)) < score(name, seen(true_labels(), 0.9))
    assert score("mask_entropy", seen(true_labels(), 0.5)) > score("mask_entropy", seen(true_labels(), 0.9))


def test_masks_that_jump_where_nothing_moves_are_unsteady():
    jumping = true_labels()
    jumping[2] = (jumping[2] + 1) % 3
    assert score("steadiness", seen(jumping)) == pytest.approx(1 - 2 / 3)
    single = Observation(clip()[:, :1], masks(true_labels())[:, :1], torch.zeros(1), MEDIAN)
    assert score("steadiness", single) == 1.0


def test_clips_are_scored_one_by_one():
    good, bad = seen(true_labels()), seen(torch.zeros_like(true_labels()))
    video, found = torch.cat([good.video, bad.video]), torch.cat([good.masks, bad.masks])
    both = Observation(video, found, torch.tensor([1.0, 2.0]), MEDIAN)
    for name in set(CRITERIA) - {"validation_loss"}:
        expected = [score(name, good), score(name, bad)]
        assert getattr(both, name)().tolist() == pytest.approx(expected), name

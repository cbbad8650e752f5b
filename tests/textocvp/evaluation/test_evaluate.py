import json

import numpy as np
import pytest
import torch

from textocvp.config.experiment import load_experiment
from textocvp.data.frame_store import prepare_data
from textocvp.data.videos import open_videos
from textocvp.decomposition import Rendering
from textocvp.evaluation.evaluate import (
    colour_kmeans,
    evaluate_decomp,
    evaluate_predictor,
    mean_figures,
    num_objects,
    score_baselines,
    score_model,
    tiling,
)
from textocvp.evaluation.forecast import clip_loader
from textocvp.evaluation.metrics import METRICS, psnr, segmentation_scores
from textocvp.files import UserError, sha256_file, write_json

FINAL = "models/checkpoint_epoch_final.pth"
DECOMPOSITION = {"object_miou", "background_iou", "ari", "fg_ari", "psnr"}
PREDICTION = {"psnr", "psnr_last", "psnr_moving", "ssim"}
REFERENCES = ("copy_frame", "copy_slots", "ceiling")


def read(path):
    return json.loads(path.read_text())


def test_decomposition_without_seeds_from_video_files_and_from_the_frame_store(tiny, capsys):
    evaluate_decomp(tiny.folder)
    results = read(tiny.folder / "results/decomposition.json")
    assert all(isinstance(results[name], float) for name in DECOMPOSITION)
    assert (results["split"], results["num_clips"], results["num_frames"]) == ("test", 3, 4)
    assert results["seeds"] == {} and results["checkpoint"] == FINAL
    assert results["checkpoint_sha256"] == sha256_file(tiny.folder / FINAL)
    assert results["colour_kmeans"] == dict.fromkeys(DECOMPOSITION - {"psnr"}, 1.0)
    assert 0 < results["tiling"]["object_miou"] < 0.5
    out = capsys.readouterr().out
    assert "tiling of the image" in out and "k-means on colour" in out
    prepare_data(tiny.folder, workers=1)
    evaluate_decomp(tiny.folder)
    assert read(tiny.folder / "results/decomposition.json") == results


def test_every_seed_is_evaluated_and_the_selected_one_is_marked(tiny, capsys, caplog):
    for seed in (0, 1):
        tiny.add_decomposition(seed, f"seeds/{seed}")
    (tiny.folder / "seeds/2").mkdir()
    write_json(tiny.folder / "selected.json", {"selected": "0"})  # seed 0 made EXP's own checkpoint too
    evaluate_decomp(tiny.folder)
    results = read(tiny.folder / "results/decomposition.json")
    selected = {seed: figures["selected"] for seed, figures in results["seeds"].items()}
    assert selected == {"0": True, "1": False}
    assert all(results["seeds"]["0"][name] == results[name] for name in DECOMPOSITION)
    assert results["seeds"]["1"]["psnr"] != results["psnr"]
    assert results["missing_seeds"] == ["2"]
    assert "seed 0 *" in capsys.readouterr().out
    assert "not finished: seed 2" in caplog.text


def test_another_checkpoint_is_evaluated_alone(tiny):
    tiny.add_decomposition(0, "seeds/0")
    path = tiny.folder / "models/checkpoint_epoch_7.pth"
    (tiny.folder / FINAL).rename(path)
    evaluate_decomp(tiny.folder, decomp_ckpt="checkpoint_epoch_7.pth", results_name="epoch_7")
    results = read(tiny.folder / "results/epoch_7.json")
    assert results["checkpoint"] == "models/checkpoint_epoch_7.pth"
    assert results["seeds"] == {}
    message = r"checkpoint_epoch_final.pth: no such checkpoint.*checkpoint_epoch_7.pth"
    with pytest.raises(UserError, match=message):
        evaluate_decomp(tiny.folder)


def test_data_without_masks_gives_psnr_and_says_so(tiny_without_masks, caplog):
    evaluate_decomp(tiny_without_masks.folder)
    results = read(tiny_without_masks.folder / "results/decomposition.json")
    assert results["object_miou"] is None
    assert isinstance(results["psnr"], float)
    assert results["tiling"]["fg_ari"] is None
    assert "no object masks" in caplog.text


def test_predictors_and_what_they_are_compared_with(tiny, capsys):
    references = []
    for name in ("VanillaTransformer", "TextOCVP_CustomTF"):
        tiny.add_predictor(name)
        evaluate_predictor(tiny.folder, name, batch_size=2)
        results = read(tiny.folder / "predictors" / name / "results/prediction.json")
        references.append([results[reference] for reference in REFERENCES])
        for figures in (results, *references[-1]):
            assert all(isinstance(figures[figure], float) for figure in PREDICTION)
            assert len(figures["psnr_per_frame"]) == 3
        assert (results["num_context"], results["num_preds"], results["num_clips"]) == (1, 3, 3)
        assert results["seeds"] == {}
        assert results["decomposition_sha256"] == sha256_file(tiny.folder / FINAL)
        out = capsys.readouterr().out
        assert name in out and "copy the context frame" in out
    assert references[0] == references[1], "the same for every predictor"
    videos, values = open_videos(tiny.experiment, tiny.folder, "test"), []
    for index in range(len(videos)):
        frames = torch.from_numpy(videos.frames(index, 1, 5)) / 255  # CATER's clips start at frame 1
        values.append(psnr(frames[:1].expand(3, -1, -1, -1), frames[1:]))
    expected = torch.stack(values).mean(0).tolist()
    assert results["copy_frame"]["psnr_per_frame"] == pytest.approx(expected, abs=1e-3)


def test_predictor_seeds_are_averaged_and_kept_and_the_horizon_can_be_overridden(tiny, capsys, caplog):
    tiny.add_predictor("VanillaTransformer", seeds=(0, 1))
    (tiny.folder / "predictors/VanillaTransformer/seeds/2").mkdir()
    evaluate_predictor(tiny.folder, "VanillaTransformer")
    results = read(tiny.folder / "predictors/VanillaTransformer/results/prediction.json")
    seeds = results["seeds"]
    assert list(seeds) == ["0", "1"]
    assert results["psnr"] == pytest.approx((seeds["0"]["psnr"] + seeds["1"]["psnr"]) / 2)
    assert seeds["0"]["psnr"] != seeds["1"]["psnr"]
    assert results["missing_seeds"] == ["2"]
    assert "mean of 2 seeds" in capsys.readouterr().out
    assert "not finished: seed 2" in caplog.text

    evaluate_predictor(tiny.folder, "VanillaTransformer", num_seed=2, num_preds=4, results_name="long")
    results = read(tiny.folder / "predictors/VanillaTransformer/results/long.json")
    assert len(results["psnr_per_frame"]) == 4
    assert results["num_context"] == 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_preds": 0}, "--num_preds 0: expected at least 1"),
        ({"num_seed": 3}, "--num_seed 3: the predictor's buffer holds 2 frames"),
        ({"num_preds": 60}, "too few for a clip of 61 frames"),
        ({"pred_ckpt": "checkpoint_epoch_9.pth"}, "checkpoint_epoch_9.pth: no such checkpoint"),
        ({"decomp_ckpt": "other.pth"}, "other.pth: no such checkpoint"),
        ({"name_pred_exp": "VanilaTransformer"}, "did you mean 'VanillaTransformer'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_line(tiny, options, message):
    tiny.add_predictor("VanillaTransformer")
    with pytest.raises(UserError, match=message) as error:
        evaluate_predictor(tiny.folder, **{"name_pred_exp": "VanillaTransformer", **options})
    assert "\n" not in str(error.value)


def test_mean_of_figures_keeps_lists_and_missing_ones():
    runs = [{"a": 1.0, "b": [1.0, 2.0], "c": None}, {"a": 3.0, "b": [3.0, 2.0], "c": 1.0}]
    assert mean_figures(runs) == {"a": 2.0, "b": [2.0, 2.0], "c": None}


def test_shuffle_eval_changes_the_order_and_nothing_else(tiny):
    experiment = load_experiment(tiny.folder)
    orders = []
    for shuffle in (False, True, True):
        dataset = experiment.dataset.model_copy(update={"shuffle_eval": shuffle})
        clips = clip_loader(experiment.model_copy(update={"dataset": dataset}), tiny.folder, "train", 4, 2)
        orders.append([name for batch in clips.loader for name in batch["video_id"]])
    assert orders[0] == sorted(orders[0]) != orders[1] == orders[2] and sorted(orders[1]) == orders[0]


class ColourModel(torch.nn.Module):
    """Slots know their frame: slot 0 takes grey, slot 1 red, slot 2 blue; `merge` leaves blue in slot 0."""

    num_slots, slot_dim = 3, 1

    def __init__(self, merge=False, offset=0.0):
        super().__init__()
        self.merge, self.offset, self.device = merge, offset, torch.nn.Parameter(torch.zeros(()))

    def initial_slots(self, batch, noise=None):
        return noise

    def features(self, video):
        return video

    def track(self, video, initial_slots):
        assert initial_slots.shape == (len(video), 3, 1)
        self.frames = video.flatten(0, 1)
        return torch.arange(len(self.frames)).view(*video.shape[:2], 1, 1).expand(-1, -1, 3, -1)

    def decode(self, slots):
        frames = self.frames[slots[:, :, 0, 0]]
        red, blue = frames[:, :, 0] > 0.9, frames[:, :, 2] > 0.9
        if self.merge:
            blue = torch.zeros_like(blue)
        masks = torch.stack([~red & ~blue, red, blue], dim=2).unsqueeze(3).float()
        frames = frames + self.offset
        return Rendering(frames, frames.unsqueeze(2).expand(-1, -1, 3, -1, -1, -1), masks)


def clips(num_clips=3, masks=True):
    """Two batches of grey clips (4 frames, 12 x 12) with a red and a blue square."""
    batches = []
    for batch_size in (2, num_clips - 2):
        video = torch.full((batch_size, 4, 3, 12, 12), 0.5)
        labels = torch.zeros(batch_size, 4, 12, 12, dtype=torch.uint8)
        labels[:, :, 1:4, 1:4], labels[:, :, 6:10, 7:10] = 1, 2
        for label, colour in ((1, (1.0, 0.1, 0.1)), (2, (0.1, 0.1, 1.0))):
            where = (labels == label).unsqueeze(2)
            video = torch.where(where, torch.tensor(colour)[:, None, None], video)
        start, names = torch.ones(batch_size, dtype=torch.long), [str(i) for i in range(batch_size)]
        batch = {"video": video, "start": start, "video_id": names}
        batches.append({**batch, "masks": labels} if masks else batch)
    return batches


def test_a_model_that_separates_by_colour_is_perfect_and_an_object_in_the_background_costs_half():
    scores = score_model(ColourModel(), clips(), seed=0)
    assert scores == pytest.approx({**dict.fromkeys(METRICS, 1.0), "psnr": 80.0}, abs=1e-4)

    assert score_model(ColourModel(merge=True), clips(), seed=0)["object_miou"] == 0.5


def test_reconstruction_counts_in_psnr_alone():
    scores, red_or_blue = score_model(ColourModel(offset=0.1), clips(), seed=0), 9 + 12
    error = (0.01 * (144 - red_or_blue) + 0.01 * 2 / 3 * red_or_blue) / 144  # channels at 1 are clamped
    assert scores["psnr"] == pytest.approx(10 * torch.log10(torch.tensor(1 / error)).item(), abs=1e-3)
    assert scores["ari"] == 1.0


def test_without_masks_there_is_psnr_alone():
    scores = score_model(ColourModel(), clips(masks=False), seed=0)
    assert scores == pytest.approx({**dict.fromkeys(METRICS), "psnr": 80.0})
    baselines = score_baselines(clips(masks=False), 3, torch.full((3, 12, 12), 0.5))
    assert baselines == {"tiling": dict.fromkeys(METRICS), "colour_kmeans": dict.fromkeys(METRICS)}


def test_baselines_are_blind_to_the_model():
    baselines = score_baselines(clips(), 4, torch.full((3, 12, 12), 0.5))
    assert baselines["colour_kmeans"] == dict.fromkeys(METRICS, 1.0)
    assert 0.0 < baselines["tiling"]["object_miou"] < 0.4
    assert abs(baselines["tiling"]["ari"]) < 0.1 < baselines["tiling"]["fg_ari"]
    assert len(set(tiling(4, 12, 12).ravel())) == 4


def test_objects_that_are_not_seen_are_not_counted():
    assert num_objects(clips()[0]["masks"][0].numpy()) == 2
    assert num_objects(clips()[0]["masks"][0, :, :4].numpy()) == 1


@pytest.mark.parametrize("num_cells", [1, 2, 3, 5, 7, 9, 11])
def test_every_number_of_cells_is_met_with_cells_of_similar_size(num_cells):
    sizes = np.bincount(tiling(num_cells, 48, 48).ravel(), minlength=num_cells)
    assert len(sizes) == num_cells and sizes.min() > 0.5 * 48 * 48 / num_cells
    assert tiling(4, 4, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def coloured_clip():
    """Clip (3, 3, 8, 8) with two objects of different colours on grey; its labels and the grey image."""
    median = np.full((3, 8, 8), 0.5, dtype=np.float32)
    video, labels = np.repeat(median[None], 3, axis=0), np.zeros((3, 8, 8), dtype=int)
    labels[:, 1:3, 1:3], labels[:, 5:7, 4:7] = 1, 2
    for label, colour in ((1, (0.9, 0.1, 0.1)), (2, (0.1, 0.1, 0.9))):
        frames, rows, columns = np.nonzero(labels == label)
        video[frames, :, rows, columns] = colour
    return torch.from_numpy(video + 0.01), labels, torch.from_numpy(median)


def test_colour_kmeans_finds_objects_and_survives_too_few_pixels_and_colours():
    video, labels, median = coloured_clip()
    found = colour_kmeans(video, median, num_objects=2)
    assert set(segmentation_scores(labels, found).values()) == {1.0}
    assert (found == 0).sum() == (labels == 0).sum()
    assert np.array_equal(found, colour_kmeans(video, median, num_objects=2))

    assert not colour_kmeans(median.expand(3, -1, -1, -1), median, num_objects=2).any()
    assert not colour_kmeans(video, median, num_objects=0).any()
    assert colour_kmeans(video, median, num_objects=6).max() <= 6

import numpy as np
import pytest
import torch

from textocvp.decomposition import Rendering
from textocvp.evaluation.decomposition import colour_kmeans, num_objects, score_baselines, score_model, tiling
from textocvp.evaluation.metrics import segmentation_scores

METRICS = ("object_miou", "background_iou", "ari", "fg_ari")


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

import pytest
import torch

from textocvp.config import experiment as config
from textocvp.config.experiment import PredictorSection, create_predictor_experiment
from textocvp.data.frame_store import prepare_data
from textocvp.data.loaders import ClipDataset, Loader, collate, evaluation_loader, open_windows
from textocvp.data.order import RankBatches, Sample, TrainingOrder
from textocvp.data.part_files import PartReader
from textocvp.data.slot_store import plan_slot_parts
from textocvp.data.videos import DecodedVideos, open_videos
from textocvp.files import UserError

from .conftest import assert_refused

SHA = "c" * 64


@pytest.fixture
def experiment(make_experiment):
    folder, experiment = make_experiment(train=12, length=8, size=8, img_size=4)
    prepare_data(folder, 1)
    return folder, experiment


def clips(experiment, split="train", **settings):
    folder, experiment = experiment
    return ClipDataset(open_videos(experiment, folder, split), 3, **settings)


def test_an_item_is_a_clip_with_its_caption_and_masks(experiment):
    item = clips(experiment, "test", with_masks=True)[0]
    assert set(item) == {"video", "caption", "video_id", "start", "masks"}
    assert item["video"].shape == (3, 3, 4, 4) and item["video"].dtype == torch.float32
    assert item["start"] == 1 and item["video_id"] == "test_000" and item["caption"].endswith("(-1, 3).")
    assert (item["video"][:, 1] * 255).round().unique().tolist() == [1, 2, 3]  # frames 1, 2, 3
    assert item["masks"].shape == (3, 4, 4) and item["masks"].dtype == torch.uint8


def test_stored_and_decoded_clips_are_the_same(experiment):
    folder, _ = experiment
    data, samples = clips(experiment, with_masks=True), (Sample(0, 0), Sample(5, 2, 4))
    stored = [data[sample] for sample in samples]
    (folder / "frames").rename(folder / "gone")
    decoded = clips(experiment, with_masks=True)
    assert isinstance(decoded.videos, DecodedVideos)
    for sample, item in zip(samples, stored):
        for name, value in item.items():
            other = decoded[sample][name]
            assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other


def test_random_starts_are_a_function_of_seed_epoch_and_index(experiment):
    data = clips(experiment, random_start=True)
    starts = [[data[Sample(index, epoch)]["start"] for index in range(11)] for epoch in range(30)]
    assert starts == [[data.start(index, epoch, 3) for index in range(11)] for epoch in range(30)]
    assert {start for row in starts for start in row} == set(range(6))  # 8 frames, clips of 3
    assert len({tuple(row) for row in starts}) == 30
    assert data[4]["start"] == data[Sample(4, 0)]["start"]
    assert [clips(experiment, random_start=True, seed=1).start(i, 0, 3) for i in range(11)] != starts[0]
    assert {clips(experiment)[Sample(index, 3)]["start"] for index in range(11)} == {1}


@pytest.mark.parametrize("num_workers", [1, 2])
def test_batches_depend_on_no_worker_and_resume(experiment, num_workers):
    data = clips(experiment, random_start=True)
    data[0]  # the parent's open files must not reach the workers
    batches = RankBatches(TrainingOrder(len(data), 4, seed=3, total_steps=9), first_step=2)
    alone, workers = (list(Loader(data, batches, count)) for count in (0, num_workers))
    assert len(alone) == len(workers) == 7
    for one, other in zip(alone, workers):
        assert one["video_id"] == other["video_id"] and torch.equal(one["start"], other["start"])
        assert torch.equal(one["video"], other["video"]) and one["video"].shape == (4, 3, 3, 4, 4)


def test_resuming_gives_the_rest_of_the_same_batches(experiment):
    data = clips(experiment, random_start=True)

    def videos(first_step):
        batches = RankBatches(TrainingOrder(len(data), 4, 0, 8), first_step)
        return [batch["video"] for batch in Loader(data, batches)]

    whole, rest = videos(0), videos(5)
    assert len(rest) == 3 and all(torch.equal(one, other) for one, other in zip(whole[5:], rest))


@pytest.mark.parametrize("shuffle", [False, True])
def test_evaluation_visits_everything_once(experiment, shuffle):
    data = clips(experiment)

    def names(**ranks):
        return sum((batch["video_id"] for batch in evaluation_loader(data, 4, shuffle=shuffle, **ranks)), [])

    first, second = (names(rank=rank, world=2) for rank in range(2))
    assert sorted(first + second) == data.videos.video_ids and len(first) == 6
    alone = names()
    assert (alone == data.videos.video_ids) is not shuffle


def test_clips_longer_than_a_video_are_refused_at_once(experiment):
    folder, config = experiment
    videos = open_videos(config, folder, "train")
    assert_refused(r"video train_\d+ has 8 frames, but clips need 9.*--num_preds", ClipDataset, videos, 8)
    ClipDataset(videos, 8, random_start=True)
    assert_refused("has 8 frames, but clips need 9.*--num_preds", ClipDataset, videos, 9, random_start=True)
    (folder / "frames").rename(folder / "gone")
    with pytest.raises(UserError, match="has 8 frames, too few for a clip of 8 frames from frame 1"):
        ClipDataset(open_videos(config, folder, "train"), 8)[0]


def test_masks_of_data_without_masks(make_experiment):
    folder, config = make_experiment(masks=False)
    with pytest.raises(UserError, match="video test_000 has no object masks; only generated data has them"):
        ClipDataset(open_videos(config, folder, "test"), 3, with_masks=True)[0]


def test_a_frame_store_of_another_size_is_refused(experiment):
    folder, config = experiment
    larger = config.model_copy(update={"dataset": config.dataset.model_copy(update={"img_size": (6, 6)})})
    assert_refused("height is 4, not 6", open_videos, larger, folder, "train")


@pytest.fixture
def predictor(experiment):
    """A predictor experiment with its slot store: (folder, {mode: experiment})."""
    folder, plain = experiment
    own = {}
    for mode in ("store", "online"):
        values = [f"suite.slots.mode={mode}", "suite.slots.stride=2", "prediction_params.num_preds=3"]
        create_predictor_experiment(folder, mode, "TextOCVP_CustomTF", values)
        own[mode] = config.load_predictor_experiment(folder, mode)
    for split in ("train", "test"):
        videos = open_videos(plain, folder, split)
        for part in plan_slot_parts(plain, folder, videos, SHA, 4):
            slots = ((windows, torch.randn(len(windows), 4, 3, 2).numpy()) for _, windows in part.videos)
            part.write(slots, {})
    return folder, own


def test_stored_and_online_windows_are_the_same_in_the_same_order(predictor):
    folder, own = predictor
    stored = open_windows(own["store"], folder / "predictors" / "store", "train", SHA, with_video=True)
    online = open_windows(own["online"], folder, "train")
    assert stored.windows == online.windows and len(stored) == 11 * 3
    for sample in (Sample(0, 0), Sample(17, 3)):
        one, other = stored[sample], online[sample]
        assert set(one) - set(other) == {"slots"} and one["slots"].shape == (4, 3, 2)
        assert torch.equal(one["video"], other["video"]) and one["video"].shape == (4, 3, 4, 4)
        assert all(one[name] == other[name] for name in ("video_id", "start", "draw", "caption"))


def test_a_batch_of_windows_has_slots_and_text_and_reads_frames_for_the_image_loss_alone(
    predictor, monkeypatch
):
    folder, own = predictor
    data = open_windows(own["store"], folder, "test", SHA)
    (batch,) = evaluation_loader(data, 4)
    assert set(batch) == {"slots", "text", "caption", "video_id", "start", "draw"}
    assert batch["slots"].shape == (2, 4, 3, 2) and batch["start"].tolist() == [1, 1]
    assert batch["text"].tokens.shape == (2, 16) == batch["text"].mask.shape and batch["text"].mask.all()
    without_text = PredictorSection(predictor_name="VanillaTransformer")
    mute = own["store"].model_copy(update={"predictor": without_text})
    assert "text" not in collate([open_windows(mute, folder, "test", SHA)[0]])

    data = open_windows(own["store"], folder, "train", SHA)
    read, datasets = PartReader.read, []
    monkeypatch.setattr(PartReader, "read", lambda *args: datasets.append(args[2]) or read(*args))
    assert "video" not in data[0] and set(datasets) == {"slots"}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_is_one_line_of_its_own_kind(experiment, num_workers):
    data = clips(experiment, with_masks=True)
    (experiment[0] / "frames" / "train" / "part_0000.h5").write_bytes(b"broken")
    with pytest.raises(UserError, match="part_0000.h5: damaged") as caught:
        list(evaluation_loader(data, 4, num_workers))
    assert "\n" not in str(caught.value)

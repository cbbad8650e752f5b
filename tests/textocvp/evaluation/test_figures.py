import pytest
import torch
from PIL import Image

from textocvp.evaluation import sheets
from textocvp.evaluation.figures import figures
from textocvp.evaluation.sheets import EMPTY, GAP, LINE, Row, draw_sheet, shown_frames
from textocvp.files import UserError


def test_frames_are_enlarged_without_smoothing_and_clamped():
    frame = torch.zeros(3, 2, 2)
    frame[0, 0, 1] = 7.0
    picture = sheets.enlarge(frame, 3)
    assert picture.size == (6, 6)
    assert picture.getpixel((3, 2)) == (255, 0, 0)
    assert picture.getpixel((2, 2)) == (0, 0, 0)


def test_a_sheet_has_room_for_title_headings_labels_and_frames():
    frames = [torch.ones(3, 16, 16) * 0.5, None]
    sheet = draw_sheet("a caption " * 20, ["context", "+1"], [Row("truth", frames), Row("model", frames)])
    assert sheet.height > 2 * (112 + GAP) + 2 * LINE
    bottom = sheet.height - GAP - 50
    assert sheet.getpixel((sheet.width - GAP - 50, bottom)) == EMPTY
    assert sheet.getpixel((sheet.width - 2 * (GAP + 50) - 20, bottom)) == (128, 128, 128)


def test_long_clips_are_shown_with_gaps_from_first_to_last():
    assert shown_frames(3) == [0, 1, 2]
    columns = shown_frames(31)
    assert len(columns) == 12
    assert (columns[0], columns[-1]) == (0, 30)


def test_masks_mix_the_colours_of_their_slots():
    masks = torch.zeros(1, 2, 1, 1, 2)
    masks[0, 0, 0, 0] = torch.tensor([1.0, 0.5])
    masks[0, 1, 0, 0] = torch.tensor([0.0, 0.5])
    colours = sheets.coloured_labels(torch.tensor([[[0, 1]]]))[0, :, 0]
    mixed = sheets.coloured_masks(masks)[0, :, 0]
    assert torch.allclose(mixed[:, 0], colours[:, 0])
    assert torch.allclose(mixed[:, 1], colours.mean(dim=1))


def test_an_animation_has_all_frames(tmp_path):
    pictures = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(4)]
    sheets.save_gif(tmp_path / "a.gif", pictures)
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 4


def test_every_clip_gets_its_pictures_and_every_predictor_its_row(tiny, capsys):
    figures(tiny.folder, num_seqs=1)
    assert {path.name for path in (tiny.folder / "plots").iterdir()} == {"decomposition_00.png"}
    for name in ("VanillaTransformer", "TextOCVP_CustomTF"):
        tiny.add_predictor(name)
    tiny.add_predictor("VanillaTransformer", seeds=(0, 1))
    figures(tiny.folder, num_seqs=2)
    names = {path.name for path in (tiny.folder / "plots").iterdir()}
    kinds = ("decomposition_{}.png", "prediction_{}.png", "prediction_{}.gif")
    assert names == {kind.format(number) for kind in kinds for number in ("00", "01")}
    assert "2 clips, TextOCVP_CustomTF, VanillaTransformer" in capsys.readouterr().out
    with Image.open(tiny.folder / "plots/prediction_00.gif") as animation:
        assert animation.n_frames == 4  # 1 context and 3 predicted frames
    with Image.open(tiny.folder / "plots/decomposition_00.png") as sheet:
        assert sheet.height > 7 * 112  # video, reconstruction, masks, true objects, 3 slots


def test_a_predictor_that_did_not_finish_is_left_out_loudly_and_no_clips_are_refused(tiny, caplog):
    tiny.add_predictor("VanillaTransformer")
    tiny.add_predictor("TextOCVP_CustomTF", trained=False)
    figures(tiny.folder, num_seqs=1)
    assert "TextOCVP_CustomTF is left out: checkpoint_epoch_final.pth: " in caplog.text
    assert (tiny.folder / "plots/prediction_00.png").is_file()
    with pytest.raises(UserError, match="--num_seqs 0: expected at least 1"):
        figures(tiny.folder, num_seqs=0)


def test_clips_without_masks_can_be_drawn(tiny_without_masks):
    figures(tiny_without_masks.folder, num_seqs=1)
    assert (tiny_without_masks.folder / "plots/decomposition_00.png").is_file()

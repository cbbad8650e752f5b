import av
import numpy as np
import pytest

from textocvp.config.errors import UserError
from textocvp.data.dataset import read_video, write_video


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3)).astype(np.uint8)


def test_writing_is_lossless_and_keeps_shape_and_channel_order(tmp_path, frames):
    write_video(tmp_path / "clip.avi", frames)
    read = read_video(tmp_path / "clip.avi")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, frames)


def test_a_view_that_is_not_contiguous_is_written_as_it_looks(tmp_path, frames):
    write_video(tmp_path / "clip.avi", frames[::2, ::-1, 4:20])
    np.testing.assert_array_equal(read_video(tmp_path / "clip.avi"), frames[::2, ::-1, 4:20])


def test_the_same_frames_give_the_same_bytes(tmp_path, frames):
    for name in ("a.avi", "b.avi"):
        write_video(tmp_path / name, frames)
    assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()


@pytest.mark.parametrize("name, codec", [("clip.mp4", "mpeg4"), ("clip.avi", "mpeg4"), ("clip.mkv", "ffv1")])
def test_reads_what_other_programs_write(tmp_path, name, codec):
    ramp = np.linspace(20, 220, 64).astype(np.uint8)
    frames = np.broadcast_to(ramp[None, :, None, None], (6, 64, 48, 3))
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 48, "yuv420p"
        for pixels in frames:
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    read = read_video(tmp_path / name)
    assert read.shape == (6, 64, 48, 3)
    assert np.abs(read.astype(int) - frames).mean() < 4


@pytest.mark.parametrize(
    "frames",
    [np.zeros((0, 8, 8, 3), np.uint8), np.zeros((2, 8, 8, 3), np.float32), np.zeros((2, 8, 8), np.uint8)],
)
def test_refuses_to_write_what_is_no_video(tmp_path, frames):
    with pytest.raises(ValueError, match=r"expected uint8 \(T,H,W,3\)"):
        write_video(tmp_path / "clip.avi", frames)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.avi: no such video file"):
        read_video(tmp_path / "nowhere.avi")


def test_a_file_that_is_no_video_is_named(tmp_path):
    (tmp_path / "text.avi").write_text("no video" * 100)
    with pytest.raises(UserError, match=r"text\.avi: cannot be read as a video \(Invalid data"):
        read_video(tmp_path / "text.avi")


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "empty.avi").touch()
    with pytest.raises(UserError, match=r"empty\.avi: cannot be read as a video"):
        read_video(tmp_path / "empty.avi")


def test_a_sound_file_is_named(tmp_path):
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(UserError, match=r"sound\.wav: contains no video stream"):
        read_video(tmp_path / "sound.wav")


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_a_file_that_breaks_off_is_named(tmp_path, frames, kept):
    write_video(tmp_path / "clip.avi", frames)
    content = (tmp_path / "clip.avi").read_bytes()
    (tmp_path / "clip.avi").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=r"clip\.avi: (ends after|cannot be read)"):
        read_video(tmp_path / "clip.avi")


def test_a_file_cut_between_two_frames_is_named(tmp_path, frames):
    write_video(tmp_path / "clip.avi", frames)
    content = (tmp_path / "clip.avi").read_bytes()
    last_frame = content.rindex(b"00dc", 0, content.rindex(b"idx1"))
    (tmp_path / "clip.avi").write_bytes(content[:last_frame])
    with pytest.raises(UserError, match=r"clip\.avi: ends after 4 of 5 frames"):
        read_video(tmp_path / "clip.avi")


def test_a_damaged_byte_is_noticed(tmp_path, frames):
    write_video(tmp_path / "clip.avi", frames)
    content = bytearray((tmp_path / "clip.avi").read_bytes())
    content[len(content) // 2] ^= 0x55
    (tmp_path / "clip.avi").write_bytes(content)
    with pytest.raises(UserError, match=r"clip\.avi: cannot be read as a video"):
        read_video(tmp_path / "clip.avi")

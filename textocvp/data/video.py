"""Video files: lossless writing (PNG frames in AVI) and reading of whatever FFmpeg understands."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np

from textocvp.config.errors import UserError


def write_video(path: Path, frames: np.ndarray, rate: int = 8) -> None:
    """Write frames (T,H,W,3) uint8 without loss; the same frames give the same bytes.

    Lossy 4:2:0 coding moves a tenth of the pixels of small images visibly, and decodes slower.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) == 0:
        raise ValueError(f"frames: expected uint8 (T,H,W,3) with T > 0, got {frames.dtype} {frames.shape}")
    options = {"fflags": "+bitexact"}
    with av.open(str(path), "w", format="avi", options=options) as container:
        stream = container.add_stream("png", rate=rate, options={"pred": "up", "compression_level": "1"})
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "rgb24"
        stream.codec_context.thread_count = 1
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read_video(path: Path) -> np.ndarray:
    """All frames of a video file, uint8 RGB (T,H,W,3), T as in the file.

    Raises UserError, with the file's name, if it is missing, is not a video, is damaged or holds no frame.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: holds no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
            # each packet is a frame here; other codecs may well declare a few more than they hold
            declared = stream.frames if stream.codec_context.name == "png" else 0
    except FileNotFoundError:
        raise UserError(f"{path}: no such video file") from None
    except (av.FFmpegError, OSError) as error:
        raise UserError(f"{path}: cannot be read as a video ({error.strerror})") from error
    if len(frames) < declared:
        raise UserError(f"{path}: breaks off after {len(frames)} of {declared} frames")
    if not frames:
        raise UserError(f"{path}: holds no frames")
    return np.stack(frames)

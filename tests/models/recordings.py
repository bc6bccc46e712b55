"""Small recordings with picture and sound, made with PyAV alone, and what goes wrong with such files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 16000
BLOCK = RATE // 25  # samples of a frame


def numbered(frames: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Frames whose grey level tells their number."""
    result = np.zeros((frames, height, width, 3), np.uint8)
    result[:] = (20 + 4 * (np.arange(frames) % 50))[:, None, None, None]
    return result


def numbers(frames: np.ndarray) -> list[int]:
    """What `numbered` wrote, modulo 50."""
    return np.round((frames.mean((1, 2, 3)) - 20) / 4).astype(int).tolist()


def clicks(frames: int) -> np.ndarray:
    """A sound as long as so many frames, int16 [1, T]: in each second another tone, and silence every other frame."""
    number = np.arange(frames * BLOCK)
    tone = np.sin(2 * np.pi * (300 + 50 * (number // RATE)) * number / RATE)
    return (16000 * tone * (number // BLOCK % 2)).astype(np.int16)[None]


def record(
    path: Path,
    frames: int,
    codec: str = "libx264",
    sound: str | None = "aac",
    coder: dict | None = None,
    **settings,
) -> Path:
    """A recording of numbered frames at 25 fps and, at their side, of clicks."""
    with av.open(str(path), "w", **settings) as container:
        video = container.add_stream(codec, rate=25, options={"crf": "5", "g": "10", **(coder or {})})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(sound, rate=RATE, layout="mono") if sound else None
        samples = clicks(frames)
        for number, frame in enumerate(numbered(frames)):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(video.encode(picture))
            if audio is not None:
                part = np.ascontiguousarray(samples[:, number * BLOCK :][:, :BLOCK])
                heard = av.AudioFrame.from_ndarray(part, "s16", "mono")
                heard.sample_rate, heard.pts, heard.time_base = RATE, number * BLOCK, Fraction(1, RATE)
                container.mux(audio.encode(heard))
        for stream in (video, audio):
            if stream is not None:
                container.mux(stream.encode(None))
    return path


def remux(source: Path, target: Path, keep) -> Path:
    """The same packets of a video's picture but for those that `keep(number, packet)` refuses."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for number, packet in enumerate(old.demux(stream)):
            if packet.size and keep(number, packet):
                packet.stream = copy
                new.mux(packet)
    return target

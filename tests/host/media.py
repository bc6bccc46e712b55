"""Input files for the example workflows: real clips where they are at hand, else two public-domain portraits."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT.parent / "shared" / "data"

Frames = NDArray[np.uint8]


def fill_input_folder(folder: Path, seconds: float = 1.0, real: bool = True) -> None:
    """Write demo_target.mp4, demo_face.png, demo_portrait.png and demo_speech.flac.

    Args:
        folder: where.
        seconds: length of the video; the speech is a little longer.
        real: use the real clips where they are at hand. They must never appear in a picture that is kept.
    """
    portrait = pytest.importorskip("skimage.data").astronaut()
    sample = pytest.importorskip("matplotlib.cbook").get_sample_data("grace_hopper.jpg", asfileobj=False)
    Image.fromarray(portrait).save(folder / "demo_portrait.png")
    if real and (REAL / "scenes").is_dir():
        frames, rate = read_frames(REAL / "scenes" / "kitchen_720p25.mp4", seconds)
        Image.open(REAL / "faces" / "ai_m01_01.jpg").convert("RGB").save(folder / "demo_face.png")
        speech = read_speech(REAL / "talking" / "may_01.wav", 1.3 * seconds)
    else:
        frames, rate = nodding(portrait, round(25 * seconds)), Fraction(25)
        Image.open(sample).convert("RGB").save(folder / "demo_face.png")
        speech = babble(1.3 * seconds)
    write_video(folder / "demo_target.mp4", frames, rate, speech)
    write_audio(folder / "demo_speech.flac", speech)


def read_frames(path: Path, seconds: float) -> tuple[Frames, Fraction]:
    """First frames of a clip, uint8 [N, H, W, 3]."""
    with av.open(str(path)) as container:
        rate = Fraction(container.streams.video[0].average_rate)
        count, frames = round(seconds * rate), []
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            if len(frames) == count:
                break
    return np.stack(frames), rate


def read_speech(path: Path, seconds: float) -> NDArray[np.float32]:
    """First seconds of a 16 kHz mono file, float32 [T]."""
    with av.open(str(path)) as container:
        parts = [frame.to_ndarray().reshape(-1) for frame in container.decode(audio=0)]
    return (np.concatenate(parts)[: round(16_000 * seconds)] / 32768).astype(np.float32)


def nodding(picture: Frames, count: int) -> Frames:
    """A still picture that moves a little, so that tracking has something to follow."""
    shift = [round(6 * np.sin(i / 4)) for i in range(count)]
    return np.stack([np.roll(picture, (offset, 0), (0, 1)) for offset in shift])


def babble(seconds: float) -> NDArray[np.float32]:
    """Four syllables a second of a harmonic tone, float32 [T] at 16 kHz."""
    time = np.arange(round(16_000 * seconds)) / 16_000
    voice = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 20))
    return (0.15 * voice * np.clip(np.sin(2 * np.pi * 4 * time), 0, 1)).astype(np.float32)


def write_video(
    path: Path,
    frames: Frames,
    rate: Fraction,
    speech: NDArray[np.float32] | None = None,
    pixel_format: str = "yuv420p",
) -> None:
    """H.264 (crf 18) and AAC."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], pixel_format
        audio = None if speech is None else container.add_stream("aac", rate=16_000, layout="mono")
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None and speech is not None:
            _encode_audio(container, audio, speech, "fltp")


def write_bare_video(path: Path, frames: Frames, rate: Fraction) -> None:
    """H.264 without a container."""
    with av.open(str(path), "w", format="h264") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))


def write_audio(path: Path, speech: NDArray[np.float32], rate: int = 16_000) -> None:
    """Mono FLAC."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac", rate=rate, layout="mono")
        _encode_audio(container, stream, (speech * 32767).astype(np.int16), "s16", rate)


def _encode_audio(container: av.container.OutputContainer, stream, samples, layout: str, rate: int = 16_000) -> None:
    frame = av.AudioFrame.from_ndarray(samples[None], format=layout, layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def count_frames(path: Path) -> tuple[int, Fraction, float]:
    """Frames, rate and length of the sound in seconds (0 without sound) of a file."""
    with av.open(str(path)) as container:
        rate = Fraction(container.streams.video[0].average_rate)
        count = sum(1 for _ in container.decode(video=0))
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return count, rate, 0.0
        samples = sum(frame.samples for frame in container.decode(audio=0))
        return count, rate, samples / container.streams.audio[0].rate

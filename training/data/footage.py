"""A video brought to 25 frames a second and its sound to 16 kHz mono, by exact time, chunk by chunk.

Frame i of the result stands at i / 25 s after the stretch begins and is the source's frame nearest to that time; sample
640 * i of the sound belongs to it. Pictures are decoded anew where they are needed instead of being stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from models.resample import SAMPLE_RATE, to_mono_16k
from models.timing import fit_audio, frame_numbers, read_numbered
from models.video import VideoFile
from models.video_index import scan
from models.video_open import open_container, picture_stream

from ..clips import FPS
from .items import Item, Settings
from .sound import SAMPLES
from .work import Work, sha256_of

LEAST_FRAMES = 25  # a second; shorter tracks teach little and have no room for negatives


@dataclass(frozen=True)
class Footage:
    """The pictures of an item at 25 fps.

    Attributes:
        item: which.
        numbers: int64 [N] never falling, the source's frame at each place.
    """

    item: Item
    numbers: NDArray[np.int64]

    def chunks(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """All frames in order, uint8 [n <= size, H, W, 3] RGB, cut to the item's box."""
        with VideoFile(self.item.path) as video:
            for frames in read_numbered(video, self.numbers, size):
                yield _boxed(frames, self.item)


def _boxed(frames: NDArray[np.uint8], item: Item) -> NDArray[np.uint8]:
    if item.box is None:
        return frames
    scale = frames.shape[1] / (item.box_height or frames.shape[1])
    x, y, width, height = (round(scale * number) for number in item.box)
    part = frames[:, y : y + height, x : x + width]
    if not part.size:
        raise ValueError(f"the box {item.box} lies outside the picture of {frames.shape[2]}x{frames.shape[1]} px")
    return np.ascontiguousarray(part)


def still(item: Item) -> NDArray[np.uint8] | None:
    """The picture in the middle of an item, uint8 [H, W, 3], for people to look at; None = nothing can be decoded."""
    try:
        with VideoFile(item.path) as video:
            info = video.info
            middle = (item.start + min(info.duration, item.stop or info.duration)) / 2
            frame = min(int(middle * info.fps), info.frames - 1)
            return video.read(frame, frame + 1)[0]
    except (OSError, ValueError, IndexError):
        return None


def probe(item: Item, work: Work, settings: Settings) -> dict:
    """Read what the file holds; frames and time stamps only, no picture but the first.

    Raises:
        ValueError: missing, damaged, no sound, or too short.
    """
    if not item.path.is_file():
        raise ValueError("the video is missing")
    with VideoFile(item.path) as video:
        info = video.info
    if info.audio_rate is None:
        raise ValueError("no sound")
    stop = min(info.duration, item.stop or info.duration)
    count = int((stop - item.start) * FPS + Fraction(1, 2))
    if count < LEAST_FRAMES:
        found = f"{max(0.0, float(stop - item.start)):.2f} s long; at least {float(LEAST_FRAMES / FPS):g} s are needed"
        raise ValueError(". ".join([found, *info.notes]))
    return {
        "sha256": sha256_of(item.path),
        "width": info.width,
        "height": info.height,
        "fps": str(info.fps),
        "frames": count,
        "notes": list(info.notes),
    }


def normalise(item: Item, work: Work, settings: Settings) -> dict:
    """Lay out the frames at 25 fps, and write the sound at 16 kHz mono.

    Raises:
        ValueError: the sound is damaged, silent or too short.
    """
    index = scan(item.path)
    with open_container(item.path) as container:
        base = Fraction(picture_stream(container).time_base)
    times = index.times - index.times[0]
    if len(times) > 1 and times[-1] <= 0:  # a stream without time stamps: frames stand at i / fps
        times, base = np.arange(len(index), dtype=np.int64), 1 / index.fps
    numbers = frame_numbers(times, base, item.start, work.result("probe")["frames"])
    with VideoFile(item.path) as video:
        sound = video.audio()
    if sound is None:
        raise ValueError("no sound")
    waveform, rate = sound
    begin = round(item.start * rate)
    mono = to_mono_16k(waveform[:, begin : begin + round(len(numbers) / FPS * rate)], rate).numpy()
    # A file whose sound ends earlier is used as far as it goes.
    numbers = numbers[: -(-len(mono) // SAMPLES)]
    if len(numbers) < LEAST_FRAMES:
        raise ValueError(f"the sound lasts {len(mono) / SAMPLE_RATE:.2f} s")
    if not np.abs(mono).max() > 0:
        raise ValueError("the sound is nothing but zeros")
    exact = fit_audio(mono, SAMPLE_RATE, len(numbers) / FPS)[0]
    work.save_arrays("footage.npz", numbers=numbers, sound=np.rint(exact.clip(-1, 1) * 32767).astype(np.int16))
    return {"frames": len(numbers)}


def footage_of(item: Item, work: Work) -> Footage:
    """The pictures as `normalise` laid them out."""
    return Footage(item, work.arrays("footage.npz")["numbers"])


def samples_of(work: Work) -> NDArray[np.int16]:
    """The sound as `normalise` wrote it, int16 [640 * frames] at 16 kHz."""
    return work.arrays("footage.npz")["sound"]

"""Videos that the tests make themselves: a public-domain portrait that moves about, and a voice."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.video_writer import VideoWriter
from tests.models.swapping import speech
from training.data.items import Settings, find_items
from training.prepare import prepare

SIDE = 320  # px of the frames


def moved(portrait: np.ndarray, i: int, flip: bool = False) -> np.ndarray:
    """A window on the portrait that wanders with the frame's number, uint8 [320, 320, 3]."""
    x, y = round(60 + 25 * np.sin(i / 7)), round(5 + 4 * np.cos(i / 5))
    window = portrait[y : y + SIDE, x : x + SIDE]
    return window[:, ::-1] if flip else window


def write_video(
    path: Path, frames, fps: Fraction = Fraction(25), sound: bool = True, seconds: float | None = None
) -> None:
    """Frames and a voice of their length, or of another one."""
    length = seconds or len(frames) / float(fps)
    with VideoWriter(path, SIDE, SIDE, fps, speech(length, 44100, 2) if sound else None) as writer:
        writer.write(np.stack(frames))


@pytest.fixture(scope="session")
def videos(astronaut, tmp_path_factory) -> Path:
    """Two good videos, one of them below in a folder and at 30 fps, and five that cannot be used."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "below").mkdir()
    write_video(folder / "a.mp4", [moved(astronaut, i) for i in range(40)])
    write_video(folder / "below" / "b.mp4", [moved(astronaut, i, flip=True) for i in range(40)], Fraction(30))
    write_video(folder / "no_face.mp4", [np.full((SIDE, SIDE, 3), 4 * i, np.uint8) for i in range(30)])
    write_video(folder / "no_sound.mp4", [moved(astronaut, i) for i in range(30)], sound=False)
    write_video(folder / "short.mp4", [moved(astronaut, i) for i in range(10)])
    whole = (folder / "a.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    return folder


@pytest.fixture(scope="session")
def prepared(videos, tmp_path_factory) -> Path:
    """The same, prepared."""
    output = tmp_path_factory.mktemp("prepared")
    prepare(find_items(videos), output, Settings())
    return output

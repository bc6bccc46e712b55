from __future__ import annotations

import io
import re
from fractions import Fraction

import numpy as np
import pytest

from models.clock import Clock
from models.sound_file import decode_sound
from models.video import VideoFile, open_audio, read_audio
from tests.models.recordings import BLOCK, RATE, numbered, record

av = pytest.importorskip("av")


def spoken(path, starts: list[int], picture: int = 0):
    """A Matroska file with blocks of sound, of one frame each and louder from one to the next, at these frames' times.

    Args:
        path: where to.
        starts: at which frame each block of sound stands.
        picture: frames of a picture beside it, 0 = none.
    """
    with av.open(str(path), "w") as container:
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        if picture:
            video = container.add_stream("libx264", rate=25, options={"bf": "0"})
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for number in range(picture):
                shown = av.VideoFrame.from_ndarray(numbered(1)[0], "rgb24")
                shown.pts, shown.time_base = number, Fraction(1, 25)
                container.mux(video.encode(shown))
            container.mux(video.encode(None))
        for number, start in enumerate(starts):
            block = np.full((1, BLOCK), 100 * (number + 1), np.int16)
            frame = av.AudioFrame.from_ndarray(block, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start * BLOCK, Fraction(1, RATE)
            container.mux(audio.encode(frame))
    return path


def heard(samples: np.ndarray) -> list[int]:
    """Which block stands at each frame, 0 = silence; the last one not where it is cut."""
    return np.round(samples[0, BLOCK // 2 :: BLOCK] * 32768 / 100).astype(int).tolist()


def test_holes_are_filled_up_to_a_limit(tmp_path):
    """A pause is silence; where nothing is for longer and no picture goes on, there never was anything."""
    pause, joined = [0, 1, 30, 31], [0, 1, 300_000_000, 300_000_001, 300_000_002]
    assert heard(read_audio(spoken(tmp_path / "a.mka", pause))[0]) == [1, 2, *[0] * 28, 3, 4]
    assert heard(read_audio(spoken(tmp_path / "b.mka", joined))[0]) == [1, 2, 3, 4, 5]


def test_sound_that_stops_while_the_picture_goes_on_is_silent_meanwhile(tmp_path):
    path = spoken(tmp_path / "a.mkv", [0, 1, 350, 351], picture=400)
    samples, _ = VideoFile(path).audio()
    assert heard(samples) == [1, 2, *[0] * 348, 3, 4]
    assert np.array_equal(read_audio(path)[0], samples)


def test_a_jump_of_the_sound_alone_is_an_error(tmp_path):
    """Which picture it belongs to from there on cannot be known; no memory is taken for it."""
    path = spoken(tmp_path / "a.mkv", [0, 1, *range(300_000_000, 300_000_030)], picture=50)
    for read in (read_audio, open_audio, lambda source: VideoFile(source).audio()):
        with pytest.raises(ValueError, match=r"sound of a\.mkv jump by .* after 0\.1 s.*Re-encode"):
            read(path)


def test_wrong_time_stamps_for_a_moment_change_nothing_else(tmp_path):
    """A TS packs several frames of sound under one time stamp: these go astray together, and come back."""
    whole = record(tmp_path / "a.ts", 60, options={"max_delay": "700000"}).read_bytes()
    expected, _ = read_audio(io.BytesIO(whole))
    packs = [match.start() + 9 for match in re.finditer(b"\x00\x00\x01\xc0", whole)]
    assert len(packs) < 20
    for byte, bit in ((0, 0x02), (1, 0x01), (1, 0x40)):
        data = bytearray(whole)
        data[packs[len(packs) // 2] + byte] ^= bit
        assert np.array_equal(read_audio(io.BytesIO(bytes(data)))[0], expected), (byte, bit)


def test_sound_follows_the_shifts_of_the_picture(tmp_path):
    """The parts of a recording are told apart by where their sound best goes on."""
    clock = Clock(Fraction(0), Fraction(1), (Fraction(0), Fraction(-40), Fraction(-110)))
    path = spoken(tmp_path / "a.mka", [0, 1, 1002, 1003, 2755, 2756])
    assert heard(decode_sound(path, clock)[0]) == [1, 2, 3, 4, 0, 5, 6]


def test_a_fragmented_file_that_breaks_off_before_its_first_fragment_holds_no_sound(tmp_path):
    whole = record(tmp_path / "a.mp4", 30, options={"movflags": "frag_keyframe+empty_moov"}).read_bytes()
    file = io.BytesIO(whole[: whole.index(b"moof") - 4])
    assert read_audio(file) is None
    assert open_audio(file) is None
    with pytest.raises(ValueError, match="holds no video frame"):
        VideoFile(file)

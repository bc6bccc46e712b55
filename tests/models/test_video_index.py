from __future__ import annotations

import io
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.clock import LONGEST_HOLE
from models.timing import plan_length, read_planned
from models.video import VideoFile, read_audio
from models.video_index import scan
from models.video_open import open_container
from tests.models.recordings import BLOCK, RATE, numbered, numbers, record, remux

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> dict[str, bytes]:
    """The same recording of two seconds, with time stamps that begin elsewhere."""
    folder = tmp_path_factory.mktemp("parts")
    made = {}
    for name, begin in (("a", "0"), ("within", "1"), ("later", "98.6")):
        file = record(folder / f"{name}.ts", 50, coder={"bf": "2"}, options={"output_ts_offset": begin})
        made[name] = file.read_bytes()
    return made


@pytest.mark.parametrize("order", [("a", "a"), ("later", "a"), ("a", "later"), ("a", "within"), ("a", "a", "a")])
def test_joined_recordings_go_on_with_picture_and_sound_in_step(parts, order):
    file = io.BytesIO(b"".join(parts[name] for name in order))
    video, one = VideoFile(file), VideoFile(io.BytesIO(parts["a"]))
    count = len(order)
    assert (video.info.frames, video.info.fps) == (50 * count, 25)
    assert any("joined" in note for note in video.info.notes)
    frames = np.concatenate(list(video.chunks(9)))
    assert numbers(frames) == list(range(50)) * count
    for start in (60, 20, 49):
        assert np.array_equal(video.read(start, start + 3), frames[start : start + 3])
    samples, rate = video.audio()
    expected = one.audio()[0][0]
    for number in range(count):
        part = samples[0, number * 50 * BLOCK :][: 48 * BLOCK]
        assert np.abs(part - expected[: len(part)])[2 * BLOCK :].max() < 0.01, number
    assert samples.shape[1] < (50 * count + 25) * BLOCK and rate == RATE
    assert np.array_equal(read_audio(file)[0], samples)
    assert np.array_equal(video.sound().read(0, samples.shape[1]).numpy(), samples)


def tags(data: bytes, kind: int) -> list[int]:
    """Where tags of a kind begin in an FLV file."""
    found, at = [], 13
    while at + 11 < len(data):
        if data[at] == kind:
            found.append(at)
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    return found


@pytest.mark.parametrize("kind", [8, 9])
def test_one_wrong_time_stamp_changes_nothing_else(tmp_path, kind):
    """Of sound or picture: 65 s, 18 minutes, or a month too late."""
    whole = record(tmp_path / "a.flv", 50, coder={"bf": "2"}).read_bytes()
    expected = VideoFile(io.BytesIO(whole))
    samples, frames = expected.audio()[0], expected.read(0, 50)
    for byte, bit in ((4, 0x01), (4, 0x10), (7, 0x80)):
        data = bytearray(whole)
        data[tags(whole, kind)[20] + byte] ^= bit
        video = VideoFile(io.BytesIO(bytes(data)))
        assert (video.info.frames, video.info.fps) == (50, 25)
        assert np.array_equal(video.read(0, 50), frames)
        assert np.array_equal(video.audio()[0], samples)


def test_a_picture_that_stands_still_while_people_speak_keeps_its_time(tmp_path):
    """Slides in a TS: the sound says that the hole of the picture is none."""
    seconds = int(LONGEST_HOLE) + 5
    with av.open(str(tmp_path / "slides.ts"), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"bf": "0", "tune": "zerolatency"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        for number in range(25 * seconds):
            if number in (0, 1, 25 * seconds - 1):
                picture = av.VideoFrame.from_ndarray(numbered(1)[0], "rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                container.mux(video.encode(picture))
            heard = av.AudioFrame.from_ndarray(np.zeros((1, BLOCK), np.int16), "s16", "mono")
            heard.sample_rate, heard.pts, heard.time_base = RATE, number * BLOCK, Fraction(1, RATE)
            container.mux(audio.encode(heard))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    index = scan(tmp_path / "slides.ts")
    assert index.clock.shifts == (0,)
    assert "variable frame rate" in index.notes[0]
    samples, _ = VideoFile(tmp_path / "slides.ts").audio()
    assert samples.shape[1] > (seconds - 1) * RATE


def test_frames_without_usable_times_begin_at_the_first_that_is_known(tmp_path):
    """Two frames with one time: what the container says is not known, but when it begins is."""
    path = record(tmp_path / "a.ts", 20, coder={"bf": "0"})
    with av.open(str(path)) as container:
        first = min(packet.pts for packet in container.demux(video=0) if packet.size)
    data = bytearray(path.read_bytes())
    begin = [match.start() + 9 for match in re.finditer(b"\\x00\\x00\\x01\\xe0", data)]  # of each frame's time stamps
    data[begin[7] : begin[7] + 5] = data[begin[6] : begin[6] + 5]
    index = scan(io.BytesIO(bytes(data)))
    assert not index.timed
    assert index.clock.start == Fraction(first, 90000)
    assert "cannot be used" in index.notes[0]


def test_time_stamps_that_make_no_sense_are_damage(tmp_path):
    with av.open(str(tmp_path / "slow.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for time in (0, 40_000_000, 80_000_000):
            picture = av.VideoFrame.from_ndarray(numbered(1)[0], "rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with pytest.raises(ValueError, match=r"slow\.mkv has time stamps that make no sense.*re-encode"):
        VideoFile(tmp_path / "slow.mkv")


def test_a_stream_that_turns_up_late_is_damage(tmp_path, monkeypatch):
    path = record(tmp_path / "a.mp4", 10)

    class Late:
        """A container whose reading ends as PyAV's does at a packet of an unknown stream."""

        def __init__(self, container):
            self._container = container

        def __getattr__(self, name):
            return getattr(self._container, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self._container.close()

        def demux(self, stream):
            yield from [packet for packet in self._container.demux(stream)][:3]
            raise IndexError("list index out of range")

    monkeypatch.setattr("models.video_index.open_container", lambda source: Late(open_container(source)))
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be read to its end.*damaged"):
        scan(path)


def test_a_trim_by_edit_list_is_not_told_that_its_end_is_missing(tmp_path):
    path = record(tmp_path / "a.mp4", 60, sound=None, coder={"g": "60", "bf": "0"})
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4 + 4  # version and flags, then one entry: its duration and where it begins
    assert data[at : at + 4] == b"\x00\x00\x00\x01"
    data[at + 8 : at + 12] = (20 * 512).to_bytes(4, "big")
    video = VideoFile(io.BytesIO(bytes(data)))
    assert numbers(video.read(0, video.info.frames)) == [number % 50 for number in range(20, 60)]
    assert video.info.notes == ()
    assert numbers(video.read(7, 9)) == [27, 28]


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """HEVC with open groups of pictures, one packet of which is missing: the decoder leaves out frames."""
    if "libx265" not in av.codecs_available:
        pytest.skip("needs x265")
    folder = tmp_path_factory.mktemp("hevc")
    options = {"x265-params": "keyint=20:min-keyint=20:bframes=4:open-gop=1:scenecut=0:log-level=none"}
    whole = record(folder / "whole.mp4", 80, codec="libx265", sound=None, coder=options)
    return remux(whole, folder / "broken.mp4", lambda number, packet: number != 22)


def test_frames_that_the_decoder_leaves_out_do_not_move_others(broken):
    video = VideoFile(broken)
    assert video.info.frames == 79
    assert not any("cannot be decoded" in note for note in video.info.notes)  # not known yet
    frames = np.concatenate(list(video.chunks(7)))
    shown = numbers(frames)
    # Packets 0 to 20 and from the next group on are whole; in between the one before is repeated.
    assert shown[:21] == list(range(21))
    assert shown[39:] == [number % 50 for number in range(40, 80)]
    assert max(shown[21:39]) < 40 and shown[21:39] == sorted(shown[21:39])
    for start in (45, 44, 30, 21, 22, 38, 39, 40, 78, 10):
        for other in (video, VideoFile(broken)):
            assert np.array_equal(other.read(start, start + 1)[0], frames[start]), start
    (note,) = [note for note in video.twin().info.notes if "cannot be decoded" in note]
    assert f"{39 - len(set(shown[:39]))} of 79 frames, the first of them number" in note


def test_what_is_missing_for_long_is_an_error_that_names_the_frame(tmp_path, monkeypatch):
    path = record(tmp_path / "a.mp4", 60, sound=None, coder={"g": "10", "bf": "0"})
    video = VideoFile(path)
    missing = set(video._index.pts[23:40].tolist())
    kept = type(video._reader)._number
    monkeypatch.setattr(
        type(video._reader), "_number", lambda self, frame: None if frame.pts in missing else kept(self, frame)
    )
    assert numbers(video.read(20, 45)) == [*range(20, 23), *[22] * 17, *range(40, 45)]
    monkeypatch.setattr("models.video.LONGEST_HOLE", Fraction(1, 2))
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be decoded past frame 23 of 60.*re-encode"):
        VideoFile(path).read(20, 45)


def test_a_frame_that_is_held_is_decoded_once(tmp_path, monkeypatch):
    path = record(tmp_path / "a.mp4", 50, sound=None, coder={"g": "50"})
    video, decoded = VideoFile(path).twin(), []
    reader = type(video._reader)
    once = reader._decode
    monkeypatch.setattr(reader, "_decode", lambda self: decoded.append(1) or once(self))
    plan = plan_length(50, Fraction(25), Fraction(8), "hold")
    for start in range(0, plan.frames, 9):
        read_planned(video.decoded, plan, start, min(start + 9, plan.frames))
    assert len(decoded) == 50


def test_sound_of_a_video_starts_with_its_first_shown_frame(tmp_path):
    """A TS that was cut within a group of pictures, and an AVI with B-frames: not where the first packet says."""
    long = record(tmp_path / "long.ts", 75, coder={"g": "50", "bf": "0"}).read_bytes()
    (tmp_path / "cut.ts").write_bytes(long[188 * 40 :])
    options = {"bf": "2", "qscale": "2"}
    avi = record(tmp_path / "b.avi", 50, codec="mpeg4", sound="pcm_s16le", coder=options)
    for path, first in ((tmp_path / "cut.ts", 50), (avi, 0)):
        video = VideoFile(path)
        assert numbers(video.read(0, 1)) == [first % 50]
        samples, _ = video.audio()
        assert np.array_equal(read_audio(path)[0], samples)

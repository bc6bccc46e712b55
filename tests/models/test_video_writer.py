from __future__ import annotations

import os
import threading
from fractions import Fraction

import numpy as np
import pytest

from models import h264
from models.video import VideoFile
from models.video_writer import VideoWriter

av = pytest.importorskip("av")
RATES = [Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, 60, Fraction(359, 12)]


def ramp(frames: int, width: int, height: int) -> np.ndarray:
    """Smooth colours that move, uint8 [frames, height, width, 3]."""
    y, x = np.mgrid[:height, :width].astype(float)
    pictures = [
        np.stack([x / width * 255, y / height * 255, 128 + 100 * np.sin((x + 3 * i) / 20)], -1) for i in range(frames)
    ]
    return np.stack(pictures).round().astype(np.uint8)


def tone(channels: int, rate: int, seconds: float) -> np.ndarray:
    t = np.arange(round(rate * seconds)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * 220 * (c + 1) * t) for c in range(channels)]).astype(np.float32)


def write(path, frames, fps=Fraction(25), audio=None, chunk=16, **options):
    with VideoWriter(path, frames.shape[2], frames.shape[1], fps, audio, **options) as writer:
        for start in range(0, len(frames), chunk):
            writer.write(frames[start : start + chunk])
    return path


@pytest.fixture
def segments(monkeypatch):
    """Makes the writer encode so many segments at a time."""
    return lambda count: monkeypatch.setattr("models.h264.plan", lambda width, height: h264.Plan(count, 1))


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("fps", RATES)
def test_count_rate_and_sound_are_exact(tmp_path, segments, fps, count):
    segments(count)
    fps, frames, sound = Fraction(fps), ramp(77, 64, 48), tone(2, 48000, 5)
    path = write(tmp_path / "a.mp4", frames, fps, (sound, 48000))
    with av.open(str(path)) as container:  # straight from the file, without our reader
        video = container.streams.video[0]
        times = sorted(packet.pts * video.time_base for packet in container.demux(video) if packet.size)
        assert times == [i / fps for i in range(77)]
        assert video.average_rate == fps
    with VideoFile(path) as video:
        assert (video.info.frames, video.info.fps, video.info.notes) == (77, fps, ())
        samples, rate = video.audio()
    assert samples.shape == (2, round(77 / fps * 48000))
    # in step to the sample: one sample off would be 0.01
    assert np.abs(samples - sound[:, : samples.shape[1]])[:, 3000:-3000].mean() < 0.003


def test_sound_shorter_than_the_video_is_padded(tmp_path):
    path = write(tmp_path / "a.mp4", ramp(50, 32, 32), audio=(tone(1, 16000, 0.5), 16000))
    samples, _ = VideoFile(path).audio()
    assert samples.shape == (1, 32000)
    assert np.abs(samples[0, 12000:]).max() < 0.01


@pytest.mark.parametrize("frames", [1, 2, 47, 48, 49, 50, 150])
def test_segments_are_one_video(tmp_path, segments, frames):
    """Same frames in the same order, decodable from the start and from each key frame, and time without a step back."""
    pictures, sound = ramp(frames, 64, 48), tone(1, 16000, frames / 25)
    paths = []
    for count in (1, 4):
        segments(count)
        paths.append(write(tmp_path / f"{count}.mp4", pictures, audio=(sound, 16000)))
    whole, parts = (VideoFile(path).read(0, frames).astype(int) for path in paths)
    assert np.abs(whole - pictures).mean() < 3
    assert np.abs(parts - pictures).mean((1, 2, 3)).max() < 3
    with av.open(str(paths[1])) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    assert set(range(0, frames, 48)) <= set(keys)
    assert all(packets[i].pts < min([p.pts for p in packets[i + 1 :]], default=2**40) for i in keys)  # closed
    times = [packet.dts for packet in packets]
    assert times == sorted(set(times)) and all(packet.dts <= packet.pts for packet in packets)
    with VideoFile(paths[1]) as video:
        assert np.array_equal(video.read(frames - 1, frames)[0], parts[-1])  # by seeking


@pytest.mark.parametrize("count", [1, 3])
def test_the_same_frame_may_come_again(tmp_path, segments, count):
    """Within a segment, in the next one, and after others; nothing that still waits is changed."""
    segments(count)
    source = VideoFile(write(tmp_path / "in.mp4", ramp(60, 64, 48)))
    frames = source.decoded(0, 60)
    order = [*range(60), *[59] * 70, *range(58, -1, -1)]
    with VideoWriter(tmp_path / "out.mp4", 64, 48, Fraction(25), crf=4, colours=source.colours) as writer:
        writer.write_coded(frames[i] for i in order[:100])
        for i in order[100:]:
            writer.write_coded([frames[i]])
    result = VideoFile(tmp_path / "out.mp4")
    assert (result.info.frames, result.info.fps, result.info.notes) == (len(order), 25, ())
    shown, was = result.read(0, len(order)).astype(int), source.read(0, 60)
    assert np.abs(shown - was[order]).mean((1, 2, 3)).max() < 1.5


@pytest.mark.parametrize("count", [1, 4])
def test_sound_lies_beside_its_pictures(tmp_path, segments, count):
    segments(count)
    path = write(tmp_path / "a.mp4", ramp(300, 64, 48), audio=(tone(1, 16000, 12), 16000))
    with av.open(str(path)) as container:
        packets = [p for p in container.demux() if p.size]
        order = sorted(packets, key=lambda packet: packet.pos)
        heard = seen = 0.0
        for packet in order:
            time = float(packet.dts * packet.time_base)
            heard, seen = (heard, time) if packet.stream.type == "video" else (time, seen)
            assert abs(heard - seen) < 1.5


def test_a_broken_off_video_leaves_no_threads_and_no_file(tmp_path, segments):
    segments(3)

    def interrupted() -> None:
        with VideoWriter(tmp_path / "a.mp4", 64, 48, Fraction(25)) as writer:
            writer.write(ramp(130, 64, 48))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
    assert not any(thread.name.startswith("x264") for thread in threading.enumerate())


def test_colours_return_without_a_shift_of_range_or_matrix(tmp_path, astronaut):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (128, 128, 128), (200, 150, 120)]
    flat = np.concatenate([np.full((1, 48, 64, 3), colour, np.uint8) for colour in colours])
    read = VideoFile(write(tmp_path / "flat.mp4", flat, crf=8)).read(0, len(flat))
    assert np.abs(read.astype(int) - flat).max() <= 5
    frames = np.repeat(astronaut[None], 5, 0)
    path = write(tmp_path / "portrait.mp4", frames)
    error = VideoFile(path).read(0, 5).astype(int) - frames
    assert np.abs(error).mean() < 3
    assert np.abs(error.mean((0, 1, 2))).max() < 0.5
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        tags = context.colorspace, context.color_range, context.color_primaries, context.color_trc
        assert (context.pix_fmt, *map(int, tags)) == ("yuv420p", 1, 1, 1, 1)


@pytest.mark.parametrize("width, height", [(33, 21), (64, 21), (33, 48), (1, 1)])
def test_odd_sizes_grow_by_repeating_the_border(tmp_path, width, height):
    frames = ramp(3, width, height)
    with VideoFile(write(tmp_path / "a.mp4", frames, crf=4)) as video:
        assert (video.info.width, video.info.height) == (width + width % 2, height + height % 2)
        assert np.abs(video.read(0, 3)[:, :height, :width].astype(int) - frames).mean() < 6


@pytest.mark.parametrize(
    "channels, rate, expected",
    [
        (1, 8000, (1, 8000)),
        (2, 22050, (2, 22050)),
        (6, 48000, (6, 48000)),
        (3, 44100, (1, 44100)),
        (1, 192000, (1, 48000)),
        (2, 6000, (2, 48000)),
    ],
)
def test_any_sound_is_written(tmp_path, channels, rate, expected):
    path = write(tmp_path / "a.mp4", ramp(25, 16, 16), audio=(tone(channels, rate, 1), rate))
    samples, found = VideoFile(path).audio()
    assert (len(samples), found) == expected
    assert samples.shape[1] == found
    level = np.sqrt((samples[0, found // 4 : found // 2] ** 2).mean())
    assert level > 0.1


def test_the_file_appears_complete_or_not_at_all(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"earlier")

    def interrupted() -> None:
        with VideoWriter(path, 16, 16, Fraction(25)) as writer:
            writer.write(ramp(5, 16, 16))
            assert path.read_bytes() == b"earlier"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    with pytest.raises(ValueError, match="No frame"):
        write(path, np.zeros((0, 16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=r"uint8 frames \[n, 16, 16, 3\]"):
        write(path, np.zeros((1, 16, 16, 3), np.float32))
    assert path.read_bytes() == b"earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    write(path, ramp(2, 16, 16))
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert VideoFile(path).info.frames == 2


def test_nonsense_is_refused(tmp_path):
    with pytest.raises(ValueError, match="0 x 16"):
        VideoWriter(tmp_path / "a.mp4", 0, 16, Fraction(25))
    with pytest.raises(ValueError, match="16384"):
        VideoWriter(tmp_path / "a.mp4", 17000, 16, Fraction(25))
    with pytest.raises(ValueError, match=r"\[0, 100\]"):
        VideoWriter(tmp_path / "a.mp4", 16, 16, Fraction(25), (np.zeros((0, 100), np.float32), 48000))
    with pytest.raises(ValueError, match=r"\[2, 1, 5\]"):
        VideoWriter(tmp_path / "a.mp4", 16, 16, Fraction(25), (np.zeros((2, 1, 5), np.float32), 48000))
    with pytest.raises(OSError):
        VideoWriter(tmp_path / "missing" / "a.mp4", 16, 16, Fraction(25))
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_to_is_refused_at_once(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="results is a folder"):
        VideoWriter(folder, 16, 16, Fraction(25))
    with pytest.raises(OSError, match=r"x{256}\.mp4 cannot be written \(.+\)\. Choose another place"):
        VideoWriter(folder / f"{'x' * 256}.mp4", 16, 16, Fraction(25))
    with pytest.raises(FileNotFoundError, match="no folder .*missing"):
        VideoWriter(tmp_path / "missing" / "a.mp4", 16, 16, Fraction(25))
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="no folder .*file"):
        VideoWriter(tmp_path / "file" / "a.mp4", 16, 16, Fraction(25))

    def locked(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.touch", locked)  # who runs the tests may be allowed everything
    with pytest.raises(PermissionError, match=r"a\.mp4 cannot be written \(Permission denied\).*allow writing there"):
        VideoWriter(folder / "a.mp4", 16, 16, Fraction(25))
    assert [path.name for path in folder.iterdir()] == []


def test_the_file_is_begun_hidden_and_beside_the_result(tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 16, 16, Fraction(25)) as writer:
        (begun,) = tmp_path.iterdir()  # before the first frame
        assert begun.name.startswith(".") and begun.suffix == ".part"
        writer.write(ramp(2, 16, 16))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.skipif(os.name == "nt", reason="Windows allows few of these")
@pytest.mark.parametrize("name", [f"{'x' * 251}.mp4", "Take: 1.mp4", "concat:a|b.mp4", "Day: 2/100%d #1?.mp4"])
def test_any_name_a_file_may_have(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    write(name, ramp(2, 16, 16))
    assert VideoFile(tmp_path / name).info.frames == 2

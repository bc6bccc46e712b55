from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.video import VideoFile, probe, read_audio
from models.video_index import choose_rate
from models.video_writer import VideoWriter

av = pytest.importorskip("av")
MS = Fraction(1, 1000)


def numbered(frames: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Frames whose grey level tells their number, brighter at the top left corner."""
    result = np.zeros((frames, height, width, 3), np.uint8)
    result[:] = (20 + 4 * (np.arange(frames) % 50))[:, None, None, None]
    result[:, : height // 2, : width // 2] += 30
    return result


def numbers(frames: np.ndarray) -> list[int]:
    """What `numbered` wrote, modulo 50."""
    return np.round((frames[:, -8:, -8:].mean((1, 2, 3)) - 20) / 4).astype(int).tolist()


def encode(path, frames, times=None, base=Fraction(1, 25), codec="libx264", options=None, **settings):
    """A file made with PyAV alone, with any time stamps."""
    with av.open(str(path), "w", **settings) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = base
        for time, frame in zip(times or range(len(frames)), frames, strict=False):
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            picture.pts, picture.time_base = time, base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def sound_file(path, samples: np.ndarray, rate: int, codec: str, layout: str, sample_format: str):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples, sample_format, layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def grey(frame) -> np.ndarray:
    return frame.reformat(160, 90, "gray").to_ndarray().astype(float)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """120 frames with B-frames, five groups of pictures, and a sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    options = {"crf": "10", "bf": "3", "g": "25", "sc_threshold": "0"}
    return encode(path, numbered(120), options=options)


def test_every_frame_once_and_in_order(clip):
    with VideoFile(clip) as video:
        assert video.info == probe(clip)
        assert (video.info.frames, video.info.fps) == (120, 25)
        assert video.info.duration == Fraction(120, 25)
        assert video.info.audio_rate is None
        assert video.audio() is None
        parts = list(video.chunks(16))
    assert [len(part) for part in parts] == [16] * 7 + [8]
    assert all(part.dtype == np.uint8 and part.shape[1:] == (48, 64, 3) for part in parts)
    assert numbers(np.concatenate(parts)) == [i % 50 for i in range(120)]


def test_random_access_equals_reading_in_order(clip):
    video = VideoFile(clip)
    whole = np.concatenate(list(video.chunks(32)))
    generator = np.random.default_rng(0)
    for start in [119, 0, 1, 25, 24, 26, *generator.integers(0, 119, 20)]:
        stop = min(120, start + int(generator.integers(1, 30)))
        assert np.array_equal(video.read(start, stop), whole[start:stop]), (start, stop)
    for start in range(100, 0, -10):  # backwards, as `bounce` reads
        assert np.array_equal(video.read(start, start + 10), whole[start : start + 10])
    with pytest.raises(IndexError, match="0 to 119"):
        video.read(110, 121)


def test_a_draft_has_the_same_frames_in_nearly_the_same_colours(clip):
    video = VideoFile(clip)
    fine, draft = video.read(0, 120), video.twin(draft=True).read(0, 120)
    assert numbers(draft) == numbers(fine)
    assert 0 < np.abs(draft.astype(int) - fine).mean() < 2.5
    assert np.array_equal(video.twin(draft=True).twin().read(0, 9), fine[:9])  # a draft's twin is none


def test_frames_are_put_where_they_are_wanted(clip):
    video = VideoFile(clip)
    room = np.zeros((50, 48, 64, 3), np.uint8)
    found = video.read(30, 40, out=room)
    assert np.shares_memory(found, room)
    assert numbers(found) == list(range(30, 40))
    assert not room[10:].any()


def test_no_frame_stays_in_memory_until_python_collects(clip):
    """Nothing but the reader's last ones: circles of references would add up to hundreds of megabytes."""
    video = VideoFile(clip)
    gc.collect()
    before = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    gc.disable()
    try:
        for start in range(0, video.info.frames, 5):
            video.read(start, min(start + 5, video.info.frames))
        alive = sum(type(thing) is av.VideoFrame for thing in gc.get_objects())
    finally:
        gc.enable()
    assert alive - before <= 5


def test_real_clips_random_access_and_counts(shared_data):
    """Key frames far apart, B-frames, 29.97 fps with a late start."""
    for name in ("splitscreen5_720p25", "stage_cuts_360p2997", "woman_1080p30"):
        path = shared_data / "scenes" / f"{name}.mp4"
        video = VideoFile(path)
        with av.open(str(path)) as container:
            plain = [grey(frame) for _, frame in zip(range(70), container.decode(video=0), strict=False)]
        for start in (60, 5, 33):
            for number, frame in enumerate(video.read(start, start + 3), start):
                distance = [np.abs(grey(av.VideoFrame.from_ndarray(frame, "rgb24")) - other).mean() for other in plain]
                assert distance[number] <= min(distance) + 0.05  # still scenes repeat frames


def test_sound_starts_with_the_first_frame(shared_data):
    wavfile = pytest.importorskip("scipy.io.wavfile")
    samples, rate = VideoFile(shared_data / "talking" / "andrewng_01.mp4").audio()
    truth = wavfile.read(shared_data / "talking" / "andrewng_01.wav")[1].astype(np.float32) / 32768
    assert (rate, samples.shape) == (16000, (1, len(truth)))
    match = [
        np.corrcoef(truth[5000:-5000], samples[0, 5000 + lag : len(truth) - 5000 + lag])[0, 1] for lag in (-1, 0, 1)
    ]
    assert int(np.argmax(match)) == 1
    assert match[1] > 0.99
    # The picture begins 0.852 s after the sound: that much of the sound is left out.
    path = shared_data / "scenes" / "stage_cuts_360p2997.mp4"
    samples, rate = VideoFile(path).audio()
    with av.open(str(path)) as container:
        whole = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], 1)
    skipped = round((Fraction(10214, 11988) - Fraction(353, 44100)) * rate)
    assert np.array_equal(samples, whole[:, skipped : skipped + samples.shape[1]])
    found = read_audio(path)
    assert np.array_equal(found[0], samples)


def test_sound_that_begins_late_gets_silence_in_front(tmp_path):
    path, base = tmp_path / "late.mkv", Fraction(1, 1000)
    tone = 0.5 * np.sin(np.arange(16000) / 5).astype(np.float32)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 32
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        for i in range(50):
            picture.pts, picture.time_base = 40 * i, base
            container.mux(video.encode(picture))
        for start in (4000, 16000):  # at 0.25 s, then a hole, then at 1 s
            part = (tone[:8000] * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, start, Fraction(1, 16000)
            container.mux(audio.encode(frame))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    samples, rate = VideoFile(path).audio()
    assert (rate, samples.shape) == (16000, (1, 24000))
    expected = np.concatenate([np.zeros(4000), tone[:8000], np.zeros(4000), tone[:8000]])
    assert np.abs(samples[0] - expected).max() < 1e-3


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_of_phones_is_applied(tmp_path, degrees):
    """A phone writes how far the picture has to be turned into the track header's matrix."""
    data = bytearray(encode(tmp_path / "plain.mp4", numbered(3), options={"crf": "5"}).read_bytes())
    one = 1 << 16
    cos, sin = [(one, 0), (0, one), (-one, 0), (0, -one)][degrees // 90]
    matrix = np.array([cos, sin, 0, -sin, cos, 0, 0, 0, 1 << 30], ">i4").tobytes()
    at = data.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of header
    data[at : at + 36] = matrix
    video = VideoFile(io.BytesIO(bytes(data)))
    frame = video.read(0, 1)[0]
    upright = np.rot90(numbered(1)[0], -degrees // 90)  # the matrix turns clockwise
    assert frame.shape == upright.shape == (video.info.height, video.info.width, 3)
    assert np.abs(frame.astype(int) - upright).max() < 12


def quarters() -> np.ndarray:
    frame = np.full((48, 64, 3), 40, np.uint8)
    frame[:24, 32:], frame[24:, :32], frame[24:, 32:] = 90, 150, 210
    return frame


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_turned_as_their_exif_says(tmp_path, orientation):
    image = pytest.importorskip("PIL.Image")
    ops = pytest.importorskip("PIL.ImageOps")
    photo = image.fromarray(quarters())
    exif = photo.getexif()
    exif[0x0112] = orientation
    photo.save(tmp_path / "a.jpg", exif=exif, quality=95)
    expected = np.asarray(ops.exif_transpose(image.open(tmp_path / "a.jpg"))).astype(int)
    frame = VideoFile(tmp_path / "a.jpg").read(0, 1)[0]
    assert frame.shape == expected.shape
    assert np.abs(frame - expected).mean() < 4


def test_a_picture_with_a_colour_profile_ends_no_process(tmp_path):
    """PyAV's frames carry such a profile as side data, which it frees twice when it was looked at."""
    image, cms = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageCms")
    profile = cms.ImageCmsProfile(cms.createProfile("sRGB")).tobytes()
    image.fromarray(quarters()).save(tmp_path / "a.png", icc_profile=profile)
    program = "import gc, sys; from models.video import VideoFile; VideoFile(sys.argv[1]).read(0, 1); gc.collect()"
    command = [sys.executable, "-c", program, str(tmp_path / "a.png")]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == 0


def test_file_objects_are_shared_and_left_open(clip, tmp_path):
    memory = io.BytesIO(clip.read_bytes())
    video = VideoFile(memory)
    chunks = video.chunks(10)
    assert numbers(next(chunks)) == list(range(10))
    assert numbers(video.read(40, 42)) == [40, 41]  # between two chunks
    assert numbers(next(chunks)) == list(range(10, 20))
    assert not memory.closed
    with clip.open("rb") as file:
        assert VideoFile(file).info.frames == 120


def test_variable_rate_keeps_every_frame_and_says_so(tmp_path):
    times = [0, 40, 80, 120, 500, 540, 580, 1200, 1240, 1280]
    info = probe(encode(tmp_path / "variable.mkv", numbered(10), times, MS))
    assert info.frames == 10
    assert info.fps == Fraction(9 * 1000, 1280)
    assert "variable frame rate" in info.notes[0]
    assert numbers(VideoFile(tmp_path / "variable.mkv").read(0, 10)) == list(range(10))


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, 60])
@pytest.mark.parametrize("base", [MS, Fraction(1, 90000), Fraction(1, 15360)])
def test_rate_is_found_from_rounded_times(rate, base):
    times = np.array([round(i / rate / base) for i in range(int(600 * rate))])
    assert choose_rate(times, base, []) == (rate, True)
    average = Fraction(len(times) - 1) / (int(times[-1]) * base)
    assert choose_rate(times, base, [average.limit_denominator(10000)]) == (rate, True)


def test_other_codecs_and_containers(tmp_path):
    frames = numbered(30)
    for name, codec, options in (
        ("a.avi", "mpeg4", {"qscale": "2", "bf": "2"}),
        ("a.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "10", "arnr-maxframes": "5"}),
        ("a.ts", "libx264", {"g": "10"}),
        ("a.mov", "mjpeg", None),
        ("a.gif", "gif", None),
    ):
        if codec not in av.codecs_available:
            continue
        if codec == "gif":
            with av.open(str(tmp_path / name), "w") as container:
                stream = container.add_stream("gif", rate=25)
                stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb8"
                for i, frame in enumerate(frames):
                    picture = av.VideoFrame.from_ndarray(frame, "rgb24")
                    picture.pts, picture.time_base = i, Fraction(1, 25)
                    container.mux(stream.encode(picture))
                container.mux(stream.encode(None))
        else:
            encode(tmp_path / name, frames, codec=codec, options=options)
        video = VideoFile(tmp_path / name)
        assert (video.info.frames, video.info.fps) == (30, 25), name
        whole = np.concatenate(list(video.chunks(7)))
        assert len(whole) == 30
        assert np.array_equal(video.read(21, 24), whole[21:24]), name
        assert np.array_equal(video.read(3, 5), whole[3:5]), name


def test_pictures_are_videos_of_one_frame(tmp_path, astronaut):
    cv2 = pytest.importorskip("cv2")
    for suffix in ("png", "jpg", "webp", "bmp"):
        path = tmp_path / f"a.{suffix}"
        cv2.imwrite(str(path), astronaut[..., ::-1])
        video = VideoFile(path)
        assert video.info.frames == 1
        assert np.abs(video.read(0, 1)[0].astype(int) - astronaut).mean() < 4, suffix


def test_one_frame_and_odd_sizes(tmp_path):
    with VideoWriter(tmp_path / "one.mp4", 33, 21, Fraction(30000, 1001)) as writer:
        writer.write(numbered(1, 33, 21))
    info = probe(tmp_path / "one.mp4")
    assert (info.frames, info.width, info.height) == (1, 34, 22)
    assert info.fps == Fraction(30000, 1001)


def test_damaged_and_foreign_files_give_one_clear_error(tmp_path, clip):
    data = clip.read_bytes()
    bad = tmp_path / "bad.mp4"
    for content in (b"", b"not a video at all" * 100, data[: len(data) // 2], bytes(5000)):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match="bad.mp4.*(re-encode|Choose)"):
            VideoFile(bad)
    with pytest.raises(FileNotFoundError, match=r"gone.mp4"):
        VideoFile(tmp_path / "gone.mp4")
    with pytest.raises(ValueError, match="the file in memory"):
        VideoFile(io.BytesIO(b"nothing"))
    song = sound_file(tmp_path / "song.wav", np.zeros((1, 1600), np.int16), 16000, "pcm_s16le", "mono", "s16")
    with pytest.raises(ValueError, match="song.wav holds no video"):
        VideoFile(song)


def test_a_file_cut_off_in_the_middle_is_noticed(tmp_path):
    whole = tmp_path / "whole.mp4"
    with VideoWriter(whole, 64, 48, Fraction(25)) as writer:  # index in front, as on the web
        writer.write(np.random.default_rng(0).integers(0, 255, (60, 48, 64, 3)).astype(np.uint8))
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: os.path.getsize(whole) * 6 // 10])
    video = VideoFile(cut)
    assert video.info.frames < 60
    assert "announces 60 frames" in video.info.notes[0]
    with pytest.raises(ValueError, match=r"cut.mp4 cannot be decoded past frame \d+ of \d+.*re-encode"):
        list(video.chunks(16))  # the last packet is half there


def test_mid_stream_damage_is_an_error_that_names_the_frame(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for position, size in packets[60:64]:
        data[position : position + size] = b"\xff" * size
    video = VideoFile(io.BytesIO(bytes(data)))
    with pytest.raises(ValueError, match=r"past frame \d+ of 120.*damaged"):
        list(video.chunks(16))
    assert numbers(video.read(0, 3)) == [0, 1, 2]  # still usable before the damage


def test_read_audio_of_every_kind(tmp_path, clip):
    noise = np.random.default_rng(0).standard_normal((2, 4410)).clip(-3, 3) / 4
    integers = (noise * 32767).astype(np.int16)
    interleaved = np.ascontiguousarray(integers.T).reshape(1, -1)
    for name, codec in (("a.wav", "pcm_s16le"), ("a.flac", "flac")):
        path = sound_file(tmp_path / name, interleaved, 44100, codec, "stereo", "s16")
        samples, rate = read_audio(path)
        assert rate == 44100
        assert np.abs(samples - integers / 32768).max() < 1e-6
    surround = np.zeros((1, 6 * 800), np.int16)
    samples, rate = read_audio(sound_file(tmp_path / "b.wav", surround, 8000, "pcm_s16le", "5.1", "s16"))
    assert (samples.shape, rate) == ((6, 800), 8000)
    assert read_audio(clip) is None
    with pytest.raises(FileNotFoundError):
        read_audio(tmp_path / "gone.wav")

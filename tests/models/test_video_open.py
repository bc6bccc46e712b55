from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.video import VideoFile, open_audio, read_audio
from tests.models.recordings import RATE, numbered, numbers, record

av = pytest.importorskip("av")


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    return record(tmp_path_factory.mktemp("open") / "a.mov", 20, sound="pcm_s16le")


def renamed(path: Path, codec: bytes, unknown: bytes) -> io.BytesIO:
    """The file with another name of a codec in it."""
    data = path.read_bytes()
    assert data.count(codec) == 1
    return io.BytesIO(data.replace(codec, unknown))


def test_a_video_whose_sound_has_no_decoder_is_read_without(recording):
    file = renamed(recording, b"sowt", b"apac")
    video = VideoFile(file)
    assert (video.info.frames, video.info.audio_rate) == (20, None)
    assert video.audio() is None and video.sound() is None
    assert len(video.info.notes) == 1
    assert "no decoder for the codec apac" in video.info.notes[0] and "AAC" in video.info.notes[0]
    for read in (read_audio, open_audio):
        with pytest.raises(ValueError, match="cannot be decoded here.*apac.*Convert"):
            read(file)


def test_of_two_sounds_the_one_with_a_decoder_is_read(tmp_path):
    with av.open(str(tmp_path / "two.mov"), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        little = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        big = container.add_stream("pcm_s16be", rate=2 * RATE, layout="mono")
        for i in range(25):
            picture = av.VideoFrame.from_ndarray(numbered(25)[i], "rgb24")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            container.mux(video.encode(picture))
            for stream in (little, big):
                part = np.full((1, stream.rate // 25), 8192, np.int16)
                frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
                frame.sample_rate, frame.pts, frame.time_base = stream.rate, i * part.size, Fraction(1, stream.rate)
                container.mux(stream.encode(frame))
        container.mux(video.encode(None))
    file = renamed(tmp_path / "two.mov", b"sowt", b"apac")
    video = VideoFile(file)
    assert video.info.audio_rate == 2 * RATE
    assert "apac" in video.info.notes[0] and "another" in video.info.notes[0]
    for samples, rate in (video.audio(), read_audio(file)):
        assert (samples.shape, rate) == ((1, 2 * RATE), 2 * RATE)
        assert np.allclose(samples, 0.25, atol=1e-3)


def test_a_video_without_decoder_is_named_and_its_sound_can_be_read(recording):
    file = renamed(recording, b"avc1", b"encv")
    with pytest.raises(ValueError, match=r"cannot be decoded here: .*encv.*Re-encode it as H\.264"):
        VideoFile(file)
    assert np.array_equal(read_audio(file)[0], read_audio(recording)[0])


def test_an_animated_webp_is_not_called_damaged(tmp_path):
    image = pytest.importorskip("PIL.Image")
    frames = [image.fromarray(frame) for frame in numbered(4)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:])
    for source in (tmp_path / "a.webp", io.BytesIO((tmp_path / "a.webp").read_bytes())):
        with pytest.raises(ValueError, match="animated WebP.*Convert it to mp4 or GIF"):
            VideoFile(source)
    (tmp_path / "b.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:20])
    with pytest.raises(ValueError, match="damaged"):
        VideoFile(tmp_path / "b.webp")


@pytest.mark.skipif("__import__('os').name == 'nt'", reason="Windows has no such names")
def test_a_relative_name_with_a_colon_is_no_address(recording, tmp_path, monkeypatch):
    (tmp_path / "12:30 clip.mov").write_bytes(recording.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert numbers(VideoFile("12:30 clip.mov").read(0, 20)) == list(range(20))
    assert read_audio("12:30 clip.mov")[1] == RATE

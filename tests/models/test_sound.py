"""A sound read block by block is, sample for sample and column for column, the sound read at once."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from models.audio import driving_windows, load_mel
from models.clock import Clock
from models.resample import resample
from models.sound import Converted, DrivingMel, SoundArray, as_sound, seconds_of, whole
from models.sound_file import decode_sound, open_sound
from models.video import VideoFile, open_audio, read_audio
from models.video_writer import VideoWriter
from tests.models.swapping import speech

av = pytest.importorskip("av")


def heard(seconds: float, rate: int, channels: int) -> np.ndarray:
    """Syllables, pauses and a floor of noise, other ones in each channel; float32 [C, T]."""
    voice = speech(seconds, rate, channels)[0]
    noise = np.random.default_rng(channels).standard_normal(voice.shape) * 0.002
    return ((voice + noise) * np.linspace(0.3, 1, channels)[:, None]).astype(np.float32)


def put(path, samples: np.ndarray, rate: int, codec: str = "pcm_f32le", begins: tuple[int, ...] = (0,)):
    """Write float32 [C, T], in equal parts that begin at those samples."""
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for begin, part in zip(begins, np.array_split(samples, len(begins), 1), strict=True):
            for start in range(0, part.shape[1], 1024):
                block = np.ascontiguousarray(part[:, start : start + 1024])
                packed = codec != "aac"
                block = np.ascontiguousarray(block.T).reshape(1, -1) if packed else block
                frame = av.AudioFrame.from_ndarray(block, "flt" if packed else "fltp", layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, begin + start, Fraction(1, rate)
                container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def in_blocks(source, size: int) -> torch.Tensor:
    return torch.cat([source.read(start, start + size) for start in range(0, source.samples, size)], 1)


@pytest.mark.parametrize("start", [None, Fraction(0), Fraction(-11), Fraction(1, 3), Fraction(3, 4), Fraction(9, 8)])
def test_a_file_in_blocks_is_the_file_at_once(tmp_path, start):
    """Whatever comes first, sound or picture, and whatever is missing in between."""
    path = put(tmp_path / "late.mkv", heard(1, 16000, 2), 16000, "pcm_f32le", (4000, 16000))
    at_once, rate = decode_sound(path, Clock(start))
    source = open_sound(path, Clock(start))
    assert (source.rate, source.channels, source.samples) == (rate, *at_once.shape)
    assert seconds_of(source) == Fraction(at_once.shape[1], rate)
    assert np.array_equal(whole(source)[0], at_once)
    for size in (777, 1024, 10**6):
        assert np.array_equal(in_blocks(source, size).numpy(), at_once)
    other = source.twin()
    for low, high in ((5000, 9000), (5000, 5001), (8999, 9100), (100, 300), (0, 10**9)):  # on, again and back
        assert np.array_equal(source.read(low, high).numpy(), at_once[:, low:high])
        assert np.array_equal(other.read(low // 2, high).numpy(), at_once[:, low // 2 : high])
    assert source.read(source.samples, source.samples + 5).shape == (2, 0)


def test_a_video_s_own_sound_ends_where_the_file_says(tmp_path):
    path = tmp_path / "a.mp4"
    with VideoWriter(path, 16, 16, Fraction(25), (heard(1.3, 44100, 2), 44100)) as writer:
        writer.write(np.zeros((31, 16, 16, 3), np.uint8))
    at_once, rate = VideoFile(path).audio()
    with path.open("rb") as file:
        for source in (VideoFile(path).sound(), VideoFile(file).sound(), open_audio(path), open_audio(file)):
            assert source.samples == at_once.shape[1] == round(31 / Fraction(25) * rate)
            assert np.array_equal(in_blocks(source, 5000).numpy(), at_once)


def test_what_holds_no_sound_or_is_damaged(tmp_path):
    with VideoWriter(tmp_path / "silent.mp4", 16, 16, Fraction(25)) as writer:
        writer.write(np.zeros((2, 16, 16, 3), np.uint8))
    assert VideoFile(tmp_path / "silent.mp4").sound() is open_audio(tmp_path / "silent.mp4") is None
    with pytest.raises(FileNotFoundError):
        open_audio(tmp_path / "gone.wav")
    path = put(tmp_path / "a.wav", heard(2, 16000, 1), 16000)
    source = open_audio(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.wav.*changed"):
        source.read(0, 32000)


CASES = {
    "odd 16 kHz": (16000, 1, 3.00019),
    "stereo 44.1 kHz": (44100, 2, 25.3331),
    "5.1 at 48 kHz": (48000, 6, 11.017),
    "8 kHz": (8000, 1, 2.03),
    "one column": (16000, 1, 0.004),
    "shorter than a spectrum": (44100, 2, 0.017),
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("offset", [0.0, 0.21, -0.333, 40.0, -40.0])
def test_windows_in_chunks_are_those_of_the_whole_sound(kind, offset):
    rate, channels, seconds = CASES[kind]
    samples = heard(seconds, rate, channels)
    driven = DrivingMel(SoundArray(samples, rate), 0.8, offset)
    mel = load_mel(samples, rate)
    for fps, lag, first, chunk in ((Fraction(25), -1, 0, 16), (Fraction(30000, 1001), 0, 7, 9), (Fraction(4), 0, 0, 5)):
        frames = int((seconds + 1) * fps) + 20  # the sound is shorter than the video
        if offset > -seconds:  # the whole cannot be moved past its end
            expected = driving_windows(mel, frames, fps, speech_gate=0.8, offset=offset, lag=lag, first=first)
        else:
            expected = torch.full((frames, 1, 80, 16), -4.0)
        starts = range(0, frames, chunk)
        made = torch.cat([driven.windows(min(chunk, frames - i), fps, lag, first + i) for i in starts])
        assert torch.equal(made, expected)
    assert driven.windows(0, Fraction(25)).shape == (0, 1, 80, 16)


@pytest.mark.parametrize("codec, name", [("pcm_f32le", "a.wav"), ("aac", "a.m4a")])
def test_windows_of_a_file(tmp_path, codec, name):
    path = put(tmp_path / name, heard(13, 44100, 2), 44100, codec)
    driven = DrivingMel(open_audio(path), 1.0, 0.1)
    expected = driving_windows(load_mel(*read_audio(path)), 340, Fraction(25), speech_gate=1.0, offset=0.1, lag=-1)
    made = [driven.windows(17, Fraction(25), -1, first) for first in range(0, 340, 17)]
    assert torch.equal(torch.cat(made), expected)
    assert (expected > -3.9).any()


@pytest.mark.parametrize("rate, target, mono", [(6000, 48000, False), (192000, 48000, True), (44100, 44100, True)])
def test_conversion_in_blocks(rate, target, mono):
    samples = torch.from_numpy(heard(21.7, rate, 2))
    mixed = samples.mean(0, keepdim=True) if mono else samples
    expected = resample(mixed, rate, target)
    made = Converted(SoundArray(samples, rate), target, mono)
    assert (made.rate, made.channels, made.samples) == (target, *expected.shape)
    for source in (made, made.twin()):
        assert torch.equal(in_blocks(source, 100_000), expected)
    assert torch.equal(made.read(target, 2 * target), expected[:, target : 2 * target])  # back


@pytest.mark.parametrize("rate, channels", [(44100, 2), (16000, 1), (6000, 2)])
@pytest.mark.parametrize("frames", [20, 60])  # the sound is cut, or padded
def test_a_file_is_encoded_as_a_sound_in_memory_is(tmp_path, rate, channels, frames):
    path = put(tmp_path / "a.wav", heard(1.517, rate, channels), rate)
    found = []
    for audio in (read_audio(path), open_audio(path)):
        with VideoWriter(tmp_path / "a.mp4", 16, 16, Fraction(25), audio) as writer:
            for _ in range(frames):
                writer.write(np.zeros((1, 16, 16, 3), np.uint8))
        found.append(VideoFile(tmp_path / "a.mp4").audio()[0])
    assert np.array_equal(*found)


def test_a_sound_in_memory_is_not_copied():
    samples = np.array([[0.25, -0.5, 0.125]], np.float32)
    source = as_sound((samples, 16000))
    assert as_sound(source) is source
    samples[0, 0] = 0.75
    assert source.read(0, 2).tolist() == [[0.75, -0.5]]
    assert as_sound((torch.tensor([-32768, 16384], dtype=torch.int16), 8000)).read(0, 9).tolist() == [[-1, 0.5]]
    with pytest.raises(ValueError, match=r"\[2, 1, 5\]"):
        as_sound((np.zeros((2, 1, 5), np.float32), 16000))
    samples[0, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        DrivingMel(source)


def test_hearing_can_be_interrupted():
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        DrivingMel(SoundArray(np.zeros(16000, np.float32), 16000), alive=stop)

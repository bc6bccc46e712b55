from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
import pytest
import torch

from models import h264
from models.audio import load_mel, mel_windows
from models.frames import FrameArray, StillImage
from models.pipeline import SwapOptions, talking_swap
from models.video import VideoFile
from models.video_writer import VideoWriter
from tests.models.swapping import DiscDetector, Painter, clip, embedding, generator, speech

av = pytest.importorskip("av")
pytest.importorskip("cv2")


@pytest.fixture
def swap(tmp_path):
    """Runs the job on a source; returns the report and the result as a VideoFile."""

    def run(source, audio=None, detector=None, progress=None, generator=None, face="r1", **options):
        output = tmp_path / "out.mp4"
        report = talking_swap(
            source,
            audio,
            embedding(face) if face else None,
            output,
            generator=generator or Painter(),
            detector=detector or DiscDetector(),
            options=SwapOptions(**{"colour_match": "off", **options}),
            progress=progress,
        )
        return report, VideoFile(output)

    return run


def middles(frames: np.ndarray) -> np.ndarray:
    """Mean colour of each frame's middle, where the face is: red as it was, green as the painter left it."""
    height, width = frames.shape[1] // 2, frames.shape[2] // 2
    return frames[:, height - 4 : height + 4, width - 4 : width + 4].mean((1, 2))


def painted(video: VideoFile) -> np.ndarray:
    """Which frames show a new face."""
    colours = middles(video.read(0, video.info.frames))
    return colours[:, 1] - colours[:, 0] > 25


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(60)])
def test_a_file_keeps_its_frames_rate_and_sound(swap, tmp_path, fps):
    frames = clip(33)
    with VideoWriter(tmp_path / "in.mp4", 160, 120, fps, speech(3, 44100, 2)) as writer:
        writer.write(frames)
    with VideoFile(tmp_path / "in.mp4") as source:
        report, result = swap(source, source.audio())
    assert report.frames == result.info.frames == 33
    assert result.info.fps == fps
    samples, rate = result.audio()
    assert (len(samples), rate) == (2, 44100)
    assert samples.shape[1] == round(33 / fps * 44100)
    made = result.read(0, 33)
    assert painted(result).all()
    corner = np.abs(made[:, :20, :20].astype(int) - frames[:, :20, :20]).mean()
    assert corner < 4  # the rest was only coded


@pytest.mark.parametrize("matrix, full", [(1, False), (5, False), (None, False), (None, True)])
def test_colours_are_those_of_the_source_whatever_its_matrix(swap, tmp_path, matrix, full):
    frames = clip(12, absent=(3, 4, 5, 6))
    frames[:, :40] = (150, 90, 40)
    with av.open(str(tmp_path / "in.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.color_range = 2 if full else 1
        stream.codec_context.colorspace = matrix or 2
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(frame, "rgb24")
            space = {"dst_colorspace": 1 if matrix == 1 else 5, "dst_color_range": 2 if full else 1}
            container.mux(stream.encode(picture.reformat(format="yuv420p", **space)))
        container.mux(stream.encode(None))
    with VideoFile(tmp_path / "in.mp4") as source:
        assert (source.colours is None) == full  # the long way, by RGB
        _, result = swap(source)
        was = source.read(0, 12)
    made = result.read(0, 12)
    assert painted(result).tolist() == [i not in (3, 4, 5, 6) for i in range(12)]
    assert np.abs(made[:, 4:32, 4:156].astype(int) - was[:, 4:32, 4:156]).mean() < 2
    assert np.abs(made[:, 4:32, 4:156].mean((0, 1, 2)) - (150, 90, 40)).max() < 3


def test_absent_frames_stay_as_they_were_and_indexes_do_not_shift(swap):
    absent = (0, 1, 12, 13, 14, 15, 16, 29)
    frames = clip(30, absent=absent)
    report, result = swap(FrameArray(frames, 25), speech(1.2), chunk=7)
    assert report.track.absent_ranges() == [(0, 1), (12, 16), (29, 29)]
    for piece in ("0-1", "12-16", "29"):
        assert piece in str(report)
    assert np.flatnonzero(~painted(result)).tolist() == list(absent)


def test_chunks_do_not_change_the_result(swap):
    source, sound = FrameArray(clip(20), 25), speech(0.8)
    whole = swap(source, sound, chunk=32)[1].read(0, 20)
    for chunk in (1, 3, 16):
        detector = DiscDetector()
        parts = swap(source, sound, detector, chunk=chunk)[1].read(0, 20)
        assert np.array_equal(parts, whole)
        assert detector.most == min(chunk, 20)


@pytest.mark.parametrize("alone, card", [(False, False), (True, False), (True, True)])
def test_threads_do_not_change_the_result(swap, monkeypatch, alone, card):
    """What depends on order, references and tracks, goes by the order of the frames however many chunks are made."""
    for module in ("pipeline", "face_work"):
        monkeypatch.setattr(f"models.{module}.in_torch", lambda device: card)

    class Mirror(Painter):
        def generate(self, crops, windows, embedding, references=None, progress=None, to=None):
            time.sleep(0.02 * (len(crops) % 2))  # those that begin later may end earlier
            progress(len(crops), len(crops))
            return torch.nn.functional.interpolate(references.float() / 255, (self.px, self.px))

    mirror = Mirror()
    mirror.alone = alone
    source, sound = FrameArray(clip(60, absent=(3, 17, 18, 40)), 25), speech(2.4)
    results = []
    for count in (1, 2, 4):
        for module in ("pipeline", "tracks"):
            monkeypatch.setattr(f"models.{module}.threads", lambda count=count: count)
        detector = DiscDetector()
        detector.shared = True
        report, result = swap(source, sound, detector, generator=mirror, chunk=5)
        results.append((report.track.matrices, result.read(0, 60)))
    assert not np.array_equal(results[0][1], source.read(0, 60))
    for track, frames in results[1:]:
        np.testing.assert_array_equal(track, results[0][0])
        np.testing.assert_array_equal(frames, results[0][1])


@pytest.mark.parametrize("count", [1, 3])
def test_a_failure_in_the_middle_is_told_and_leaves_nothing(swap, monkeypatch, tmp_path, count):
    class Broken(Painter):
        calls = 0

        def generate(self, crops, *others, **named):
            self.calls += 1
            if self.calls == 3:
                raise RuntimeError("the card fell out")
            return super().generate(crops, *others, **named)

    monkeypatch.setattr("models.pipeline.threads", lambda: count)
    with pytest.raises(RuntimeError, match="fell out"):
        swap(FrameArray(clip(40), 25), speech(1.6), generator=Broken(), chunk=4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(50)])
@pytest.mark.parametrize("lag", [0, -1])
def test_every_frame_hears_its_own_moment(swap, fps, lag):
    painter = Painter()
    painter.mel_lag = lag
    sound = speech(2, 44100)
    count = round(2 * fps)
    _, result = swap(FrameArray(clip(count), fps), sound, generator=painter, chunk=9)
    windows = mel_windows(load_mel(*sound).values.T, count, fps, lag)
    expected = 255 * Painter.greens(windows).numpy()
    found = middles(result.read(0, count))[:, 1]
    inside = slice(0, count - round(fps / 5) - 1)  # windows past the end hear silence in the pipeline
    assert np.corrcoef(found[inside], expected[inside])[0, 1] > 0.99
    assert np.abs(found - expected)[inside].max() < 6


def test_lips_can_be_moved_and_rest_where_nobody_speaks(swap):
    source, sound = FrameArray(clip(30), 25), speech(1.2)
    base, later = (middles(swap(source, sound, audio_offset=o)[1].read(0, 30))[:, 1] for o in (0.0, 0.2))
    assert np.abs(later[5:25] - base[:20]).mean() < 3
    hum = (0.02 * np.random.default_rng(0).standard_normal((1, 19200)).astype(np.float32), 16000)
    humming, gated = (middles(swap(source, hum, speech_gate=gate)[1].read(0, 30))[:, 1] for gate in (0.0, 1.0))
    assert humming.min() > 70
    assert gated.max() < 60  # 0.2 of 255


def test_a_real_network(swap):
    source, network = FrameArray(clip(8), 25), generator()
    report, result = swap(source, speech(0.32), generator=network)
    assert report.frames == result.info.frames == 8
    assert np.abs(middles(result.read(0, 8)) - middles(source.read(0, 8))).max() > 3


def test_what_the_sound_did_is_reported(swap):
    """A model that does not hear leaves the lips as they are, be there sound or not."""
    source, deaf = FrameArray(clip(8), 25), Painter()
    deaf.hears = False
    assert "does not hear" not in str(swap(source, speech(0.32))[0])
    assert "the lips rest and the result has no audio track" in str(swap(source)[0])
    assert "does not hear: the lips stay the target's" in str(swap(source, speech(0.32), generator=deaf)[0])
    report = str(swap(source, generator=deaf)[0])
    assert "No sound: the result has no audio track" in report
    assert "the lips rest" not in report


def test_without_a_source_the_face_stays_the_targets_own(swap):
    network, detector = generator(), DiscDetector()
    with pytest.raises(ValueError, match="no source identity"):
        swap(FrameArray(clip(8), 25), speech(0.32), generator=network, detector=detector, face=None)
    assert detector.seen == 0  # before any long work
    network = generator(skips="adain", keep=True)
    report, result = swap(FrameArray(clip(8), 25), speech(0.32), generator=network, face=None)
    assert report.frames == result.info.frames == 8
    assert "No source identity" in str(report)


@pytest.mark.parametrize("policy, frames", [("pad", 10), ("cut", 10), ("loop", 25), ("bounce", 25), ("hold", 25)])
def test_length_policies(swap, policy, frames):
    source, detector = clip(10, absent=(0,)), DiscDetector()
    report, result = swap(FrameArray(source, 25), speech(1), detector, length=policy, chunk=8)
    assert result.info.frames == report.frames == frames
    assert detector.seen == 10  # each source frame once, however often it is shown
    assert policy in str(report)
    order = {"loop": np.arange(25) % 10, "bounce": 9 - np.abs(9 - np.arange(25) % 18)}.get(policy, np.arange(frames))
    order = np.minimum(order, 9)
    assert np.array_equal(painted(result), order != 0)
    assert result.audio()[0].shape[1] == 640 * frames


@pytest.mark.parametrize("policy", ["hold", "bounce", "loop"])
def test_frames_without_a_face_that_come_again_are_written_in_segments(swap, tmp_path, monkeypatch, policy):
    monkeypatch.setattr("models.h264.plan", lambda width, height: h264.Plan(2, 1))
    with VideoWriter(tmp_path / "in.mp4", 160, 120, Fraction(25)) as writer:
        writer.write(clip(60, absent=(*range(10), *range(40, 60))))
    _, result = swap(VideoFile(tmp_path / "in.mp4"), speech(6), length=policy)
    assert (result.info.frames, result.info.fps, result.info.notes) == (150, 25, ())
    i = np.arange(150)
    order = {"hold": np.minimum(i, 59), "bounce": 59 - np.abs(59 - i % 118), "loop": i % 60}[policy]
    assert np.array_equal(painted(result), (order >= 10) & (order < 40))


def test_video_longer_than_the_sound_can_be_cut(swap):
    detector = DiscDetector()
    report, result = swap(FrameArray(clip(30), 25), speech(0.4), detector, length="cut")
    assert report.frames == result.info.frames == 10
    assert detector.seen == 10  # nothing is looked at that will not be shown


def test_a_still_portrait_talks(swap):
    detector = DiscDetector()
    report, result = swap(StillImage(clip(1)[0], 25, Fraction(25)), speech(1), detector)
    assert report.frames == result.info.frames == 25
    assert detector.seen == 1
    assert painted(result).all()
    assert np.ptp(middles(result.read(0, 25))[:, 1]) > 20  # louder and quieter


def test_no_sound_no_face_and_other_input(swap, tmp_path):
    report, result = swap(FrameArray(clip(5), 25), None)
    assert result.info.audio_rate is None
    assert "No sound" in str(report)
    report, result = swap(FrameArray(clip(5), 25), (np.zeros((1, 0), np.float32), 16000))
    assert result.info.audio_rate is None
    with pytest.raises(ValueError, match=r"disc.*0\.5"):
        swap(FrameArray(clip(5, absent=tuple(range(5))), 25), speech(0.2))
    with pytest.raises(ValueError, match="NaN"):
        swap(FrameArray(clip(5), 25), (np.full((1, 100), np.nan, np.float32), 16000))
    detector = DiscDetector()
    with pytest.raises(ValueError, match="r2.*r1"):
        talking_swap(
            FrameArray(clip(5), 25), None, embedding("r2"), tmp_path / "x.mp4", generator=Painter(), detector=detector
        )
    with pytest.raises(FileNotFoundError, match="no folder"):
        talking_swap(
            FrameArray(clip(5), 25), None, embedding(), tmp_path / "y" / "x.mp4", generator=Painter(), detector=detector
        )
    assert detector.seen == 0  # both are noticed before the long work


@pytest.mark.parametrize(
    "name, value, words",
    [
        ("smoothing", 1.5, "smoothing is 1.5; choose a number from 0 to 1"),
        ("smoothing", float("nan"), "smoothing is nan"),
        ("feather", -1, "feather is -1; choose a number from 0 to 0.5"),
        ("feather", float("nan"), "feather is nan"),
        ("speech_gate", 7, "speech_gate is 7"),
        ("audio_offset", float("inf"), "audio_offset is inf; give seconds"),
        ("colour_match", "rgb", "colour_match is 'rgb'; choose one of off, lab"),
        ("length", "longest", "length is 'longest'; choose one of pad"),
    ],
)
def test_options_that_make_no_sense_are_refused(name, value, words):
    with pytest.raises(ValueError, match=words):
        SwapOptions(**{name: value})


@pytest.mark.parametrize(
    "sound", [speech(0.5, 8000), speech(0.5, 48000, 6), speech(0.5, 192000)], ids=["8 kHz", "5.1", "192 kHz"]
)
def test_sounds_of_other_kinds(swap, sound):
    report, result = swap(FrameArray(clip(13), 25), sound)
    assert report.frames == 13
    assert len(result.audio()[0]) == len(sound[0])


@pytest.mark.parametrize("width, height", [(161, 121), (160, 121)])
@pytest.mark.parametrize("channels", [1, 4])
def test_odd_sizes_and_other_channels(swap, width, height, channels):
    frames = clip(3, width, height)
    given = frames[..., :1] if channels == 1 else np.concatenate([frames, frames[..., :1]], -1)
    if channels == 1:
        with pytest.raises(ValueError, match="No face"):  # the disc is not red any more
            swap(FrameArray(given, 25))
        return
    report, result = swap(FrameArray(given, 25))
    assert (result.info.width, result.info.height) == (width + width % 2, height + height % 2)


def test_one_frame(swap):
    report, result = swap(FrameArray(clip(1), 25), speech(0.04))
    assert report.frames == result.info.frames == 1


def test_progress_counts_both_passes_and_may_interrupt(swap, tmp_path):
    source, seen = FrameArray(clip(40), 25), []
    swap(source, speech(1.6), progress=lambda done, total: seen.append((done, total)), chunk=16)
    assert seen == sorted(seen)  # a sign of life comes from in between as well
    assert list(dict.fromkeys(seen)) == [(done, 80) for done in (0, 16, 32, 40, 56, 72, 80)]
    (tmp_path / "out.mp4").unlink()
    for limit in (0, 16, 56):  # while the sound is heard, too

        def stop(done: int, total: int, limit: int = limit) -> None:
            if done >= limit:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            swap(source, speech(1.6), progress=stop, chunk=16)
        assert list(tmp_path.iterdir()) == []


def test_no_frame_of_a_shot_is_its_own_reference(swap):
    """Not even the first ones, and no frame sees another shot."""
    shown = []

    def compared(crops, references):
        return (crops - references).abs().amax((1, 2, 3)), references.mean((1, 2, 3))

    class Watched(Painter):
        alone = True  # in the order of the frames

        def generate(self, crops, windows, embedding, references=None, progress=None, to=None):
            shown.extend(zip(*compared(crops.float() / 255, references.float() / 255), strict=True))
            return super().generate(crops, windows, embedding, references, progress, to)

    frames = clip(40)
    frames[25:] = 255 - frames[25:]  # a cut: what was dark is bright, the face blue
    frames[25:, ..., 0], frames[25:, ..., 2] = frames[25:, ..., 2].copy(), frames[25:, ..., 0].copy()

    class Both(DiscDetector):
        def _one(self, frame):
            return super()._one(frame if frame[0, 0, 0] < 128 else 255 - frame[..., ::-1])

    report, _ = swap(FrameArray(frames, 25), speech(1.6), Both(), generator=Watched())
    assert report.track.cuts == (25,)
    assert len(shown) == 40
    assert all(difference > 0.02 for difference, _ in shown)
    assert all((level < 0.5) == (frame < 25) for frame, (_, level) in enumerate(shown))


def test_a_soft_result_is_announced(swap):
    large = np.repeat(np.repeat(clip(2), 6, 1), 6, 2)

    class Large(DiscDetector):
        def detect(self, frames):
            found = super().detect(frames[:, ::6, ::6])
            return [[type(f)(f.box * 6, f.score, f.landmarks * 6) for f in faces] for faces in found]

    report, _ = swap(FrameArray(large, 25), None, Large())
    assert "softer" in str(report)
    report, _ = swap(FrameArray(clip(2), 25), None, generator=generator())
    assert "softer" not in str(report)

"""What files say about the shape and the colours of their pictures, and what becomes of it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from models import h264
from models.colours import Colours
from models.pipeline import SwapOptions, talking_swap
from models.video import VideoFile
from tests.models.swapping import DiscDetector, Painter, clip, embedding

av = pytest.importorskip("av")
pytest.importorskip("cv2")

PATCH = (150, 90, 40)  # a colour that each matrix would show differently
WIDE = {9: 9, 1: 1}  # swscale's matrices by H.273's; all others are BT.601


def made(path, form="yuv420p", tags=(2, 2, 2), aspect=None, turned=0, codec="libx264", frames=3, options=None):
    """A clip with a face, whose upper third is `PATCH`; tags are matrix, primaries and transfer."""
    pictures = clip(frames)
    pictures[:, :40] = PATCH
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, form
        context = stream.codec_context
        context.colorspace, context.color_primaries, context.color_trc, context.color_range = *tags, 1
        if aspect is not None:
            context.sample_aspect_ratio = aspect
        if turned:
            if not hasattr(stream, "set_display_rotation"):
                pytest.skip("this PyAV cannot write turned video")
            stream.set_display_rotation(turned)
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            container.mux(stream.encode(frame.reformat(format=form, dst_colorspace=WIDE.get(tags[0], 5))))
        container.mux(stream.encode(None))
    return VideoFile(path)


def swapped(source, path):
    """The job's result and its report."""
    report = talking_swap(
        source,
        None,
        embedding(),
        path,
        generator=Painter(),
        detector=DiscDetector(),
        options=SwapOptions(colour_match="off"),
    )
    return VideoFile(path), str(report)


def said(path) -> tuple:
    """Matrix, primaries, transfer, range and shape of pixels, straight from the file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        next(container.decode(stream))
        context = stream.codec_context
        colours = context.colorspace, context.color_primaries, context.color_trc, context.color_range
        return *map(int, colours), stream.sample_aspect_ratio, context.sample_aspect_ratio


@pytest.mark.parametrize(
    "form, tags, kept",
    [
        ("yuv420p", (1, 2, 2), (1, 2, 2)),  # as decoded
        ("yuv420p", (5, 5, 6), (5, 5, 6)),
        ("yuv444p", (2, 2, 2), (1, 1, 1)),  # by RGB
        ("yuv444p", (1, 1, 1), (1, 1, 1)),
        ("yuv444p", (5, 5, 6), (1, 1, 1)),
        ("yuv444p", (1, 1, 13), (1, 1, 1)),
        ("yuv444p", (1, 12, 1), (1, 12, 1)),  # Display P3
        ("yuv444p", (1, 12, 13), (1, 12, 13)),
        ("yuv420p10le", (9, 9, 14), (9, 9, 14)),  # BT.2020
        ("yuv420p10le", (9, 9, 16), (9, 9, 16)),  # PQ
        ("yuv420p10le", (9, 9, 18), (9, 9, 18)),  # HLG
        ("yuv444p", (1, 9, 18), (9, 9, 18)),
    ],
)
def test_numbers_and_what_they_mean_stay_together(tmp_path, form, tags, kept):
    source = made(tmp_path / "in.mp4", form, tags)
    result, report = swapped(source, tmp_path / "out.mp4")
    assert said(tmp_path / "out.mp4") == (*kept, 1, None, None)
    assert source.info.tags == Colours(*kept)
    for video in (source, result):
        assert np.abs(video.read(0, 3)[:, 4:32, 4:156].mean((0, 1, 2)) - PATCH).max() < 2
    with av.open(str(tmp_path / "out.mp4")) as container:  # not by swscale
        luma = next(container.decode(video=0)).to_ndarray()[4:32, 4:156].mean()
    weights = {9: (0.2627, 0.6780, 0.0593), 1: (0.2126, 0.7152, 0.0722)}.get(kept[0], (0.299, 0.587, 0.114))
    assert abs(luma - (16 + 219 / 255 * np.dot(weights, PATCH))) < 1.5
    assert ("is HDR" in report) == (tags[2] in (16, 18))


@pytest.mark.parametrize("form, count", [("yuv420p", 1), ("yuv420p", 3), ("yuv444p", 1)])
@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(8, 9), Fraction(1), None])
def test_pixels_keep_their_shape(tmp_path, monkeypatch, form, count, aspect):
    monkeypatch.setattr("models.h264.plan", lambda width, height: h264.Plan(count, 1))
    source = made(tmp_path / "in.mp4", form, aspect=aspect, frames=60 if count > 1 else 3)
    assert source.info.aspect == (aspect or 1)
    result, _ = swapped(source, tmp_path / "out.mp4")
    assert result.info.aspect == source.info.aspect
    assert said(tmp_path / "out.mp4")[4:] == ((None, None) if aspect in (1, None) else (aspect, aspect))


@pytest.mark.parametrize("turned, expected", [(90, Fraction(3, 4)), (180, Fraction(4, 3)), (-90, Fraction(3, 4))])
def test_pixels_turn_with_the_picture(tmp_path, turned, expected):
    source = made(tmp_path / "in.mp4", aspect=Fraction(4, 3), turned=turned)
    assert source.info.aspect == expected
    result, _ = swapped(source, tmp_path / "out.mp4")
    assert (result.info.width, result.info.height) == (source.info.width, source.info.height)
    assert result.info.aspect == expected


def test_interlaced_video_is_told(tmp_path):
    options = {"flags": "+ildct+ilme", "qscale": "2"}
    source = made(tmp_path / "in.mpg", codec="mpeg2video", options=options)
    assert "interlaced" in swapped(source, tmp_path / "out.mp4")[1]
    assert made(tmp_path / "plain.mp4").info.notes == ()

"""Frames as decoded, and rectangles out of them and back."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from models import coded
from models.coded import copied
from models.colours import Colours, to_rgb
from models.face_track import FaceTrack
from models.frames import FrameArray
from models.geometry import crop_matrices, invert, warp_crops
from models.pictures import CodedPictures, RgbPictures, _reformatted, area_of, face_windows
from models.video import VideoFile
from models.video_writer import VideoWriter
from tests.models.swapping import clip

av = pytest.importorskip("av")

AREA = (slice(20, 96), slice(34, 130))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Six frames of 160 x 120 px with colours and edges everywhere."""
    path = tmp_path_factory.mktemp("video") / "a.mp4"
    noise = np.random.default_rng(0).integers(0, 60, (6, 120, 160, 3), np.uint8)
    with VideoWriter(path, 160, 120, Fraction(25), crf=4) as writer:
        writer.write(clip(6) // 2 + noise)
    return VideoFile(path)


def as_decoded(video: VideoFile) -> CodedPictures:
    return CodedPictures(video.twin().decoded(0, 6), video.colours)


def planes(frame) -> list[np.ndarray]:
    return [plane.copy() for plane in coded.planes(frame)]


def same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("area", [AREA, (slice(0, 120), slice(0, 160)), (slice(0, 50), slice(100, 160))])
def test_a_window_is_that_part_of_the_converted_frame(video, area):
    frames, rows = as_decoded(video), np.array([4, 0, 1])
    windows = frames.windows(rows, area)
    whole = [_reformatted(copied(frames.frames[row]), "rgb24", **to_rgb(1)).to_ndarray()[area] for row in rows]
    assert windows.dtype == np.uint8
    inside = (slice(None), slice(4, -4), slice(4, -4))  # at its border colour is interpolated from what it has
    assert np.array_equal(windows[inside], np.stack(whole)[inside])
    if area[0] == slice(0, 120):
        assert np.array_equal(windows, np.stack(whole))  # no window touches the next one
    read = np.stack([video.read(row, row + 1)[0][area] for row in rows])
    assert np.abs(windows.astype(int) - read).mean() < 1.5  # which side of a pixel colour sits on


def test_only_what_changed_is_put_back_and_only_there(video):
    frames = as_decoded(video)
    before = [planes(frame) for frame in frames.frames]
    decoded = list(frames.frames)
    rows = np.array([1, 3])
    windows = frames.windows(rows, AREA)
    made = windows.copy()
    made[0, 10:30, 20:50] = (20, 200, 40)
    frames.put(rows, AREA, windows, made)
    assert same(planes(decoded[1]), before[1])  # the decoder may still need it
    for i in (0, 2, 3, 4, 5):
        assert same(planes(frames.frames[i]), before[i])
    luma, *colour = planes(frames.frames[1])
    y, x = np.nonzero(luma != before[1][0])
    assert (y.min(), y.max(), x.min(), x.max()) == (30, 49, 54, 83)
    for plane, old in zip(colour, before[1][1:], strict=True):
        y, x = np.nonzero(plane != old)
        assert (y.min(), y.max(), x.min(), x.max()) == (15, 24, 27, 41)
    again = frames.windows(rows, AREA)
    assert np.abs(again[0, 14:26, 24:46].astype(int) - (20, 200, 40)).max() <= 5  # rounded there and back


def test_the_same_frame_twice_gets_two_faces(video):
    frames = as_decoded(video)
    frames.frames[1] = frames.frames[0]  # a video that is held, or runs back
    rows = np.array([0, 1])
    windows = frames.windows(rows, AREA)
    made = windows.copy()
    made[0, 20:40, 20:40], made[1, 20:40, 20:40] = 0, 255
    frames.put(rows, AREA, windows, made)
    dark, bright = (planes(frame)[0][45:55, 60:70].mean() for frame in frames.frames[:2])
    assert dark < 20 and bright > 230


def test_rgb_frames_are_replaced_and_never_written_to():
    source = clip(3)
    kept = source.copy()
    frames = RgbPictures(list(source))
    windows = frames.windows(np.array([2]), AREA)
    assert np.array_equal(windows[0], source[2][AREA])
    frames.put(np.array([2]), AREA, windows, np.zeros_like(windows))
    assert np.array_equal(source, kept)
    assert not frames.frames[2][AREA].any()
    assert np.array_equal(frames.frames[2][:20], kept[2][:20])


@pytest.mark.parametrize("width, height", [(160, 120), (161, 121), (1, 1), (2, 3)])
def test_an_area_holds_its_crops_and_lies_in_the_frame(width, height):
    random = np.random.default_rng(0)
    for _ in range(200):
        points = random.normal(0, 12, (3, 5, 2)) + random.uniform(-40, 200, 2)
        matrices = crop_matrices(points)
        rows, columns = area_of(matrices, width, height)
        assert 0 <= rows.start < rows.stop <= height and 0 <= columns.start < columns.stop <= width
        assert rows.start % 2 == columns.start % 2 == 0
        assert rows.stop % 2 == 0 or rows.stop == height
        back = invert(matrices)
        for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
            corner = back[:, :, :2] @ (x, y) + back[:, :, 2]
            assert (np.clip(corner, 0, (width, height)) >= (columns.start, rows.start)).all() or min(width, height) < 4
            assert (np.clip(corner, 0, (width, height)) <= (columns.stop, rows.stop)).all() or min(width, height) < 4


def test_crops_of_a_window_are_those_of_the_frame():
    frames = clip(6)
    points = np.array([(60, 50), (90, 50), (75, 65), (63, 80), (87, 80)], float)
    moving = points + np.arange(6)[:, None, None] * (3, -12)  # leaves the frame at the top
    present = np.array([True, False, True, True, True, True])
    track = FaceTrack(
        present, crop_matrices(moving), np.float32(moving), np.ones(6, np.float32), (160, 120), Fraction(25)
    )
    numbers = np.array([5, 4, 3, 2, 1, 0])
    found = face_windows(RgbPictures([frames[i] for i in numbers]), track, numbers)
    assert found is not None
    assert found.rows.tolist() == [0, 1, 2, 3, 5] and found.numbers.tolist() == [5, 4, 3, 2, 0]
    assert len(found.frames) == len(found.track) == 5
    whole = warp_crops(frames[found.numbers], track.matrices[found.numbers], 64)
    part = warp_crops(found.frames, found.track.matrices, 64)
    assert np.abs(whole.astype(int) - part).max() <= 2  # rounding of coordinates
    nobody = replace(track, present=np.zeros(6, bool))
    assert face_windows(RgbPictures(list(frames)), nobody, numbers) is None


def test_sources_in_memory_have_rgb():
    source = FrameArray(clip(3), 25)
    assert source.colours is None
    assert np.array_equal(source.decoded(1, 3), clip(3)[1:])


def encoded(path, width=64, height=48, pix_fmt="yuv420p", matrix=None, full=False):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        if matrix:
            context.colorspace = matrix
        context.color_range = 2 if full else 1
        for _ in range(3):
            picture = av.VideoFrame.from_ndarray(np.full((height, width, 3), (200, 90, 40), np.uint8), "rgb24")
            space = {"dst_colorspace": 1 if matrix == 1 else 5, "dst_color_range": 2 if full else 1}
            container.mux(stream.encode(picture.reformat(format=pix_fmt, **space)))
        container.mux(stream.encode(None))
    return VideoFile(path)


def test_colours_are_those_of_the_file(tmp_path):
    assert encoded(tmp_path / "a.mp4", matrix=1).colours == Colours(1, 2, 2)
    assert encoded(tmp_path / "b.mp4", matrix=5).colours == Colours(5, 2, 2)
    assert encoded(tmp_path / "c.mp4").colours == Colours(6, 2, 2)  # nothing said, and small
    assert encoded(tmp_path / "d.mp4", width=64, height=720).colours == Colours(1, 2, 2)
    assert encoded(tmp_path / "e.mp4", matrix=9).colours is None
    assert encoded(tmp_path / "f.mp4", full=True).colours is None
    assert encoded(tmp_path / "g.mp4", pix_fmt="yuv444p").colours is None


@pytest.mark.parametrize("matrix", [1, 5, None])
def test_what_is_written_as_decoded_shows_the_same_colours(tmp_path, matrix):
    source = encoded(tmp_path / "in.mp4", matrix=matrix)
    with VideoWriter(tmp_path / "out.mp4", 64, 48, Fraction(25), crf=4, colours=source.colours) as writer:
        CodedPictures(source.decoded(0, 3), source.colours).write(writer)
        with pytest.raises(ValueError, match="yuv420p of 64 x 48"):
            writer.write_coded([av.VideoFrame(32, 48, "yuv420p")])
    result = VideoFile(tmp_path / "out.mp4")
    assert result.colours == source.colours
    assert np.abs(result.read(0, 3).astype(int) - source.read(0, 3)).max() <= 1
    assert np.abs(result.read(0, 3).astype(int) - (200, 90, 40)).max() <= 3


@pytest.mark.parametrize("later", [{"width": 32}, {"full": True}, {"matrix": 1}, {"width": 32, "full": True}])
def test_a_stream_that_changes_on_the_way_keeps_its_first_form(tmp_path, later):
    """Size, range and matrix: frames as decoded show the colours that RGB ones do."""
    parts = []
    for number, form in enumerate(({}, later)):
        encoded(tmp_path / f"{number}.h264", **form)
        parts.append((tmp_path / f"{number}.h264").read_bytes())
    path = tmp_path / "both.h264"
    path.write_bytes(b"".join(parts))
    video = VideoFile(path)
    frames = video.decoded(0, 6)
    assert [(frame.width, frame.height) for frame in frames] == [(64, 48)] * 6
    whole = slice(0, 48), slice(0, 64)
    shown = CodedPictures(frames, video.colours).windows(np.arange(6), whole).astype(int)
    assert np.abs(shown - video.read(0, 6)).max() <= 2
    # The decoder gives two frames of the first part the tags of the second.
    assert np.abs(shown[[0, 3, 4, 5]] - (200, 90, 40)).max() <= 4

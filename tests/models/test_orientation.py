from __future__ import annotations

import io

import numpy as np
import pytest

from models.video import VideoFile

av = pytest.importorskip("av")


def turned(path, matrix: tuple[int, int, int, int]) -> bytes:
    """A video of one frame, in four quarters of different grey, whose track header has this matrix."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        picture = av.VideoFrame.from_ndarray(quarters(), "rgb24")
        container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (number << 16 for number in matrix)
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    return bytes(data)


def quarters() -> np.ndarray:
    frame = np.full((48, 64, 3), 40, np.uint8)
    frame[:24, 32:], frame[24:, :32], frame[24:, 32:] = 90, 150, 210
    return frame


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), lambda frame: frame),
        ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
        ((1, 0, 0, -1), lambda frame: frame[::-1]),
        ((0, 1, 1, 0), lambda frame: frame.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda frame: np.rot90(frame, 2).transpose(1, 0, 2)),
        ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
        ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    ],
)
def test_pictures_are_turned_and_mirrored_as_the_matrix_says(tmp_path, matrix, shown):
    video = VideoFile(io.BytesIO(turned(tmp_path / "plain.mp4", matrix)))
    expected = shown(quarters()).astype(int)
    (frame,), (decoded,) = video.read(0, 1), video.decoded(0, 1)
    assert frame.shape == expected.shape
    assert np.abs(frame - expected).mean() < 4
    if video.colours is None:
        assert np.array_equal(decoded, frame)
    else:
        assert matrix == (1, 0, 0, 1)


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

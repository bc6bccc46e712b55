"""The frames of a chunk as their source has them, and the rectangle round a face in RGB, out of them and back.

A face covers a fraction of a frame. Decoded frames stay in the decoder's own format: only the rectangle is converted,
only what changed in it is put back, and everything else reaches the encoder as it was decoded.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .coded import copied, planes
from .colours import CODED, SCALING, Colours, to_rgb
from .geometry import Matrices, invert
from .parallel import each

if TYPE_CHECKING:
    from .face_track import FaceTrack
    from .video_writer import VideoWriter

Area = tuple[slice, slice]  # rows, columns
Windows = NDArray[np.uint8]

MARGIN = 8  # px around a crop: what interpolation reaches, and conversion at the rectangle's border
GUARD = 4  # rows that repeat a rectangle's border when many are converted as one picture


@dataclass
class Pictures(ABC):
    """Consecutive frames of a video.

    Attributes:
        frames: as `FrameSource.decoded` gives them; replaced, never written to.
    """

    frames: list[Any]

    @abstractmethod
    def windows(self, rows: NDArray[np.integer], area: Area) -> Windows:
        """A rectangle of some frames, uint8 [len(rows), h, w, 3] RGB; `area` as `area_of` makes it."""

    @abstractmethod
    def put(self, rows: NDArray[np.integer], area: Area, windows: Windows, made: Windows) -> None:
        """Put rectangles back: what `made` shows, where it differs from what `windows` gave."""

    @abstractmethod
    def write(self, writer: VideoWriter) -> None:
        """Append all frames to a video."""


class RgbPictures(Pictures):
    """Frames uint8 [H, W, 3] RGB."""

    def windows(self, rows: NDArray[np.integer], area: Area) -> Windows:
        """See `Pictures`."""
        return np.stack([self.frames[row][area] for row in rows])

    def put(self, rows: NDArray[np.integer], area: Area, windows: Windows, made: Windows) -> None:
        """See `Pictures`."""
        for row, picture in zip(rows, made, strict=True):
            frame = self.frames[row].copy()
            frame[area] = picture
            self.frames[row] = frame

    def write(self, writer: VideoWriter) -> None:
        """See `Pictures`."""
        for frame in self.frames:
            writer.write(frame[None])


@dataclass
class CodedPictures(Pictures):
    """PyAV frames in 4:2:0 of even size.

    Attributes:
        colours: what their numbers mean.
    """

    colours: Colours

    def windows(self, rows: NDArray[np.integer], area: Area) -> Windows:
        """See `Pictures`. All rectangles are converted as one tall picture: one call, on all cores."""
        import av

        height, width = _sides(area)
        tall = av.VideoFrame(width, len(rows) * (height + 2 * GUARD), CODED)
        sources = [planes(self.frames[row]) for row in rows]
        for number, plane in enumerate(planes(tall)):
            part, guard = _scaled(area, number), GUARD >> (number > 0)
            slots = plane.reshape(len(rows), -1, plane.shape[1])
            for slot, source in zip(slots, sources, strict=True):
                slot[guard:-guard] = source[number][part]
            slots[:, :guard], slots[:, -guard:] = slots[:, [guard]], slots[:, [-guard - 1]]
        rgb = _reformatted(tall, "rgb24", **to_rgb(self.colours.scaler)).to_ndarray()
        return rgb.reshape(len(rows), -1, width, 3)[:, GUARD:-GUARD]

    def put(self, rows: NDArray[np.integer], area: Area, windows: Windows, made: Windows) -> None:
        """See `Pictures`."""
        import av

        height, width = _sides(area)
        padded = np.pad(made, ((0, 0), (GUARD, GUARD), (0, 0), (0, 0)), "edge")
        rgb = av.VideoFrame.from_ndarray(padded.reshape(-1, width, 3), "rgb24")
        tall = _reformatted(rgb, CODED, dst_colorspace=self.colours.scaler)
        parts = [plane.reshape(len(rows), -1, plane.shape[1]) for plane in planes(tall)]

        def laid(i: int) -> Any:
            red, green, blue = (windows[i] ^ made[i]).transpose(2, 0, 1)
            changed = (red | green | blue) > 0
            pairs = changed[::2] | changed[1::2]
            blocks = pairs[:, ::2] | pairs[:, 1::2]
            frame = copied(self.frames[rows[i]])
            for number, plane in enumerate(planes(frame)):
                guard = GUARD >> (number > 0)
                new = parts[number][i, guard:-guard]
                np.copyto(plane[_scaled(area, number)], new, where=blocks if number else changed)
            return frame

        for row, frame in zip(rows, each(laid, range(len(rows))), strict=True):
            self.frames[row] = frame

    def write(self, writer: VideoWriter) -> None:
        """See `Pictures`."""
        writer.write_coded(self.frames)


@dataclass(frozen=True)
class FaceWindows:
    """The part of some frames that a face needs.

    Attributes:
        rows: int [m], which of the frames show the face.
        numbers: int [m], their numbers in the source.
        area: the rectangle.
        frames: uint8 [m, h, w, 3] RGB, what it shows; read-only, since the difference to it tells what is new.
        track: m frames of that size.
    """

    rows: NDArray[np.integer]
    numbers: NDArray[np.integer]
    area: Area
    frames: Windows
    track: FaceTrack


def face_windows(whole: Pictures, track: FaceTrack, numbers: NDArray[np.integer]) -> FaceWindows | None:
    """Cut out what shows the face; None where no frame does.

    Args:
        whole: n frames.
        track: of the source.
        numbers: [n] which of the source's frames these are.
    """
    rows = np.flatnonzero(track.present[numbers])
    if not len(rows):
        return None
    here = track.pick(numbers[rows])
    area = area_of(here.matrices, *track.frame_size)
    frames = whole.windows(rows, area)
    frames.flags.writeable = False
    within = here.within(area[1].start, area[0].start, frames.shape[2], frames.shape[1])
    return FaceWindows(rows, numbers[rows], area, frames, within)


def pictures(frames: list[Any], colours: Colours | None) -> Pictures:
    """Frames of a source whose `colours` are these."""
    return RgbPictures(frames) if colours is None else CodedPictures(frames, colours)


def area_of(matrices: Matrices, width: int, height: int) -> Area:
    """Smallest rectangle of even borders that holds some crops, and what cutting and pasting them touches beside.

    Args:
        matrices: [n >= 1, 2, 3] frame pixels -> unit crop.
        width: of the frame, px.
        height: of the frame, px.

    Returns:
        A part of the frame, of at least two pixels a side unless the frame has one; odd only where the frame is.
    """
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    back = invert(matrices)
    points = (corners @ back[:, :, :2].transpose(0, 2, 1) + back[:, None, :, 2]).reshape(-1, 2)
    limits = np.array([width, height])
    low = np.clip(np.floor((points.min(0) - MARGIN) / 2) * 2, 0, np.maximum(0, (limits - 1) // 2 * 2)).astype(int)
    high = np.clip(np.ceil((points.max(0) + MARGIN) / 2) * 2, low + 2, None).astype(int)
    high = np.minimum(high, limits)
    return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _sides(area: Area) -> tuple[int, int]:
    rows, columns = area
    return rows.stop - rows.start, columns.stop - columns.start


def _scaled(area: Area, plane: int) -> Area:
    """The rectangle in a plane: those of colour have half as many rows and columns."""
    if not plane:
        return area
    rows, columns = area
    return slice(rows.start // 2, rows.stop // 2), slice(columns.start // 2, columns.stop // 2)


def _reformatted(frame: Any, form: str, **colours: int) -> Any:
    from av.video.reformatter import VideoReformatter

    # Its own, and not kept: the size changes from chunk to chunk.
    return VideoReformatter().reformat(frame, format=form, interpolation=SCALING, **colours)

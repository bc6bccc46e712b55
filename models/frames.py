"""Where frames come from: what every source says and does, and the sources that are in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .colours import Colours
from .video_index import coder_rate

if TYPE_CHECKING:
    from .sound import SoundSource


@dataclass(frozen=True)
class VideoInfo:
    """What a source holds.

    Attributes:
        width: of the upright picture, pixels.
        height: of the upright picture, pixels.
        fps: frames per second, exact; of a variable rate the average.
        frames: number of frames that will be read.
        duration: frames / fps, seconds.
        audio_rate: Hz; None = no sound.
        audio_channels: number of channels; None = no sound.
        notes: remarks for people: variable rate, truncated file, interlaced, HDR.
        aspect: width of a pixel / its height.
        tags: what a video has to say about the colours of these frames.
    """

    width: int
    height: int
    fps: Fraction
    frames: int
    duration: Fraction
    audio_rate: int | None = None
    audio_channels: int | None = None
    notes: tuple[str, ...] = ()
    aspect: Fraction = Fraction(1)
    tags: Colours = Colours()


class FrameSource(Protocol):
    """Where frames come from."""

    @property
    def info(self) -> VideoInfo:
        """Size, rate, length."""
        ...

    def read(self, start: int, stop: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Frames start to stop - 1, uint8 [n, H, W, 3] RGB.

        Args:
            start: number of the first.
            stop: number after the last.
            out: uint8 [n or more, H, W, 3] that they may be put into; None = a new array, whose pages the system has to
                find and clear first: three times the time of the copy.
        """
        ...

    @property
    def colours(self) -> Colours | None:
        """What the numbers of `decoded` frames mean, for `pictures`; None where these are RGB."""
        ...

    def decoded(self, start: int, stop: int) -> list[Any]:
        """Frames start to stop - 1 in the form that costs the least, for `pictures`; nobody may write to them."""
        ...

    def chunks(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """All frames in order, at most `size` at a time."""
        ...

    def sound(self) -> SoundSource | None:
        """Sound in step with the first frame; None = no sound."""
        ...

    def twin(self, draft: bool = False) -> FrameSource:
        """The same frames for another thread: reading here does not move it, nor the other way round.

        Args:
            draft: colours may be two levels off where that is cheaper: enough to find faces in.
        """
        ...


class FrameArray:
    """Frames in memory.

    Args:
        frames: [N, H, W, C] with N >= 1 and C = 1 (grey), 3 (RGB) or 4 (RGBA, alpha dropped); uint8, or float in
            [0, 1]. Kept as it is; each read converts its part.
        fps: frames per second; a fraction made of a decimal becomes the standard rate it means.

    Raises:
        ValueError: another shape, or a rate that is not positive.
    """

    colours = None  # see `FrameSource.colours`

    def __init__(self, frames: Any, fps: Fraction | int) -> None:
        if frames.ndim != 4 or frames.shape[-1] not in (1, 3, 4) or 0 in frames.shape:
            found = tuple(frames.shape)
            raise ValueError(f"Expected frames [N, H, W, 3] with at least one frame, got {found}.")
        self._frames = frames
        count, height, width = (int(side) for side in frames.shape[:3])
        rate = coder_rate(fps)
        self.info = VideoInfo(width, height, rate, count, count / rate)

    def read(self, start: int, stop: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """See `FrameSource.read`; `out` is not needed."""
        check_range(start, stop, self.info.frames)
        return to_rgb_uint8(self._frames[start:stop])

    def decoded(self, start: int, stop: int) -> list[NDArray[np.uint8]]:
        """See `FrameSource.decoded`: uint8 [H, W, 3] RGB."""
        return list(self.read(start, stop))

    def chunks(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """All frames in order, at most `size` at a time."""
        return in_chunks(self.read, self.info.frames, size)

    def sound(self) -> None:
        """Frames in memory carry no sound."""

    def twin(self, draft: bool = False) -> FrameArray:
        """See `FrameSource.twin`."""
        return self


class StillImage:
    """One picture shown for some frames.

    Args:
        image: [H, W, C], as one frame of `FrameArray`.
        frames: how often it is shown, at least once.
        fps: frames per second.

    Raises:
        ValueError: another shape, or no frames.
    """

    colours = None  # see `FrameSource.colours`

    def __init__(self, image: Any, frames: int, fps: Fraction | int = Fraction(25)) -> None:
        if frames < 1:
            raise ValueError(f"A still must be shown for at least one frame, got {frames}.")
        self._one = FrameArray(image[None], fps)
        one = self._one.info
        self.info = VideoInfo(one.width, one.height, one.fps, frames, frames / one.fps)

    def read(self, start: int, stop: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """See `FrameSource.read`; all alike, `out` is not needed."""
        check_range(start, stop, self.info.frames)
        return np.repeat(self._one.read(0, 1), stop - start, 0)

    def decoded(self, start: int, stop: int) -> list[NDArray[np.uint8]]:
        """See `FrameSource.decoded`: the same picture, uint8 [H, W, 3] RGB, again and again."""
        check_range(start, stop, self.info.frames)
        return [self._one.read(0, 1)[0]] * (stop - start)

    def chunks(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """All frames in order, at most `size` at a time."""
        return in_chunks(self.read, self.info.frames, size)

    def sound(self) -> None:
        """A still carries no sound."""

    def twin(self, draft: bool = False) -> StillImage:
        """See `FrameSource.twin`."""
        return self


def to_rgb_uint8(frames: Any) -> NDArray[np.uint8]:
    """Arrays or tensors [..., C], uint8 or float in [0, 1], C = 1, 3 or 4 -> uint8 [..., 3] RGB, rounded."""
    array = np.asarray(frames.detach().cpu() if hasattr(frames, "detach") else frames)
    array = np.repeat(array, 3, -1) if array.shape[-1] == 1 else array[..., :3]
    if array.dtype == np.uint8:
        return array
    return (np.clip(np.nan_to_num(array.astype(np.float32)), 0, 1) * 255 + 0.5).astype(np.uint8)


def in_chunks(read: Callable[[int, int], NDArray[np.uint8]], frames: int, size: int) -> Iterator[NDArray[np.uint8]]:
    """All of `frames` frames in order, at most `size` at a time."""
    for start in range(0, frames, size):
        yield read(start, min(start + size, frames))


def check_range(start: int, stop: int, frames: int) -> None:
    """Refuse frames that do not exist.

    Raises:
        IndexError: says which frames there are.
    """
    if not 0 <= start < stop <= frames:
        raise IndexError(f"Frames {start} to {stop - 1} were asked for; there are frames 0 to {frames - 1}.")

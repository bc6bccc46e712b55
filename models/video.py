"""Frames and sound out of files: PyAV only, exact time, a chunk of memory.

Frame i of a file stands at i / fps. Every frame the file shows is there and none is invented, so that N frames in are
N frames out.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .checkpoints import sha256_file
from .colours import CODED, DRAFT, SCALING, UNKNOWN, Colours, colours_of, is_full, to_rgb, untagged_matrix
from .frames import VideoInfo, check_range, in_chunks
from .parallel import threads
from .shown import Shown, shown
from .video_index import FrameIndex, scan
from .video_open import DAMAGED, GuardedFile, describe, open_container, picture_stream

if TYPE_CHECKING:
    from .sound_file import SoundFile


class VideoFile:
    """A video or picture file. Opening it reads the packet headers once, and decodes the first frame.

    Args:
        source: path, or a binary file object that can seek (it is shared, never closed).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a video, or damaged; the message names the file.
    """

    def __init__(self, source: str | os.PathLike[str] | BinaryIO) -> None:
        path = isinstance(source, str | os.PathLike)
        self._source: Any = source if path else GuardedFile(source)  # type: ignore[arg-type]  # a file object
        self._index = scan(self._source)
        self._reader = _Reader(self._source, self._index)
        first = self._reader.picture(0)
        self.colours = self._reader.colours
        sound = _sound_format(self._source)
        self.info = VideoInfo(
            width=first.shape[1],
            height=first.shape[0],
            fps=self._index.fps,
            frames=len(self._index),
            duration=len(self._index) / self._index.fps,
            audio_rate=sound[0] if sound else None,
            audio_channels=sound[1] if sound else None,
            notes=(*self._index.notes, *self._reader.shown.notes),
            aspect=self._reader.shown.aspect,
            tags=self._reader.shown.tags,
        )

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; reading opens it again."""
        self._reader.close()

    def read(self, start: int, stop: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Frames start to stop - 1, decoded from the key frame before them or from where the last call ended.

        Args:
            start: number of the first.
            stop: number after the last.
            out: see `FrameSource.read`.

        Returns:
            uint8 [n, H, W, 3] RGB, upright.

        Raises:
            IndexError: frames that do not exist.
            ValueError: the file is damaged there.
        """
        return self._reader.read(start, stop, out)

    def decoded(self, start: int, stop: int) -> list[Any]:
        """Frames start to stop - 1 as `read` gives them, but without a conversion where `colours` allows.

        Returns:
            PyAV frames of one size and format, which nobody may write to; without `colours` uint8 [H, W, 3] RGB.
        """
        return list(self.read(start, stop)) if self.colours is None else self._reader.decoded(start, stop)

    def chunks(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """All frames in order, uint8 [n <= size, H, W, 3] RGB; does not disturb `read`."""
        reader = self._reader.twin()
        try:
            yield from in_chunks(reader.read, len(self._index), size)
        finally:
            reader.close()

    def sound(self) -> SoundFile | None:
        """Sound in step with the first frame, read block by block; it is decoded once now.

        Returns:
            None = the file has no sound. Sound before the first frame is dropped, and silence stands where it begins
            later.

        Raises:
            ValueError: the sound is damaged.
        """
        from .sound_file import open_sound

        return open_sound(self._source, self._index.origin)

    def audio(self) -> tuple[NDArray[np.float32], int] | None:
        """All of `sound` at once: float32 [C, T] and its rate in Hz; None = the file has no sound.

        Raises:
            ValueError: the sound is damaged.
        """
        from .sound_file import decode_sound

        return decode_sound(self._source, self._index.origin)

    def digest(self) -> str:
        """SHA-256 of the file, 64 hex digits."""
        if not isinstance(self._source, GuardedFile):
            return sha256_file(self._source)
        result, piece = hashlib.sha256(), 1 << 20
        for position in range(0, self._source.size(), piece):
            result.update(self._source.read_at(position, piece))
        return result.hexdigest()

    def twin(self, draft: bool = False) -> VideoFile:
        """See `FrameSource.twin`; shares what opening the file found out."""
        other = copy.copy(self)
        other._reader = self._reader.twin(draft)
        return other


def probe(source: str | os.PathLike[str] | BinaryIO) -> VideoInfo:
    """What a file holds; raises as `VideoFile` does."""
    with VideoFile(source) as video:
        return video.info


def read_audio(source: str | os.PathLike[str] | BinaryIO) -> tuple[NDArray[np.float32], int] | None:
    """Sound of an audio or video file: float32 [C, T] and its rate; None = it holds none.

    A video's sound starts with its first frame, anything else with its first sample.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: neither sound nor video, or damaged.
    """
    from .sound_file import decode_sound

    return decode_sound(source, _sound_start(source))


def open_audio(source: str | os.PathLike[str] | BinaryIO) -> SoundFile | None:
    """As `read_audio`, to be read block by block; it is decoded once now, so that damage is found before long work."""
    from .sound_file import open_sound

    path = isinstance(source, str | os.PathLike)
    shared: Any = source if path else GuardedFile(source)  # type: ignore[arg-type]  # a file object
    return open_sound(shared, _sound_start(shared))


def _sound_start(source: Any) -> Fraction | None:
    """Seconds, in the file's own time, at which its first frame stands; None without one."""
    with open_container(source) as container:
        stream = picture_stream(container)
        return None if stream is None or stream.start_time is None else stream.start_time * stream.time_base


def _sound_format(source: Any) -> tuple[int, int] | None:
    with open_container(source) as container:
        streams: Sequence[Any] = container.streams.audio
        return (streams[0].rate, streams[0].layout.nb_channels) if streams and streams[0].rate else None


class _Reader:
    """One decoder in a file, somewhere between two frames."""

    def __init__(self, source: Any, index: FrameIndex) -> None:
        self._source, self._index, self._name = source, index, describe(source)
        self._scaling, self._threads = SCALING, threads()
        # Of the first frame that was ever decoded: whether others may stay as they are, and the form they all have.
        self.colours: Colours | None = None
        self._form: tuple[Any, ...] = ()
        self.shown = Shown()
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._waiting: Any = None  # decoded already, not yet handed out
        self._next = 0  # number of the next frame
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def twin(self, draft: bool | None = None) -> _Reader:
        """Another decoder that knows what this one found out; `draft` as in `FrameSource.twin`, None = as here."""
        other = _Reader(self._source, self._index)
        other.colours, other._form, other._scaling = self.colours, self._form, self._scaling
        if draft is not None:
            other._scaling = DRAFT if draft else SCALING
        return other

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = self._waiting = None
        self._decoded = iter(())

    def picture(self, number: int) -> NDArray[np.uint8]:
        """One frame, uint8 [H, W, 3]."""
        return self._picture(self._go_to(number))

    def read(self, start: int, stop: int, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        check_range(start, stop, len(self._index))
        first = self.picture(start)
        result = np.empty((stop - start, *first.shape), np.uint8) if out is None else out[: stop - start]
        result[0] = first
        for i in range(1, stop - start):
            result[i] = self._picture(self._frame())
        return result

    def decoded(self, start: int, stop: int) -> list[Any]:
        check_range(start, stop, len(self._index))
        return [self._alike(self._go_to(start)), *(self._alike(self._frame()) for _ in range(start + 1, stop))]

    def _go_to(self, number: int) -> Any:
        """The decoded frame of that number, reached the cheaper way."""
        anchor = self._index.anchor(number)
        ahead = self._container is not None and self._next <= number
        if not (ahead and anchor <= self._next):
            self._seek(anchor, number)
        while self._next < number:
            self._frame()
        return self._frame()

    def _seek(self, anchor: int, number: int) -> None:
        """Stand at key frame `anchor`, or at the start of the file when seeking does not lead there."""
        import av

        self._restart()
        if anchor == 0:
            return
        wanted = int(self._index.pts[anchor])
        try:
            self._container.seek(wanted, stream=self._stream, backward=True)
            # Frames before the key frame in time refer to frames that were not decoded: they are passed over.
            frame = next(frame for frame in self._decoded if frame.pts is not None and frame.pts >= wanted)
            found = self._index.number_of(frame.pts)
        except (av.error.FFmpegError, StopIteration):
            found = None
        if found is None or found > number:
            self._restart()
        else:
            self._waiting, self._next = frame, found

    def _restart(self) -> None:
        self.close()
        self._container = open_container(self._source)
        self._stream = picture_stream(self._container)
        self._stream.thread_type, self._stream.codec_context.thread_count = "AUTO", self._threads
        self._decoded, self._next = self._container.decode(self._stream), 0

    def _frame(self) -> Any:
        import av

        frame, self._waiting = self._waiting, None
        if frame is None:
            try:
                frame = next(self._decoded)
            except (StopIteration, av.error.FFmpegError) as error:
                at, of = self._next, len(self._index)
                self.close()
                raise ValueError(f"{self._name} cannot be decoded past frame {at} of {of}. {DAMAGED}") from error
        self._next += 1
        if not self._form:
            self._form = _form(frame)
            self.colours = colours_of(frame, self._stream.codec_context)
            self.shown = shown(frame, self._stream)
        return frame

    def _alike(self, frame: Any) -> Any:
        """A decoded frame; one of a stream that changes on the way is brought to the first one's form."""
        if _form(frame) == self._form:
            return frame
        import av

        assert self.colours is not None
        rgb = av.VideoFrame.from_ndarray(self._picture(frame), "rgb24")  # whose conversions all versions of PyAV know
        return self._reformatter.reformat(rgb, format=CODED, dst_colorspace=self.colours.scaler, interpolation=SCALING)

    def _picture(self, frame: Any) -> NDArray[np.uint8]:
        width, height, *_ = self._form  # a stream that changes its size on the way is brought to the first one
        matrix = untagged_matrix(height) if frame.colorspace == UNKNOWN else int(frame.colorspace)
        rgb: Any = self._reformatter.reformat(
            frame, width, height, "rgb24", interpolation=self._scaling, **to_rgb(matrix, is_full(frame))
        ).to_ndarray()
        # The turn that the display matrix asks for, counter-clockwise.
        turns = round(getattr(frame, "rotation", 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _form(frame: Any) -> tuple[Any, ...]:
    return frame.width, frame.height, frame.format.name, int(frame.colorspace), is_full(frame)

"""Frames and sound out of files: PyAV only, exact time, a chunk of memory.

Frame i of a file stands at i / fps. Every frame the file shows is there and none is invented, so that N frames in are
N frames out.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .checkpoints import sha256_file
from .clock import LONGEST_HOLE, Clock
from .colours import CODED, DRAFT, SCALING, UNKNOWN, Colours, colours_of, is_full, to_rgb, untagged_matrix
from .frames import VideoInfo, check_range, in_chunks
from .parallel import threads
from .shown import Shown, shown
from .video_index import FrameIndex, scan
from .video_open import GuardedFile, fault, faults, open_container, picture_stream, sound_stream, undecodable

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
        rate, channels, notes = _sound_format(self._source)
        self._mute = rate is None and bool(notes)
        self._info = VideoInfo(
            width=first.shape[1],
            height=first.shape[0],
            fps=self._index.fps,
            frames=len(self._index),
            duration=len(self._index) / self._index.fps,
            audio_rate=rate,
            audio_channels=channels,
            notes=(*self._index.notes, *notes, *self._reader.shown.notes),
            aspect=self._reader.shown.aspect,
            tags=self._reader.shown.tags,
        )

    @property
    def info(self) -> VideoInfo:
        """What the file holds; its notes tell of frames that could not be decoded once these were read."""
        missing = sorted(self._reader.missing)
        if not missing:
            return self._info
        count = f"{len(missing)} of {self._info.frames} frames, the first of them number {missing[0]},"
        note = f"{count} cannot be decoded: the frame before is shown in their place."
        return replace(self._info, notes=(*self._info.notes, note))

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

        return None if self._mute else open_sound(self._source, self._index.clock)

    def audio(self) -> tuple[NDArray[np.float32], int] | None:
        """All of `sound` at once: float32 [C, T] and its rate in Hz; None = the file has no sound.

        Raises:
            ValueError: the sound is damaged.
        """
        from .sound_file import decode_sound

        return None if self._mute else decode_sound(self._source, self._index.clock)

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

    return decode_sound(source, _clock(source))


def open_audio(source: str | os.PathLike[str] | BinaryIO) -> SoundFile | None:
    """As `read_audio`, to be read block by block; it is decoded once now, so that damage is found before long work."""
    from .sound_file import open_sound

    path = isinstance(source, str | os.PathLike)
    shared: Any = source if path else GuardedFile(source)  # type: ignore[arg-type]  # a file object
    return open_sound(shared, _clock(shared))


def _clock(source: Any) -> Clock:
    """What the sound of any file goes by; only where there is a picture is the file read for it."""
    with open_container(source) as container:
        stream = picture_stream(container)
        if stream is None:
            return Clock()
        begin = None if stream.start_time is None else stream.start_time * stream.time_base
    try:
        return scan(source).clock
    except ValueError:  # the sound may be good where the picture is not
        return Clock(begin)


def _sound_format(source: Any) -> tuple[int | None, int | None, tuple[str, ...]]:
    """Rate and number of channels, None without sound; and remarks."""
    with open_container(source) as container:
        stream, all_streams = sound_stream(container), container.streams.audio
        notes: tuple[str, ...] = ()
        if all_streams and stream is not all_streams[0]:
            codec, what = undecodable(container, all_streams[0]), "another one of the file is used"
            if stream is None:
                what = "the video is read without sound. Convert the sound to AAC or WAV, or connect it from elsewhere"
            notes = (f"The sound cannot be decoded here, as there is no decoder for {codec}: {what}.",)
        if stream is None or not stream.rate:
            return None, None, notes
        return stream.rate, stream.layout.nb_channels, notes


class _Reader:
    """One decoder in a file, somewhere between two frames."""

    def __init__(self, source: Any, index: FrameIndex) -> None:
        self._source, self._index = source, index
        self._scaling, self._threads = SCALING, threads()
        # Of the first frame that was ever decoded: whether others may stay as they are, and the form they all have.
        self.colours: Colours | None = None
        self._form: tuple[Any, ...] = ()
        self.shown = Shown()
        self._container: Any = None
        self._decoded: Iterator[Any] = iter(())
        self._waiting: Any = None  # decoded already, not yet handed out
        self._waits_for = 0  # number of the frame that it is
        self._given: Any = None  # handed out last
        self._next = 0  # number of the next frame
        self.missing: set[int] = set()  # numbers of frames that the decoder did not give, to this one or to a twin
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def twin(self, draft: bool | None = None) -> _Reader:
        """Another decoder that knows what this one found out; `draft` as in `FrameSource.twin`, None = as here."""
        other = _Reader(self._source, self._index)
        other.colours, other._form, other._scaling = self.colours, self._form, self._scaling
        other.shown = self.shown
        other.missing = self.missing
        if draft is not None:
            other._scaling = DRAFT if draft else SCALING
        return other

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = self._waiting = self._given = None
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
        if self._given is not None and number == self._next - 1:
            return self._given
        anchor = self._index.anchor(number)
        ahead = self._container is not None and self._next <= number
        if not (ahead and anchor <= self._next):
            self._seek(anchor, number)
        while self._next < number:
            self._frame()
        return self._frame()

    def _seek(self, anchor: int, number: int) -> None:
        """Stand at key frame `anchor`, or at the start of the file when seeking does not lead there."""
        self._restart()
        if anchor == 0:
            return
        wanted = int(self._index.pts[anchor])
        try:
            self._container.seek(wanted, stream=self._stream, backward=True)
            # Frames before the key frame in time refer to frames that were not decoded: they are passed over.
            later = (frame for frame in self._decoded if frame.pts is not None and frame.pts >= wanted)
            frame = next(later, None)
        except faults():
            frame = None
        found = None if frame is None else self._index.number_of(frame.pts)
        if found is None or found > number:
            self._restart()
        else:
            self._waiting, self._waits_for, self._next = frame, found, found

    def _restart(self) -> None:
        self.close()
        self._container = open_container(self._source)
        self._stream = picture_stream(self._container)
        self._stream.thread_type, self._stream.codec_context.thread_count = "AUTO", self._threads
        self._decoded, self._next = self._container.decode(self._stream), 0

    def _frame(self) -> Any:
        """The next frame; where the decoder leaves it out, the one before is shown longer."""
        if self._waiting is None:
            self._waiting, self._waits_for = self._decode()
        if self._waits_for > self._next:
            self.missing.add(self._next)
            frame = self._waiting if self._given is None else self._given
        else:
            frame, self._waiting = self._waiting, None
        self._given = frame
        self._next += 1
        return frame

    def _decode(self) -> tuple[Any, int]:
        """What the decoder gives next, and the number of the frame that it is."""
        frame, number = None, None
        while number is None:
            try:
                frame = next(self._decoded, None)
            except faults() as error:
                raise self._broken() from error
            number = len(self._index) if frame is None else self._number(frame)
        frame = self._given if frame is None else frame  # what is missing at the end
        if frame is None or number - self._next > LONGEST_HOLE * self._index.fps:
            raise self._broken()
        if not self._form:
            self._form = _form(frame)
            self.colours = colours_of(frame, self._stream.codec_context)
            self.shown = shown(frame, self._stream)
        return frame, number

    def _broken(self) -> ValueError:
        at, of = self._next, len(self._index)
        self.close()
        return fault(self._source, f"cannot be decoded past frame {at} of {of}")

    def _number(self, frame: Any) -> int | None:
        """Number of a decoded frame, from the next one on; None when its turn has passed."""
        if self._index.pts[self._next] == frame.pts or not self._index.timed:
            return self._next
        number = self._index.number_of(frame.pts, self._next)
        if number is None and self._index.number_of(frame.pts) is None:  # it has another time than its packet
            return self._next
        return number

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
        # The turn that the display matrix asks for, counter-clockwise. Whether it mirrors as well only the frame's side
        # data would say, and PyAV frees that of many pictures twice: the process then ends in the next collection.
        turns = round(getattr(frame, "rotation", 0) / 90) % 4
        return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _form(frame: Any) -> tuple[Any, ...]:
    return frame.width, frame.height, frame.format.name, int(frame.colorspace), is_full(frame)

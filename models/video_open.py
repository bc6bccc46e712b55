"""Opening media with PyAV: paths and file objects, and errors people can act on."""

from __future__ import annotations

import io
import os
import re
import threading
from typing import Any, BinaryIO

DAMAGED = "The file is damaged or incomplete: copy it again, or re-encode it with any video program."
HEAD = 21  # bytes of a WebP file up to what says whether it is animated


class GuardedFile:
    """A binary file object that several threads read, each wherever it wants.

    Args:
        file: can seek; stays open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._lock = file, threading.Lock()
        self.name = describe(file)

    def read_at(self, position: int, count: int) -> bytes:
        """Up to `count` bytes from there on."""
        with self._lock:
            self._file.seek(position)
            return self._file.read(count)

    def size(self) -> int:
        """Bytes of the whole file."""
        with self._lock:
            return self._file.seek(0, io.SEEK_END)


class SharedFile(io.RawIOBase):
    """A view of a file object with a position of its own, so that several decoders can read it in turn.

    Args:
        file: stays open when the view is closed.
    """

    def __init__(self, file: GuardedFile) -> None:
        self._file, self._position = file, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read at the view's own position."""
        data = self._file.read_at(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the view's own position."""
        if whence == io.SEEK_END:
            offset += self._file.size()
        elif whence == io.SEEK_CUR:
            offset += self._position
        self._position = max(0, offset)
        return self._position

    def tell(self) -> int:
        """The view's own position."""
        return self._position


def describe(source: Any) -> str:
    """Name of a source for messages."""
    if isinstance(source, str | os.PathLike):
        return os.path.basename(os.fspath(source))
    return str(getattr(source, "name", "the file in memory"))


def open_container(source: str | os.PathLike[str] | BinaryIO | GuardedFile) -> Any:
    """Open for reading.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a media file, or damaged.
    """
    import av

    name = describe(source)
    if isinstance(source, str | os.PathLike):
        if not os.path.isfile(source):
            raise FileNotFoundError(f"There is no file {os.fspath(source)}. Check the path, or upload the file again.")
        opened: Any = os.path.abspath(source)  # a relative name with a colon would be taken for an address
    else:
        opened = SharedFile(source if isinstance(source, GuardedFile) else GuardedFile(source))
    try:
        return av.open(opened, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"{name} cannot be opened as video or audio ({error}). {DAMAGED}") from error


def faults() -> tuple[type[Exception], ...]:
    """What PyAV raises while it reads a damaged file: IndexError where a stream turns up in the middle."""
    import av

    return av.error.FFmpegError, IndexError


def fault(source: Any, what: str) -> ValueError:
    """The error of a file of which something cannot be read; `what` follows its name."""
    name, head = describe(source), _head(source)
    if head[8:16] == b"WEBPVP8X" and len(head) == HEAD and head[-1] & 2:
        return ValueError(f"{name} is an animated WebP, which cannot be decoded here. Convert it to mp4 or GIF.")
    return ValueError(f"{name} {what}. {DAMAGED}")


def _head(source: Any) -> bytes:
    """The first bytes of a file."""
    if isinstance(source, str | os.PathLike):
        with open(source, "rb") as file:
            return file.read(HEAD)
    return (source if isinstance(source, GuardedFile) else GuardedFile(source)).read_at(0, HEAD)


def picture_stream(container: Any) -> Any:
    """The container's first real video stream, None without one; the cover picture of a song is not video."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None


def sound_stream(container: Any) -> Any:
    """The container's first audio stream that can be decoded, None without one."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def undecodable(container: Any, stream: Any) -> str:
    """The codec, for messages, of a stream that FFmpeg has no decoder for: its name, or its tag in the file."""
    import av

    # PyAV tells nothing of such a stream; FFmpeg's own description of the file does, where it is not kept quiet.
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)
    try:
        described = container.dumps_format()
    finally:
        av.logging.set_level(level)
    found = re.search(rf"Stream #\d+:{stream.index}\b[^\n]*?: (?:Video|Audio): (?:none \((\S+)|([\w-]+))", described)
    return "an unknown codec" if found is None else f"the codec {found[1] or found[2]}"

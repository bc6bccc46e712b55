"""Opening media with PyAV: paths and file objects, and errors people can act on."""

from __future__ import annotations

import io
import os
import threading
from typing import Any, BinaryIO

DAMAGED = "The file is damaged or incomplete: copy it again, or re-encode it with any video program."


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
        opened: Any = os.fspath(source)
    else:
        opened = SharedFile(source if isinstance(source, GuardedFile) else GuardedFile(source))
    try:
        return av.open(opened, metadata_errors="ignore")
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"{name} cannot be opened as video or audio ({error}). {DAMAGED}") from error


def picture_stream(container: Any) -> Any:
    """The container's first real video stream, None without one; the cover picture of a song is not video."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            return stream
    return None

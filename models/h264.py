"""x264 on the cores there are: small pictures in segments side by side, large ones with threads of its own.

x264's own threads wait for each other, row by row: for pictures of 720p it needs an eighth more time on two cores than
two encoders of one thread each, and on 16 hardware threads the work itself more than doubles. A segment begins with a
key frame, so the file can be searched in steps of two seconds; that takes a tenth more bytes.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import torch

from .colours import CODED, MPEG_RANGE, Colours

PRESET = "veryfast"  # x264's: half the time of its default; with two steps less of crf the same picture
GLOBAL_HEADER = 1 << 22  # AV_CODEC_FLAG_GLOBAL_HEADER
LENGTH = 48  # frames of a segment
PIXELS = 1 << 20  # of a picture that keeps one thread busy
SHARE = 2  # cores for every segment's thread: the others are needed for the rest of the job
BYTES = 512 << 20  # of pictures in all segments

Encoded = Iterable[Any]  # PyAV packets, in the order of the file


@dataclass(frozen=True)
class Plan:
    """How the cores are used.

    Attributes:
        segments: that are encoded at a time.
        threads: of each; 0 = as many as x264 likes.
    """

    segments: int
    threads: int


def plan(width: int, height: int) -> Plan:
    """For pictures of a size, on the cores that torch uses here."""
    cores, pixels = torch.get_num_threads(), width * height
    threads = max(1, min(round(pixels / PIXELS), cores))
    segments = min(cores // (SHARE * threads), BYTES // (LENGTH * pixels * 3 // 2))
    if segments > 1:
        return Plan(segments, threads)
    return Plan(1, cores if cores <= SHARE else 0)


def add_video(
    container: Any, width: int, height: int, fps: Fraction, colours: Colours, crf: int, aspect: Fraction
) -> tuple[Any, Coder]:
    """Add H.264 to a file that is being written: the stream, and what makes its packets.

    Args:
        container: PyAV's.
        width: of the pictures, pixels; odd ones grow by one.
        height: of the pictures, pixels; odd ones grow by one.
        fps: pictures per second.
        colours: what their numbers mean.
        crf: x264's quality.
        aspect: width of a pixel / its height.

    Raises:
        RuntimeError: PyAV was built without an H.264 encoder.
    """
    import av

    def set_up(context: Any) -> Any:
        context.width, context.height, context.pix_fmt = width + width % 2, height + height % 2, CODED
        context.time_base, context.framerate, context.options = 1 / fps, fps, options
        context.color_range, context.colorspace = MPEG_RANGE, colours.matrix
        context.color_primaries, context.color_trc = colours.primaries, colours.transfer
        if aspect != 1:
            context.sample_aspect_ratio = aspect
        return context

    def segment() -> Any:
        context = set_up(av.CodecContext.create("libx264", "w"))
        context.flags |= GLOBAL_HEADER  # the file has one, which the stream's own encoder makes
        return context

    if "libx264" in av.codecs_available:
        work = plan(width, height)
        # Captions would come along with frames as decoded, and be missing where the face is new.
        options = {"crf": str(crf), "preset": PRESET, "a53cc": "0", "threads": str(work.threads)}
        stream = container.add_stream("libx264", rate=fps)
        context = set_up(stream.codec_context)
        return stream, SegmentCoder(segment, work.segments) if work.segments > 1 else OneCoder(context)
    if "libopenh264" in av.codecs_available:
        options = {}
        stream = container.add_stream("libopenh264", rate=fps)
        return stream, OneCoder(set_up(stream.codec_context))
    raise RuntimeError("This PyAV has no H.264 encoder. Install the wheel from PyPI: pip install -U av")


class Coder(Protocol):
    """Makes packets of pictures."""

    def holds(self, picture: Any) -> bool:
        """Whether a picture taken earlier still waits to be encoded, so that nobody may change it."""
        ...

    def encode(self, picture: Any) -> Encoded:
        """Take the next picture; what is ready by now."""
        ...

    def finish(self) -> Encoded:
        """What was not ready yet."""
        ...

    def stop(self) -> None:
        """Let go of everything; nothing more is wanted."""
        ...


class OneCoder:
    """All pictures through one encoder.

    Args:
        context: PyAV's, ready to encode.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def holds(self, picture: Any) -> bool:
        """See `Coder`: none waits."""
        return False

    def encode(self, picture: Any) -> Encoded:
        """See `Coder`."""
        packets: Encoded = self._context.encode(picture)
        return packets

    def finish(self) -> Encoded:
        """See `Coder`."""
        return self.encode(None)

    def stop(self) -> None:
        """See `Coder`."""


class SegmentCoder:
    """Pictures in segments, each through an encoder of its own on a thread of its own.

    Args:
        make: makes such an encoder; all alike, and with the file's headers.
        count: of segments at a time.
    """

    def __init__(self, make: Callable[[], Any], count: int) -> None:
        self._make, self._count = make, count
        self._pool, self._stopped = ThreadPoolExecutor(count, "x264"), threading.Event()
        self._under_way: deque[Future[list[Any]]] = deque()
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()  # pictures of the last of these; None ends it
        self._taken = 0
        self._held: set[int] = set()  # identities of the pictures that wait

    def holds(self, picture: Any) -> bool:
        """See `Coder`."""
        return id(picture) in self._held

    def encode(self, picture: Any) -> Encoded:
        """See `Coder`; waits where all segments are under way."""
        ready: list[Any] = []
        if self._taken % LENGTH == 0:
            self._waiting.put(None)
            if len(self._under_way) == self._count:
                ready = self._under_way.popleft().result()
            self._waiting = queue.SimpleQueue()
            self._under_way.append(self._pool.submit(self._segment, self._waiting))
        self._held.add(id(picture))
        self._waiting.put(picture)
        self._taken += 1
        return ready

    def finish(self) -> Encoded:
        """See `Coder`."""
        self._waiting.put(None)
        for segment in self._under_way:
            yield from segment.result()
        self.stop()

    def stop(self) -> None:
        """See `Coder`."""
        self._stopped.set()
        self._waiting.put(None)
        self._pool.shutdown()

    def _segment(self, pictures: queue.SimpleQueue[Any]) -> list[Any]:
        context = self._make()
        packets: list[Any] = []
        while (picture := pictures.get()) is not None:
            if self._stopped.is_set():
                return []
            packets += context.encode(picture)
            self._held.discard(id(picture))
        return packets + context.encode(None)

"""x264 on the cores there are: small pictures in segments side by side, large ones with threads of its own.

x264's own threads wait for each other, row by row: of small pictures it gets through two thirds as many on two cores as
two encoders of one thread each, and on 16 the work itself doubles. A segment begins with a key frame, as a film does
that can be searched; that and the shorter view ahead cost a twelfth of the bytes.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

LENGTH = 48  # frames of a segment
PIXELS = 1 << 20  # of a picture that keeps one thread busy
SHARE = 2  # cores for every one that encodes: the others are needed for the rest of the job
BYTES = 512 << 20  # of pictures in all segments

Encoded = Iterable[Any]  # PyAV packets, in the order of the file


@dataclass(frozen=True)
class Plan:
    """How many segments are encoded at a time, and on how many threads each; 0 = as many as x264 likes."""

    segments: int
    threads: int


def plan(width: int, height: int) -> Plan:
    """For pictures of a size, on the cores that torch uses here."""
    cores, pixels = torch.get_num_threads(), width * height
    threads = max(1, min(round(pixels / PIXELS), cores))
    segments = min(cores // (SHARE * threads), BYTES // (LENGTH * pixels * 3 // 2))
    if segments > 1:
        return Plan(segments, threads)
    return Plan(1, 1 if threads == 1 and cores <= SHARE else 0)


class Coder:
    """All pictures through one encoder.

    Args:
        context: PyAV's, ready to encode.
    """

    def __init__(self, context: Any) -> None:
        self._context = context

    def encode(self, picture: Any) -> Encoded:
        """Take the next picture; what is ready by now."""
        return self._context.encode(picture)

    def finish(self) -> Encoded:
        """What was not ready yet."""
        return self._context.encode(None)

    def stop(self) -> None:
        """Let go of everything; nothing more is wanted."""


class SegmentCoder(Coder):
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

    def encode(self, picture: Any) -> Encoded:
        """See `Coder.encode`; waits where all segments are under way."""
        ready: list[Any] = []
        if self._taken % LENGTH == 0:
            self._waiting.put(None)
            if len(self._under_way) == self._count:
                ready = self._under_way.popleft().result()
            self._waiting = queue.SimpleQueue()
            self._under_way.append(self._pool.submit(self._segment, self._waiting))
        self._waiting.put(picture)
        self._taken += 1
        return ready

    def finish(self) -> Encoded:
        """See `Coder.finish`."""
        self._waiting.put(None)
        for segment in self._under_way:
            yield from segment.result()
        self.stop()

    def stop(self) -> None:
        """See `Coder.stop`."""
        self._stopped.set()
        self._waiting.put(None)
        self._pool.shutdown()

    def _segment(self, pictures: queue.SimpleQueue[Any]) -> list[Any]:
        context = self._make()
        packets: list[Any] = []
        while (picture := pictures.get()) is not None and not self._stopped.is_set():
            packets += context.encode(picture)
        return packets + context.encode(None)

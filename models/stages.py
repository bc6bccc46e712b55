"""Stages of a job side by side: one thread decodes ahead, one encodes behind, and a stopwatch says who was busy.

Queues are short, so that memory stays that of some chunks and the slowest stage sets the pace. OpenCV, PyAV and torch
work outside Python's lock, so the threads really run at the same time.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

WAITING = 0.1  # seconds after which a waiting thread looks whether it is still needed
STAGES = ("decode", "detect", "track", "warp", "embed", "net", "paste", "encode")


class Stopwatch:
    """Seconds that each stage was busy, on any thread. What a stage calls of another stage counts for that one."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._clock, self._lock, self._local = clock, threading.Lock(), threading.local()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is inside."""
        outer = getattr(self._local, "inner", 0.0)
        self._local.inner, begun = 0.0, self._clock()
        try:
            yield
        finally:
            spent = self._clock() - begun
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent - self._local.inner
            self._local.inner = outer + spent

    def timed(self, stage: str, function: Callable[..., T]) -> Callable[..., T]:
        """A function whose calls count as a stage."""

        def run(*arguments: Any, **keywords: Any) -> T:
            with self(stage):
                return function(*arguments, **keywords)

        return run

    def each(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        """Items whose making counts as a stage."""
        while True:
            with self(stage):
                item = next(items, self)
            if item is self:
                return
            yield item  # type: ignore[misc]  # not the stopwatch

    def table(self, frames: int, wall: float, video: float) -> dict[str, Any]:
        """What was measured, for people and programs.

        Args:
            frames: of the result.
            wall: seconds of the whole job.
            video: seconds that the result plays.
        """
        known = {stage: self.seconds[stage] for stage in (*STAGES, *sorted(self.seconds)) if stage in self.seconds}
        stages = {
            stage: {"seconds": spent, "ms_per_frame": 1000 * spent / frames, "share": spent / wall}
            for stage, spent in known.items()
        }
        return {
            "frames": frames,
            "wall_seconds": wall,
            "frames_per_second": frames / wall,
            "real_time_factor": wall / video,
            "stages": stages,
        }


class _Stopped(Exception):
    """Nobody waits for this thread's work any more."""


class _Line(Generic[T]):
    """What goes from one thread to another: so many things at a time, the one that is worked on included.

    Room is asked for before a thing is made and given back when it is used, since it is memory that has to be bounded.
    """

    def __init__(self, depth: int) -> None:
        self._room, self._queue = threading.Semaphore(depth), queue.SimpleQueue[T]()
        self.stopped = threading.Event()

    def reserve(self) -> None:
        while not self.stopped.is_set():
            if self._room.acquire(timeout=WAITING):
                return
        raise _Stopped

    def free(self) -> None:
        self._room.release()

    def put(self, item: T) -> None:
        if self.stopped.is_set():
            raise _Stopped
        self._queue.put(item)

    def get(self) -> T:
        while not self.stopped.is_set():
            with contextlib.suppress(queue.Empty):
                return self._queue.get(timeout=WAITING)
        raise _Stopped


@contextlib.contextmanager
def ahead(items: Iterator[T], depth: int = 1) -> Iterator[Iterator[T]]:
    """The items, made by a thread of their own; up to `depth` are made or ready before they are asked for.

    Its failure is raised where the item would have come. Leaving the context ends the thread after the item that it is
    making, and closes a generator.
    """
    line: _Line[tuple[bool, Any]] = _Line(depth)

    def work() -> None:
        with contextlib.suppress(_Stopped):
            try:
                line.reserve()
                for item in items:
                    line.put((True, item))
                    del item  # or it would live until the next one is made
                    line.reserve()
                line.put((False, None))
            except _Stopped:
                raise
            except BaseException as error:
                line.put((False, error))
            finally:
                if hasattr(items, "close"):
                    items.close()

    def received() -> Iterator[T]:
        while True:
            more, item = line.get()
            if not more:
                if item is not None:
                    raise item
                return
            line.free()
            yield item
            del item

    thread = threading.Thread(target=work, name="ahead")
    thread.start()
    try:
        yield received()
    finally:
        line.stopped.set()
        thread.join()


@contextlib.contextmanager
def behind(function: Callable[[T], None], depth: int = 1) -> Iterator[Callable[[T], None]]:
    """Calls of a function, done in order by a thread of their own; `depth` are under way, the next one waits.

    Its failure is raised by the next call, or at the end. Leaving the context normally waits for all calls, an
    exception drops those that have not begun.
    """
    line: _Line[tuple[bool, Any]] = _Line(depth)
    failures: list[BaseException] = []

    def work() -> None:
        with contextlib.suppress(_Stopped):
            while True:
                more, item = line.get()
                if not more:
                    return
                try:
                    function(item)
                except BaseException as error:
                    failures.append(error)
                    line.stopped.set()
                del item
                line.free()

    def send(item: T) -> None:
        try:
            line.reserve()
            line.put((True, item))
        except _Stopped:
            raise failures[0] from None

    thread = threading.Thread(target=work, name="behind")
    thread.start()
    try:
        yield send
        with contextlib.suppress(_Stopped):
            line.put((False, None))
    except BaseException:
        line.stopped.set()
        raise
    finally:
        thread.join()
    if failures:
        raise failures[0]

"""The same work on many things, on several cores: OpenCV, NumPy and torch work outside Python's lock.

As many cores as torch uses on the calling thread: what the user allows, and a share of it inside `abreast`.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Event, Thread
from typing import Any, TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")

MOST = 4  # threads; of more, Python's lock and memory take as much as they add (16 hardware threads, pieces of 2 ms)
WAITING = 0.1  # seconds after which one who waits says that he is alive


def each(function: Callable[..., T], *items: Iterable[Any]) -> list[T]:
    """`list(map(function, *items))`, on several threads where there are several items and cores.

    Raises:
        Exception: the first that a call raised, in the order of the items; those after it may not have been made.
    """
    calls = list(zip(*items, strict=True))
    results: list[Any] = [None] * len(calls)
    failures: dict[int, BaseException] = {}
    waiting = iter(enumerate(calls))

    def work() -> None:
        while not failures and (item := next(waiting, None)) is not None:
            i, call = item
            try:
                results[i] = function(*call)
            except BaseException as error:
                failures[i] = error

    helpers = [Thread(target=work, name="each") for _ in range(_threads(len(calls)) - 1)]
    for helper in helpers:
        helper.start()
    work()
    for helper in helpers:
        helper.join()
    if failures:
        raise failures[min(failures)]
    return results


def _threads(count: int) -> int:
    """For so many items: starting a thread costs some 50 us, so each of many gets two of them at least."""
    return min(count, max(2, count // 2), threads())


def threads() -> int:
    """On how many threads large pieces of work are worth while here."""
    return min(torch.get_num_threads(), MOST)


class Unwanted(Exception):
    """Nobody waits for this result any more."""


@contextlib.contextmanager
def abreast(
    function: Callable[[T, Callable[[], None]], R], items: Iterator[T], count: int, alive: Callable[[], None]
) -> Iterator[Iterator[R]]:
    """What a function makes of each item, in order; several are made at a time, each with its share of the cores.

    One network on one core each beats all cores on one network after the other: small layers are over before all cores
    have begun. The caller has such a share as well, since threads that wait for their fellows keep others from working.

    Args:
        function: of an item and of what it should call now and then, which raises when the result is not wanted.
        items: taken on the caller's thread, no more of them than are being made.
        count: of threads; 1 = the caller's own.
        alive: called while a result is waited for, or by the function; may raise.
    """
    if count == 1:
        yield (function(item, alive) for item in items)
        return
    cores, left = torch.get_num_threads(), Event()

    def wanted() -> None:
        if left.is_set():
            raise Unwanted

    def made() -> Iterator[R]:
        under_way: deque[Future[R]] = deque()
        for item in items:
            under_way.append(pool.submit(function, item, wanted))
            del item  # or it would live until the next one is there
            if len(under_way) == count:
                yield _waited_for(under_way.popleft(), alive)
        while under_way:
            yield _waited_for(under_way.popleft(), alive)

    share = max(1, cores // count)
    pool = ThreadPoolExecutor(count, "abreast", torch.set_num_threads, (share,))
    torch.set_num_threads(share)
    try:
        yield made()
    finally:
        left.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # and so for threads to come


def _waited_for(result: Future[R], alive: Callable[[], None]) -> R:
    while not wait([result], WAITING).done:
        alive()
    return result.result()

"""The same small piece of work on many frames, on several cores: OpenCV and NumPy work outside Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 4  # threads; of more, Python's lock and memory take as much as they add (16 hardware threads, pieces of 2 ms)


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
    return min(count, max(2, count // 2), _cores(), MOST)


def _cores() -> int:
    """Of this process, where the system says; of the machine elsewhere."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1

"""The same small piece of work on many frames, on all cores: OpenCV and NumPy work outside Python's lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

MOST = 16  # threads beyond which Python's lock is what they wait for


def each(function: Callable[..., T], *items: Iterable[Any]) -> list[T]:
    """`list(map(function, *items))`, on several threads where there are several items and cores.

    Raises:
        Exception: the first that a call raised, in the order of the items.
    """
    calls = list(zip(*items, strict=True))
    threads = min(len(calls), _cores(), MOST)
    if threads < 2:
        return [function(*call) for call in calls]
    with ThreadPoolExecutor(threads, thread_name_prefix="each") as pool:
        return list(pool.map(lambda call: function(*call), calls))


def _cores() -> int:
    """Of this process, where the system says; of the machine elsewhere."""
    known = getattr(os, "sched_getaffinity", None)
    return len(known(0)) if known else os.cpu_count() or 1

"""Batches drawn by a thread while the device works on the ones before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
DEPTH = 2  # batches in hand: one to train on, one being drawn


@contextmanager
def drawn_ahead(draw: Callable[[int], T], steps: int, device: torch.device) -> Iterator[Callable[[int], T]]:
    """Give `draw` back, on a GPU with what the next steps need begun before they ask for it.

    On a CPU the drawing would take the training's cores, so there nothing is begun early. A batch depends on its step
    alone, so the result is the same.

    Args:
        draw: makes the batch of a step. Steps are asked for one after the other.
        steps: none from here on is drawn.
        device: where the training runs.
    """
    if device.type != "cuda":
        yield draw
        return
    coming: deque[Future[T]] = deque()
    with ThreadPoolExecutor(1, "batches") as pool:

        def take(step: int) -> T:
            while len(coming) < DEPTH and step + len(coming) < steps:
                coming.append(pool.submit(draw, step + len(coming)))
            batch = coming.popleft().result()
            if step + DEPTH < steps:
                coming.append(pool.submit(draw, step + DEPTH))
            return batch

        try:
            yield take
        finally:
            pool.shutdown(cancel_futures=True)

"""What every training loop shares: its options, its clock, and how it is asked to stop."""

from __future__ import annotations

import argparse
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .config import names

LOG_EVERY = 20  # steps
T = TypeVar("T")


class Clock:
    """Samples a second, and the share of the time spent waiting for batches."""

    def __init__(self, step: int) -> None:
        self.first, self.begun, self.waiting = step, time.monotonic(), 0.0

    def waited(self, draw: Callable[[], T]) -> T:
        """The result of `draw`, its time counted as waiting."""
        begun = time.monotonic()
        result = draw()
        self.waiting += time.monotonic() - begun
        return result

    def rates(self, step: int, batch: int) -> dict[str, float]:
        """Since the clock was made."""
        passed = time.monotonic() - self.begun
        return {
            "samples_per_s": round((step - self.first) * batch / passed, 1),
            "data_share": round(self.waiting / passed, 3),
        }


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that a run that is asked to end saves what it has."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may listen
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that every trainer takes: recipe, device, compiler."""
    parser.add_argument(
        "--recipe", default="small-96", help=f"{', '.join(names())} or a TOML file (default: %(default)s)"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change the recipe; repeatable"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile and a C++ compiler")

"""Real-time factor: seconds of work for a second of video, by the paper's protocol (specification section 6.6).

One run to warm up, then rounds in which every system runs once, forwards and backwards in turn, so that a machine
that slows down or speeds up slows or speeds up all. What is timed is the caller's choice and part of the name: `net`
(tensors in, frames out, copies to and from the device included) or `e2e` (file to file).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

REPEATS = 20


@dataclass(frozen=True)
class Timing:
    """Times of one system.

    Attributes:
        name: of the system.
        what: what was timed, "net" or "e2e".
        seconds: of each run, in order.
        duration: of the video, seconds.
    """

    name: str
    what: str
    seconds: tuple[float, ...]
    duration: float

    @property
    def factors(self) -> tuple[float, ...]:
        """The real-time factor of each run."""
        return tuple(one / self.duration for one in self.seconds)

    @property
    def mean(self) -> float:
        """Mean real-time factor; below 1 is faster than the video plays."""
        return statistics.fmean(self.factors)

    @property
    def deviation(self) -> float:
        """Sample standard deviation; 0 for a single run."""
        return statistics.stdev(self.factors) if len(self.seconds) > 1 else 0.0

    def __str__(self) -> str:
        return f"{self.name}, {self.what}: RTF {self.mean:.4f} +- {self.deviation:.4f} (n = {len(self.seconds)})"


def measure(
    systems: Mapping[str, Callable[[], object]],
    duration: float,
    what: str,
    *,
    repeats: int = REPEATS,
    warm_up: int = 1,
    synchronise: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timing]:
    """Time systems against each other.

    Args:
        systems: name -> one whole run on the same video, about 10 s long.
        duration: of the video in seconds.
        what: see `Timing`.
        repeats: timed runs of each.
        warm_up: runs of each before them.
        synchronise: waits until the device has finished; called before the clock is read.
        clock: seconds.

    Raises:
        ValueError: a duration or number of runs that makes no sense.
    """
    if duration <= 0 or repeats < 1 or not systems:
        raise ValueError(f"Nothing to time: {len(systems)} systems, {repeats} runs of a video of {duration:g} s.")
    done = list(rounds(systems, range(repeats), warm_up=warm_up, synchronise=synchronise, clock=clock))
    return timings(done, duration, what)


def rounds(
    systems: Mapping[str, Callable[[], object]],
    numbers: Sequence[int],
    *,
    warm_up: int = 1,
    synchronise: Callable[[], object] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[dict[str, float]]:
    """The rounds of these numbers, seconds by system; even ones run forwards, odd ones backwards.

    What a caller keeps of them lets it go on later with the numbers that are missing. Arguments as of `measure`.
    """
    wait = synchronise or (lambda: None)
    for _ in range(warm_up if numbers else 0):
        for run in systems.values():
            run()
    for number in numbers:
        seconds: dict[str, float] = {}
        for name in list(systems)[:: 1 if number % 2 == 0 else -1]:
            wait()
            begun = clock()
            systems[name]()
            wait()
            seconds[name] = clock() - begun
        yield seconds


def timings(done: Sequence[Mapping[str, float]], duration: float, what: str) -> list[Timing]:
    """Rounds as one `Timing` a system, in the order of the first round.

    Raises:
        ValueError: no rounds, or rounds of different systems.
    """
    if not done or any(set(one) != set(done[0]) for one in done):
        raise ValueError("Timings need at least one round, and every round the same systems.")
    return [Timing(name, what, tuple(one[name] for one in done), duration) for name in done[0]]


def ratio(slower: Timing, faster: Timing) -> tuple[float, float]:
    """How many times as long one system takes as the other: mean and sample deviation over the rounds they shared.

    Raises:
        ValueError: not timed in the same rounds.
    """
    if len(slower.seconds) != len(faster.seconds) or slower.what != faster.what:
        raise ValueError(f"{slower} and {faster} were not timed together; time them in one call.")
    rounds = [a / b for a, b in zip(slower.seconds, faster.seconds, strict=True)]
    return statistics.fmean(rounds), statistics.stdev(rounds) if len(rounds) > 1 else 0.0

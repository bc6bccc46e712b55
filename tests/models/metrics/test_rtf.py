"""The timer on a clock of its own."""

from __future__ import annotations

import time

import pytest

from models.metrics.rtf import Timing, measure, ratio, rounds, timings


class Clock:
    """Time that passes only when somebody works."""

    def __init__(self) -> None:
        self.now, self.log = 100.0, []  # type: ignore[var-annotated]

    def __call__(self) -> float:
        return self.now

    def work(self, name: str, *seconds: float):
        runs = iter(seconds)

        def run() -> None:
            self.log.append(name)
            self.now += next(runs)

        return run


def test_mean_deviation_and_ratio():
    clock = Clock()
    systems = {"slow": clock.work("slow", 99, 2, 4, 6), "fast": clock.work("fast", 99, 1, 1, 2)}
    slow, fast = measure(systems, 10, "e2e", repeats=3, clock=clock)
    assert slow.seconds == (2, 4, 6)  # the run to warm up does not count
    assert (slow.mean, slow.deviation) == pytest.approx((0.4, 0.2))
    assert ratio(slow, fast) == pytest.approx((3, 1))
    assert str(fast) == "fast, e2e: RTF 0.1333 +- 0.0577 (n = 3)"


def test_systems_take_turns_in_both_orders():
    clock = Clock()
    measure({name: clock.work(name, *[1] * 5) for name in "ab"}, 1, "net", repeats=4, clock=clock)
    assert "".join(clock.log) == "ab" + "ab" + "ba" + "ab" + "ba"


def test_the_device_finishes_within_the_time():
    clock = Clock()
    pending = []

    def run() -> None:
        pending.append(3.0)

    def wait() -> None:
        while pending:
            clock.now += pending.pop()

    (only,) = measure({"x": run}, 3, "net", repeats=2, synchronise=wait, clock=clock)
    assert only.factors == (1, 1)


def test_real_clock_sees_a_sleep():
    (only,) = measure({"sleep": lambda: time.sleep(0.02)}, 0.02, "net", repeats=3, warm_up=0)
    assert min(only.factors) >= 0.99  # never less; how much more is the machine's affair


def test_refusals():
    with pytest.raises(ValueError, match="Nothing to time"):
        measure({}, 1, "net")
    with pytest.raises(ValueError, match="not timed together"):
        ratio(Timing("a", "net", (1, 2), 1), Timing("b", "e2e", (1, 2), 1))
    assert Timing("a", "net", (2.0,), 1).deviation == 0


def test_rounds_can_go_on_later():
    clock = Clock()
    systems = {name: clock.work(name, *[1.0] * 9) for name in "ab"}
    first = list(rounds(systems, range(2), clock=clock))
    second = list(rounds(systems, range(2, 3), clock=clock))
    assert "".join(clock.log) == "ab" + "ab" + "ba" + "ab" + "ab"  # a warm-up each time
    assert [timing.seconds for timing in timings([*first, *second], 1, "net")] == [(1, 1, 1)] * 2
    assert list(rounds(systems, range(3, 3), clock=clock)) == []
    with pytest.raises(ValueError, match="the same systems"):
        timings([{"a": 1.0}, {"b": 1.0}], 1, "net")

"""Work on many items, on several threads."""

from __future__ import annotations

import threading
import time
import weakref

import pytest
import torch

from models.parallel import Unwanted, abreast, each


def nothing() -> None:
    """Called while somebody waits."""


def plain(function):
    """A function of the item alone."""
    return lambda item, alive: function(item)


def test_results_come_in_the_order_of_the_items():
    assert each(lambda a, b: a - b, range(50), range(50, 0, -1)) == [2 * i - 50 for i in range(50)]
    assert each(abs, []) == []
    assert each(abs, [-1]) == [1]


def test_calls_run_side_by_side(monkeypatch):
    monkeypatch.setattr("models.parallel.threads", lambda: 2)
    meeting = threading.Barrier(2, timeout=10)  # one thread alone would wait in vain
    assert len(each(lambda _: meeting.wait(), range(2))) == 2


def test_the_first_failure_is_raised():
    def fail(number):
        if number > 2:
            raise ValueError(str(number))
        return number

    with pytest.raises(ValueError, match="^3$"):
        each(fail, range(8))


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        each(max, [1, 2], [3])


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_chunks_come_in_order_whoever_is_done_first(count):
    def slow(item):
        time.sleep(0.01 * (item % 3 == 0))
        return -item

    with abreast(plain(slow), iter(range(20)), count, nothing) as made:
        assert list(made) == [-i for i in range(20)]
    with abreast(plain(slow), iter(()), count, nothing) as made:
        assert list(made) == []


def test_chunks_are_made_side_by_side_and_no_more_are_taken_than_that():
    meeting, taken = threading.Barrier(3, timeout=10), []

    def items():
        for i in range(9):
            taken.append(i)
            yield i

    with abreast(plain(lambda _: meeting.wait()), items(), 3, nothing) as made:
        assert taken == []
        next(made)
        assert taken == [0, 1, 2]
        assert len(list(made)) == 8


def test_one_at_a_time_is_made_on_the_callers_thread():
    with abreast(lambda item, alive: (threading.current_thread(), alive), iter([0]), 1, nothing) as made:
        assert list(made) == [(threading.current_thread(), nothing)]


def test_each_has_its_share_of_the_cores_and_afterwards_all_is_as_before():
    def new_thread() -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return found[0]

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with abreast(plain(lambda _: torch.get_num_threads()), iter(range(6)), 2, nothing) as made:
            assert list(made) == [2] * 6
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == new_thread() == 4
        with abreast(plain(lambda _: torch.get_num_threads()), iter(range(6)), 3, nothing) as made:
            assert list(made) == [1] * 6
    finally:
        torch.set_num_threads(before)


def test_a_failing_chunk_fails_in_its_place():
    def fail(item):
        if item >= 4:
            raise ValueError(f"broken {item}")
        return item

    seen = []
    with pytest.raises(ValueError, match="broken 4"), abreast(plain(fail), iter(range(100)), 3, nothing) as made:
        seen.extend(made)
    assert seen == [0, 1, 2, 3]


def test_who_waits_may_interrupt_and_those_at_work_hear_of_it():
    heard, begun = [], threading.Event()

    def endless(item, alive):
        begun.set()
        try:
            while True:
                time.sleep(0.01)
                alive()
        except Unwanted:
            heard.append(item)
            raise

    def interrupt():
        if begun.is_set():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), abreast(endless, iter(range(100)), 2, interrupt) as made:
        next(made)
    assert sorted(heard) == [0, 1]
    with pytest.raises(OSError, match="full"), abreast(endless, iter(range(2)), 2, nothing) as made:
        raise OSError("disk full")
    assert all(thread.name.partition("_")[0] != "abreast" for thread in threading.enumerate())


def test_chunks_that_are_done_are_not_kept_alive():
    class Frames:
        pass

    alive = weakref.WeakSet()

    def items():
        for _ in range(4):
            frames = Frames()
            alive.add(frames)
            yield frames
            del frames

    with abreast(plain(lambda frames: frames), items(), 2, nothing) as made:
        for frames in made:
            del frames
        time.sleep(0.2)  # a worker lets go of its last call a moment after its result is there
        assert len(alive) == 0

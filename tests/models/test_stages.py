from __future__ import annotations

import threading
import time
import weakref

import pytest

from models.stages import Stopwatch, ahead, behind


def numbers(seen: list[str], count: int = 5, fail_at: int | None = None):
    try:
        for i in range(count):
            if i == fail_at:
                raise ValueError("broken frame")
            seen.append(f"made {i}")
            yield i
    finally:
        seen.append("closed")


def test_items_come_in_order_from_another_thread():
    seen: list[str] = []
    with ahead(numbers(seen)) as items:
        assert list(items) == [0, 1, 2, 3, 4]
    assert seen[-1] == "closed"
    assert threading.active_count() == 1 or all(t.name != "ahead" for t in threading.enumerate())


def test_no_more_is_made_ahead_than_allowed_and_leaving_ends_it():
    seen: list[str] = []
    with ahead(numbers(seen, 1000), depth=2) as items:
        assert next(items) == 0
        time.sleep(0.3)
    assert seen[-1] == "closed"
    assert len(seen) <= 1 + 2 + 1  # taken, made ahead, closed


def test_no_more_waits_for_its_call_than_allowed():
    gate, sent = threading.Event(), []

    def use(send):
        for i in range(3):
            send(i)
            sent.append(i)

    with behind(lambda item: gate.wait(5)) as send:
        thread = threading.Thread(target=use, args=(send,))
        thread.start()
        time.sleep(0.3)
        assert sent == [0]  # under way; the next is not even taken
        gate.set()
        thread.join()
    assert sent == [0, 1, 2]


def test_what_is_done_is_not_kept_alive():
    class Frames:
        pass

    alive = weakref.WeakSet()

    def made():
        for _ in range(3):
            frames = Frames()
            alive.add(frames)
            yield frames
            del frames

    with ahead(made()) as items, behind(lambda frames: None) as send:
        for frames in items:
            send(frames)
        del frames
        time.sleep(0.3)
        assert len(alive) == 0


def test_a_failure_comes_where_its_item_would_have_come():
    items_seen, seen = [], []
    with pytest.raises(ValueError, match="broken frame"), ahead(numbers(seen, fail_at=2)) as items:
        items_seen.extend(items)
    assert seen == ["made 0", "made 1", "closed"]


def test_calls_are_done_in_order_and_waited_for():
    done: list[int] = []
    with behind(lambda item: (time.sleep(0.01), done.append(item))) as send:
        for i in range(5):
            send(i)
    assert done == [0, 1, 2, 3, 4]


def test_a_failing_call_is_told_to_the_next_or_at_the_end():
    def fail(item):
        raise OSError(f"disk full at {item}")

    def use(items):
        with behind(fail) as send:
            for item in items:
                send(item)

    with pytest.raises(OSError, match="disk full at 0"):
        use(range(100))
    with pytest.raises(OSError, match="disk full at 7"):
        use([7])


def test_an_exception_drops_what_waits():
    done: list[int] = []
    gate = threading.Event()

    def slow(item):
        gate.wait(5)
        done.append(item)

    def use():
        with behind(slow, depth=3) as send:
            for i in range(3):
                send(i)
            threading.Timer(0.2, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        use()
    assert done in ([], [0])


def test_a_stage_inside_another_counts_once():
    now = [0.0]
    watch = Stopwatch(lambda: now[0])
    with watch("track"):
        now[0] += 1
        with watch("detect"):
            now[0] += 2
        now[0] += 4
    assert watch.seconds == {"track": 5, "detect": 2}

    def made():
        for i in range(3):
            now[0] += 1
            yield i

    for _ in watch.each("decode", made()):
        now[0] += 10
    table = watch.table(frames=10, wall=40, video=20)
    assert list(table["stages"]) == ["decode", "detect", "track"]
    assert table["stages"]["decode"] == {"seconds": 3, "ms_per_frame": 300, "share": 3 / 40}
    assert (table["frames_per_second"], table["real_time_factor"]) == (0.25, 2)

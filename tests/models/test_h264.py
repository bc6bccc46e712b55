"""Pictures through one encoder or several."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from models import h264
from models.h264 import LENGTH, Plan, SegmentCoder


@pytest.fixture
def cores():
    """Sets what torch uses."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    "count, small, hd, full_hd, uhd",
    [
        (1, Plan(1, 1), Plan(1, 1), Plan(1, 1), Plan(1, 1)),
        (2, Plan(1, 2), Plan(1, 2), Plan(1, 2), Plan(1, 2)),
        (4, Plan(2, 1), Plan(2, 1), Plan(1, 0), Plan(1, 0)),
        (8, Plan(4, 1), Plan(4, 1), Plan(2, 2), Plan(1, 0)),
        (16, Plan(8, 1), Plan(8, 1), Plan(3, 2), Plan(1, 0)),
    ],
)
def test_small_pictures_go_in_segments_and_large_ones_on_many_threads(cores, count, small, hd, full_hd, uhd):
    cores(count)
    assert [h264.plan(*size) for size in ((640, 360), (1280, 720), (1920, 1080), (3840, 2160))] == [
        small,
        hd,
        full_hd,
        uhd,
    ]


class Echo:
    """An encoder that gives back what it gets, one picture late."""

    def __init__(self, gate: threading.Event | None = None, fail: int | None = None) -> None:
        self.gate, self.fail, self.late = gate, fail, []

    def encode(self, picture):
        if self.gate is not None:
            assert self.gate.wait(10)
        if picture is not None and picture == self.fail:
            raise ValueError(f"picture {picture} is broken")
        ready, self.late = self.late, [] if picture is None else [picture]
        return ready


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("pictures", [0, 1, LENGTH - 1, LENGTH, LENGTH + 1, 5 * LENGTH + 7])
def test_all_packets_come_in_order(count, pictures):
    coder = SegmentCoder(Echo, count)
    packets = [packet for i in range(pictures) for packet in coder.encode(i)]
    assert [*packets, *coder.finish()] == list(range(pictures))
    assert not any(thread.name.startswith("x264") for thread in threading.enumerate())


def test_who_brings_pictures_faster_than_they_are_encoded_has_to_wait():
    gate, taken = threading.Event(), []
    coder = SegmentCoder(lambda: Echo(gate), 2)

    def bring():
        for i in range(4 * LENGTH):
            coder.encode(i)
            taken.append(i)

    thread = threading.Thread(target=bring)
    thread.start()
    time.sleep(0.3)
    assert len(taken) == 2 * LENGTH
    gate.set()
    thread.join()
    assert len(list(coder.finish())) == 2 * LENGTH  # the first two segments were given out on the way


def test_a_failure_in_a_segment_is_told():
    coder = SegmentCoder(lambda: Echo(fail=LENGTH + 3), 2)
    with pytest.raises(ValueError, match="is broken"):
        list(map(coder.encode, range(4 * LENGTH)))
    coder.stop()
    coder = SegmentCoder(lambda: Echo(fail=3), 2)
    coder.encode(3)
    with pytest.raises(ValueError, match="is broken"):
        list(coder.finish())
    coder.stop()
    assert not any(thread.name.startswith("x264") for thread in threading.enumerate())


def test_stopping_does_not_encode_what_is_left():
    begun, gate, encoded = threading.Semaphore(0), threading.Event(), []

    class Counting(Echo):
        def encode(self, picture):
            begun.release()
            encoded.append(picture)
            return super().encode(picture)

    coder = SegmentCoder(lambda: Counting(gate), 2)
    for i in range(2 * LENGTH):
        coder.encode(i)
    for _ in range(2):
        assert begun.acquire(timeout=10)  # both segments have a picture in hand
    threading.Timer(0.2, gate.set).start()
    coder.stop()
    assert sorted(encoded) == [0, LENGTH]
    coder.stop()

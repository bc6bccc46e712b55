from __future__ import annotations

import threading

import pytest
import torch

from training.loop import drawn_ahead

GPU = torch.device("cuda")  # a name only: nothing here needs one


def test_every_step_gets_its_own_batch_and_none_is_drawn_beyond_the_last():
    drawn: list[int] = []

    def draw(step: int) -> int:
        drawn.append(step)
        return step

    with drawn_ahead(draw, range(5, 12), GPU) as take:
        assert [take(step) for step in range(5, 12)] == list(range(5, 12))
    assert drawn == list(range(5, 12))


def test_the_next_batches_are_drawn_while_one_is_worked_on():
    ready = threading.Event()

    def draw(step: int) -> int:
        if step == 1:
            ready.set()
        return step

    with drawn_ahead(draw, range(100), GPU) as take:
        take(0)
        assert ready.wait(10)


def test_a_cpu_draws_when_asked():
    drawn: list[int] = []
    with drawn_ahead(lambda step: drawn.append(step), range(10), torch.device("cpu")) as take:
        take(0)
        assert drawn == [0]


def test_what_goes_wrong_is_told_at_its_step():
    def draw(step: int) -> int:
        if step == 1:
            raise ValueError("broken")
        return step

    with drawn_ahead(draw, range(10), GPU) as take:
        assert take(0) == 0
        with pytest.raises(ValueError, match="broken"):
            take(1)

"""Work on many items, on several threads."""

import threading

import pytest

from models.parallel import each


def test_results_come_in_the_order_of_the_items():
    assert each(lambda a, b: a - b, range(50), range(50, 0, -1)) == [2 * i - 50 for i in range(50)]
    assert each(abs, []) == []
    assert each(abs, [-1]) == [1]


def test_calls_run_side_by_side(monkeypatch):
    monkeypatch.setattr("models.parallel._cores", lambda: 2)
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

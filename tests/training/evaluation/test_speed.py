"""Rounds that are kept, so that a run that was stopped goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from training.evaluation import speed


class StubMaker:
    """A system that counts how often it runs."""

    def __init__(self, name: str) -> None:
        self.system = SimpleNamespace(device=torch.device("cpu"))
        self.entry = SimpleNamespace(name=name, settings=dict)
        self.runs = 0

    def make(self, pair, output) -> None:
        self.runs += 1


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(speed, "network_run", lambda maker, stage: lambda: maker.make(None, None))
    return SimpleNamespace(pair=SimpleNamespace(digest=dict), seconds=2)


def test_rounds_are_kept(tmp_path: Path, stage: SimpleNamespace):
    makers = [StubMaker("a"), StubMaker("b")]
    found = speed.measure(makers, stage, tmp_path, 3, {"device": "x"})
    assert [(timing.name, timing.what, len(timing.seconds)) for timing in found["e2e"]] == [
        ("a", "e2e", 3),
        ("b", "e2e", 3),
    ]
    assert [maker.runs for maker in makers] == [8, 8]  # of both kinds a warm-up and three
    with (tmp_path / "net.jsonl").open("a") as file:
        file.write('{"key": "half a li')
    again = speed.measure(makers, stage, tmp_path, 3, {"device": "x"})
    assert [maker.runs for maker in makers] == [8, 8]
    assert again["net"][0].seconds == found["net"][0].seconds


def test_going_on_and_other_circumstances(tmp_path: Path, stage: SimpleNamespace):
    makers = [StubMaker("a")]
    speed.measure(makers, stage, tmp_path, 1, {"device": "x"})
    more = speed.measure(makers, stage, tmp_path, 2, {"device": "x"})
    assert len(more["net"][0].seconds) == 2
    assert makers[0].runs == 4 + 4
    other = speed.measure(makers, stage, tmp_path, 1, {"device": "y"})
    assert len(other["net"][0].seconds) == 1
    assert makers[0].runs == 8 + 4


def test_a_line_says_what_it_ran_on():
    assert "PyTorch" in speed.machine("cpu")

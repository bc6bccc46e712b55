from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from models.memory import trim

PIECE, COUNT = 64 << 10, 2000  # bytes of an array too small to get memory of its own, and how many


def resident() -> int:
    """Bytes of memory that the process has now."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_holes_between_arrays_go_back_to_the_system():
    pieces = [np.ones(PIECE, np.uint8) for _ in range(COUNT)]
    kept = pieces[::2]
    del pieces
    before = resident()
    trim()
    assert before - resident() > PIECE * COUNT // 4  # about half of what was freed, at least
    assert all(piece.all() for piece in kept)


def test_other_systems_and_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr("models.memory.ctypes.CDLL", lambda name: object())
    trim()
    monkeypatch.setattr("models.memory.sys.platform", "win32")
    monkeypatch.setattr("models.memory.ctypes.CDLL", None)
    trim()

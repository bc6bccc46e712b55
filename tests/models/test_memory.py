from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models.memory import keep_freed, out_of_memory, trim

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


FAULTS = """
import ctypes, resource
from models.memory import keep_freed

library, size = ctypes.CDLL(None), 19 << 20  # of a map
library.malloc.restype = ctypes.c_void_p
library.free.argtypes = [ctypes.c_void_p]

def maps():
    pieces = [library.malloc(size) for _ in range(3)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    for piece in pieces:
        library.free(piece)

if {keep}:
    keep_freed()
maps(), maps()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    maps()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such choice")
def test_freed_maps_are_used_again_instead_of_asked_for_anew():
    def faults(keep: bool) -> int:
        program = [sys.executable, "-c", FAULTS.format(keep=keep)]
        root = Path(__file__).parents[2]
        return int(subprocess.run(program, cwd=root, capture_output=True, text=True, check=True).stdout)

    assert faults(True) < 5000 < faults(False)  # thirty maps of 4,864 pages of 4 KiB


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
            True,
        ),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough memory: you"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_means_that_less_at_a_time_might_work(error, known):
    assert out_of_memory(error) is known


def test_other_systems_and_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr("models.memory.ctypes.CDLL", lambda name: object())
    trim()
    keep_freed()
    monkeypatch.setattr("models.memory.sys.platform", "win32")
    monkeypatch.setattr("models.memory.ctypes.CDLL", None)
    trim()
    keep_freed()

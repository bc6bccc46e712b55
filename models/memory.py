"""How many crops go through a network at a time, by free memory and by what memory says then; giving memory back."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import torch

MOST = {"cpu": 16, "cuda": 256}  # crops beyond which nothing gets faster; other devices as the CPU
MAPS = 12 * 64  # channels of the full size of the crop that are alive at a time, the widest network, with a reserve
# What torch's allocators and the libraries under it say: CUDA, CPU on Linux, CPU on Windows, cuDNN and cuBLAS.
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "_ALLOC_FAILED")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # names of malloc.h
LARGEST = 32 << 20  # bytes of a piece that is kept: where glibc itself ends
KEPT = 128 << 20  # bytes at the end of the heap that are kept
PIXELS = 16 << 20  # of pictures that are worked on at a time where a dozen numbers a pixel are alive: 0.8 GB
SHARE = 0.5  # of the free memory that may be taken: the host and the frames need some, too


def free_bytes(device: torch.device) -> int | None:
    """Memory that can be had on a device now; None where nobody says."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def batch_size(device: torch.device, px: int, itemsize: int) -> int:
    """Crops of `px` pixels a side that a forward pass may hold, at least 1.

    Args:
        device: where it runs.
        px: side of the crop.
        itemsize: bytes of a number in the network's maps.
    """
    most, free = MOST.get(device.type, MOST["cpu"]), free_bytes(device)
    return most if free is None else max(1, min(most, int(SHARE * free) // (MAPS * px * px * itemsize)))


def parts(count: int, pixels: int) -> list[slice]:
    """So many pictures in parts that are worked on at a time, by the pixels of each."""
    step = max(1, PIXELS // max(1, pixels))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def out_of_memory(error: BaseException) -> bool:
    """Whether a failure means that less at a time might work."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def release(device: torch.device) -> None:
    """Give back what the allocator keeps, so that a smaller batch finds room in one piece."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def trim() -> None:
    """Give freed memory of the process back to the system, where its C library can (glibc).

    Frames come and go between smaller things that stay, and the holes that they leave are kept: without this a job of
    minutes ends a sixth larger than one of seconds. Takes some milliseconds.
    """
    if sys.platform == "linux":
        give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if give_back is not None:
            give_back(0)


def keep_freed() -> None:
    """Keep some freed memory of the process for its next use, where its C library can (glibc); `trim` gives it back.

    A large map that is asked for anew comes as pages that the system first has to find and clear: 5 ms for 64 channels
    of 16 crops of 96 px, longer than the convolution that fills them. How much glibc keeps by itself depends on what
    the process happened to do before; from now on these numbers hold.
    """
    if sys.platform == "linux":
        choose = getattr(ctypes.CDLL(None), "mallopt", None)
        if choose is not None:
            choose(M_MMAP_THRESHOLD, LARGEST)
            choose(M_TRIM_THRESHOLD, KEPT)


def wait_for(device: torch.device) -> None:
    """Until the device has done everything it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor on the device; to a GPU out of pinned memory, so that it computes while the copy runs."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)

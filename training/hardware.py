"""What this machine could do at most, measured: multiply-adds a second of large products and convolutions; and memory.

A share of the limit needs a limit of the same number type, machine and minute: data sheets know neither the clock nor
the neighbours.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.memory import wait_for

SIDES = {"cuda": (4096, 8192), "cpu": (1024, 2048)}  # of square matrices
# batch, channels, side of maps: shapes of these networks and one that suits the hardware best
MAPS = {"cuda": ((64, 512, 32), (64, 256, 64)), "cpu": ((16, 512, 12), (8, 512, 32))}
LEAST_SECONDS = 0.05  # of a timed run


def peak(dtype: torch.dtype, device: torch.device, repeats: int = 3) -> dict[str, float]:
    """Operations a second (2 a multiply-add) that matrix products and 3x3 convolutions reach: the best of some shapes.

    Returns:
        "matmul" and "conv".
    """
    kind = device.type if device.type in SIDES else "cpu"
    with torch.inference_mode():
        products = max(_product(side, dtype, device, repeats) for side in SIDES[kind])
        convolutions = max(_convolution(*shape, dtype, device, repeats) for shape in MAPS[kind])
    return {"matmul": products, "conv": convolutions}


def _product(side: int, dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: a @ b, device, repeats)


def _convolution(batch: int, channels: int, side: int, dtype: torch.dtype, device: torch.device, repeats: int) -> float:
    layer = nn.Conv2d(channels, channels, 3, padding=1).to(device, dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    maps = torch.randn(batch, channels, side, side, device=device).to(dtype)
    maps = maps.contiguous(memory_format=torch.channels_last)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=torch.backends.cudnn.allow_tf32):
        return 2 * 9 * batch * side**2 * channels**2 / _seconds(lambda: layer(maps), device, repeats)


def _seconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Of one call: the fastest of some series that are long enough for the clock."""
    for _ in range(3):
        run()
    wait_for(device)
    begun = time.perf_counter()
    run()
    wait_for(device)
    calls = max(1, round(LEAST_SECONDS / max(1e-6, time.perf_counter() - begun)))
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        for _ in range(calls):
            run()
        wait_for(device)
        times.append((time.perf_counter() - begun) / calls)
    return min(times)


def environment(device: torch.device) -> dict[str, Any]:
    """The machine, the software, and what else was going on."""
    known: dict[str, Any] = {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }
    if device.type == "cuda":
        known |= {"gpu": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
        known["cudnn"] = torch.backends.cudnn.version()
    if hasattr(os, "getloadavg"):
        known["load"] = round(os.getloadavg()[0], 2)  # programs that wanted a core in the minute before
    return known


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    kinds = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    able = [name.removeprefix("_is_").removesuffix("_supported") for name in kinds if getattr(torch.cpu, name, bool)()]
    return " ".join([names[0] if names else platform.processor() or platform.machine(), *able])


def forget_peak_memory(device: torch.device) -> None:
    """Begin to count the most memory anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    reset = Path("/proc/self/clear_refs")
    if reset.is_file():
        try:
            reset.write_text("5", encoding="ascii")  # the high-water mark falls to what is resident now
        except OSError:
            return


def peak_memory(device: torch.device) -> int | None:
    """Most bytes since `forget_peak_memory`: on a GPU of tensors, else of the whole process; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.is_file() else []
    found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(found[0]) * 1024 if found else None

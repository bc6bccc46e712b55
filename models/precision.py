"""Which number type a network computes in: the fastest one here whose pictures are those of float32.

Both are measured, with the network, the machine and the crops of the job at hand. What a processor can do says little:
bfloat16 is four times as fast as float32 on a CPU with tiles and slower on one without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .memory import out_of_memory, wait_for
from .networks.blocks import Style
from .networks.wavsyncswap import WavSyncSwap

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NAMES = {dtype: name for name, dtype in PRECISIONS.items()}
BOUND = 1 / 255  # mean absolute difference to float32 that a picture may have: one grey level
GAIN = 1.2  # times as fast as float32 that another type has to be, so that chance does not decide
SAMPLE = 4  # crops that are measured
REPEATS = 2


@dataclass(frozen=True)
class Trial:
    """One number type: seconds of the sample, and mean absolute difference of the pictures to float32's."""

    dtype: torch.dtype
    seconds: float
    difference: float

    def __str__(self) -> str:
        return f"{NAMES[self.dtype]} {1000 * self.seconds:.1f} ms, {255 * self.difference:.3f} levels"


def named_dtype(precision: str) -> torch.dtype:
    """Number type of a precision name.

    Raises:
        ValueError: the name is unknown.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"Precision {precision!r} is unknown; choose auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[precision]


def candidates(device: torch.device) -> list[torch.dtype]:
    """Types besides float32 that the device computes in hardware."""
    if device.type == "cuda":
        return [*[torch.bfloat16] * torch.cuda.is_bf16_supported(), torch.float16]
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    able = device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in names)
    return [torch.bfloat16] * able


def set_precision(network: nn.Module, dtype: torch.dtype) -> None:
    """Convert a network in inference form in place; what makes styles of an identity stays float32, exactly."""
    exact: list[nn.Module] = [module for module in network.modules() if isinstance(module, Style)]
    exact += [module.style_projection for module in network.modules() if isinstance(module, WavSyncSwap)]
    kept = {id(parameter) for module in exact for parameter in module.parameters()}
    with torch.inference_mode(False), torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.is_floating_point() and id(tensor) not in kept:
                tensor.data = tensor.data.to(dtype)


def settle(network: nn.Module, draw: Callable[[], Tensor], device: torch.device) -> list[Trial]:
    """Put a float32 network into the fastest type whose pictures are the same.

    Args:
        network: float32, in inference form.
        draw: draws the sample with the network as it is.
        device: where it runs.

    Returns:
        What was tried, float32 first; empty where there was nothing to choose.
    """
    types = candidates(device)
    if not types:
        return []
    exact = [(tensor, tensor.data) for tensor in (*network.parameters(), *network.buffers())]
    reference, seconds = _timed(draw, device)
    trials, best = [Trial(torch.float32, seconds, 0.0)], torch.float32
    for dtype in types:
        set_precision(network, dtype)
        try:
            pictures, seconds = _timed(draw, device)
        except RuntimeError as error:  # the type is not implemented for some layer here
            if out_of_memory(error):
                raise
        else:
            trials.append(Trial(dtype, seconds, float((pictures - reference).abs().mean())))
        finally:
            _restore(exact)
    fit = [trial for trial in trials[1:] if trial.difference < BOUND and trial.seconds * GAIN < trials[0].seconds]
    if fit:
        best = min(fit, key=lambda trial: trial.seconds).dtype
        set_precision(network, best)
    return trials


def _restore(exact: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, data in exact:
        tensor.data = data


def _timed(draw: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """The pictures as float32, and the seconds of the fastest of some repeats after one to warm up."""
    pictures, times = draw().float(), []
    for _ in range(REPEATS):
        wait_for(device)
        begun = time.perf_counter()
        draw()
        wait_for(device)
        times.append(time.perf_counter() - begun)
    return pictures, min(times)

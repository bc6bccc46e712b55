"""torch.compile, and with it CUDA graphs, where they work; where not, the network as it is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from .memory import out_of_memory

log = logging.getLogger(__name__)


class Compiled:
    """A compiled forward pass that falls back to the plain one for good when compiling or running it fails.

    Batches are padded to the largest seen, so that a clip's last one does not compile everything again.

    Args:
        plain: (tensors with rows, anything else ...) -> rows. Takes only tensors that have as many rows, and lists.
        device: with CUDA, kernels are replayed as graphs.
    """

    def __init__(self, plain: Callable[..., Tensor], device: torch.device) -> None:
        self._plain, self._rows = plain, 0
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        self._fast: Callable[..., Tensor] | None = torch.compile(plain, mode=mode, dynamic=False)

    def __call__(self, *arguments: Any) -> Tensor:
        """As `plain`."""
        if self._fast is None:
            return self._plain(*arguments)
        count = len(arguments[0])
        rows = max(self._rows, count)
        try:
            with _frozen_weights(arguments[0].device):
                made = self._fast(*(padded(a, rows) if isinstance(a, Tensor) else a for a in arguments))
            self._rows = rows
            return made[:count].clone()  # a graph's next run writes over its output
        except Exception as error:  # compilers, their drivers and toolchains fail in ways of their own
            if out_of_memory(error):
                self._rows = 0  # else the smaller batch that is tried next would be filled up again
                raise
            log.warning("torch.compile does not work here (%s); going on without it.", str(error).partition("\n")[0])
            self._fast = None
            return self._plain(*arguments)


def _frozen_weights(device: torch.device) -> AbstractContextManager[Any]:
    """On a CPU: the compiler takes the weights as constants.

    They are then put in the order of its tiles once and not at every call, and a convolution takes the ReLU after it
    along: base-96 in bfloat16 takes three quarters of the time.
    """
    if device.type != "cpu":
        return nullcontext()
    from torch._inductor import config  # imports the compiler

    return config.patch(freezing=True)


def padded(rows: Tensor, count: int) -> Tensor:
    """Rows [n, ...] with the last one repeated up to `count`, in the same memory format."""
    missing = count - len(rows)
    if not missing:
        return rows
    more = torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])])
    layout = torch.channels_last if rows.ndim == 4 and rows.is_contiguous(memory_format=torch.channels_last) else None
    return more if layout is None else more.contiguous(memory_format=layout)

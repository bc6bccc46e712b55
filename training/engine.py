"""Device, number type and processes of a run, through lightning-fabric.

Started plainly a run is one process on one device. Started by `torchrun`, every process works on its share of the
recipe's batch, and the weights become those that one process would have made of the whole.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from models.precision import candidates

from .global_batch import with_global_statistics

PATIENCE = timedelta(hours=2)  # how long processes wait for one that measures or prepares


def settled(precision: str, device: torch.device) -> str:
    """What "auto" means on a device: bf16 where it is computed in hardware, else fp32, which is faster there."""
    if precision != "auto":
        return precision
    absent = device.type == "cuda" and not torch.cuda.is_available()  # which is told where the device is taken
    return "bf16" if not absent and torch.bfloat16 in candidates(device) else "fp32"


class Engine:
    """One process's place in a run.

    Args:
        device: "cpu", "cuda" or "cuda:N"; under torchrun without a number, every process takes its own.
        precision: "bf16" (autocast), "fp32", or "auto", see `settled`.

    Attributes:
        index, count: which process this is, of how many.
        device: where it computes.

    Raises:
        ImportError: lightning-fabric is not installed.
        ValueError: the device is not there, or one device was named for several processes.
    """

    def __init__(self, device: str = "cpu", precision: str = "fp32") -> None:
        fabric_class, ddp = _fabric()
        kind, _, number = device.partition(":")
        together, here = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        found = torch.cuda.device_count()
        if kind == "cuda" and (number or here) and found < (int(number) + 1 if number else here):
            raise ValueError(f"--device {device} for {here} process(es), but this machine has {found} CUDA device(s).")
        if number and together > 1:
            raise ValueError(f"--device {device} names one device for {together} processes. Give --device {kind}.")
        self.fabric: Any = fabric_class(
            accelerator=kind,
            devices=[int(number)] if number else here,
            num_nodes=together // here,
            # Buffers are the same everywhere already: statistics are global, and the rest is frozen.
            strategy=ddp(timeout=PATIENCE, broadcast_buffers=False) if together > 1 else "auto",
            precision="bf16-mixed" if settled(precision, torch.device(kind)) == "bf16" else "32-true",
        )
        self.fabric.launch()
        self.index, self.count = self.fabric.global_rank, self.fabric.world_size
        self.device: torch.device = self.fabric.device
        if kind == "cuda":
            torch.backends.cudnn.benchmark = True  # every step has the same shapes

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and speaks."""
        return self.index == 0

    def setup(self, module: nn.Module, compiled: bool) -> nn.Module:
        """Move a module and make its forward pass, called on the result, part of the run.

        With several processes nothing is compiled: every batch norm asks the others, which breaks the graph.
        """
        if self.device.type == "cuda":  # the layout that tensor cores work in
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.count > 1:
            return self.fabric.setup_module(with_global_statistics(module))
        return self.fabric.setup_module(torch.compile(module) if compiled else module)

    def precise(self) -> AbstractContextManager:
        """The run's number type where it may be less than float32."""
        return self.fabric.autocast()

    def backward(self, loss: Tensor, **options: Any) -> None:
        """Gradients, averaged over the processes unless `alone`; options as of `Tensor.backward`."""
        self.fabric.backward(loss, **options)

    def alone(self, module: nn.Module, enabled: bool = True) -> AbstractContextManager:
        """Forward and backward pass of a module from `setup` whose gradients no other process hears of."""
        return self.fabric.no_backward_sync(module, enabled)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes."""
        return self.fabric.all_reduce(values, reduce_op="mean")

    def any(self, flag: bool) -> bool:
        """Whether any process says so: all go the same way."""
        return flag if self.count == 1 else bool(self.mean(torch.tensor(float(flag), device=self.device)))

    def one_by_one(self) -> AbstractContextManager:
        """What is inside runs in the first process and only then in the others, who find its files."""
        return self.fabric.rank_zero_first()

    def wait(self) -> None:
        """Until all processes are here."""
        self.fabric.barrier()

    def close(self) -> None:
        """Leave the other processes, once there is nothing more to do."""
        if self.count > 1:
            self.wait()
            torch.distributed.destroy_process_group()


def _fabric() -> tuple[Any, Any]:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies import DDPStrategy
    except ImportError as error:
        raise ImportError(
            'Training needs lightning-fabric. Install it: pip install "lightning-fabric>=2.6.6" (or all that '
            "training and tests use: pip install -r requirements-dev.txt)."
        ) from error
    return Fabric, DDPStrategy

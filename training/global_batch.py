"""What has to see the whole batch when several processes share it: batch statistics, and contrastive rows.

Each process works on its rows and its gradients are averaged over the processes. That is the gradient of the whole
batch where a loss is a mean over rows; batch norm and contrastive losses couple rows, so these gather first.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

M = TypeVar("M", bound=nn.Module)


def processes() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _Gather(torch.autograd.Function):
    """All processes' tensors; the gradient of each goes home, summed over all that used it."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(processes())]
        distributed.all_gather(parts, own.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        distributed.all_reduce(summed)
        return summed[distributed.get_rank()]


def gathered(own: Tensor) -> Tensor:
    """The tensors of all processes, differentiable.

    Args:
        own: the same shape [...] in every process.

    Returns:
        [processes, ...].
    """
    return own[None] if processes() == 1 else _Gather.apply(own)


def whole(rows: Tensor) -> Tensor:
    """Rows [B / processes, ...] of all processes in the order of the whole batch, [B, ...], differentiable.

    Row i of the whole batch is row i // processes of process i % processes, as `Batch.part` deals them.
    """
    return gathered(rows).transpose(0, 1).flatten(0, 1)


class GlobalBatchNorm(nn.BatchNorm2d):
    """Batch norm with the statistics of all processes' rows, of which each has as many.

    torch's own SyncBatchNorm refuses CPU tensors. This one runs on any back end, so that what is tested on two CPU
    processes is what runs on many GPUs. One gathering of two numbers a channel each way. Statistics are float32.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same shape and dtype; in eval mode the plain layer."""
        if not self.training:
            return super().forward(x)
        y = x.float()
        variance, mean = torch.var_mean(y, (0, 2, 3), correction=0)
        means, variances = gathered(torch.stack([mean, variance])).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        self._remember(mean.detach(), variance.detach(), processes() * x.numel() // x.shape[1])
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (y * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        self.num_batches_tracked.add_(1)


def with_global_statistics(module: M) -> M:
    """Make every 2-D batch norm inside a module a global one, in place; names and state stay as they are."""
    for inner in module.modules():
        if type(inner) is nn.BatchNorm2d:
            inner.__class__ = GlobalBatchNorm  # same state, another forward pass: parameters stay the optimiser's
    return module

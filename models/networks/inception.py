"""FID's Inception: the network of 2015 whose features FID compares (Szegedy et al. 2016; specification section 6.3).

Keys are those of torchvision's inception_v3 without the auxiliary head, and of the public pt_inception-2015-12-05
file. It differs from torchvision's network in its pools: averages leave the padding out, and the last block takes the
maximum.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 2048
CLASSES = 1008  # of the head, which is loaded but not used

Size = int | tuple[int, int]
ROW, COLUMN, BOTH = (1, 3), (3, 1), "both"
# name, channels out, kernel (BOTH = a row and a column side by side), stride; the padding keeps the size at stride 1
Step = tuple[str, int, Size | str, int]


class FIDInception(nn.Module):
    """Pictures float [B,3,299,299] RGB in [-1,1] -> [B,2048], the mean over the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = _Conv(3, 32, 3, 2, 0)
        self.Conv2d_2a_3x3 = _Conv(32, 32, 3, 1, 0)
        self.Conv2d_2b_3x3 = _Conv(32, 64, 3, 1, 1)
        self.Conv2d_3b_1x1 = _Conv(64, 80, 1, 1, 0)
        self.Conv2d_4a_3x3 = _Conv(80, 192, 3, 1, 0)
        self.Mixed_5b = _square(192, 32)
        self.Mixed_5c = _square(256, 64)
        self.Mixed_5d = _square(288, 64)
        self.Mixed_6a = _Mixed(288, [[("branch3x3", 384, 3, 2)], _double(64, 96, 2)], "reduce")
        self.Mixed_6b = _long(128)
        self.Mixed_6c = _long(160)
        self.Mixed_6d = _long(160)
        self.Mixed_6e = _long(192)
        seven: list[Step] = [
            ("branch7x7x3_1", 192, 1, 1),
            ("branch7x7x3_2", 192, (1, 7), 1),
            ("branch7x7x3_3", 192, (7, 1), 1),
        ]
        three: list[Step] = [("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)]
        self.Mixed_7a = _Mixed(768, [three, [*seven, ("branch7x7x3_4", 192, 3, 2)]], "reduce")
        self.Mixed_7b = _wide(1280, "average")
        self.Mixed_7c = _wide(2048, "maximum")
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, pictures: Tensor) -> Tensor:
        """Describe pictures.

        Raises:
            ValueError: the shape is not [B,3,H,W] with sides of 75 px at least.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or min(pictures.shape[2:]) < 75:
            raise ValueError(f"FID's Inception expects pictures [B,3,299,299], got {list(pictures.shape)}.")
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(pictures)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(functional.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return x.mean((2, 3))


class _Conv(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: Size, stride: int, padding: Size) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)))


class _Mixed(nn.Module):
    """Chains of convolutions side by side, and a pool; all outputs in a row of channels.

    Args:
        inputs: channels in.
        chains: steps one after the other.
        pool: "average" or "maximum", followed by `branch_pool`; "reduce" = maximum with stride 2 and nothing after it.
        pooled: channels of `branch_pool`.
    """

    def __init__(self, inputs: int, chains: Sequence[Sequence[Step]], pool: str, pooled: int = 192) -> None:
        super().__init__()
        self.pool = pool
        self.chains: list[list[list[str]]] = []
        for chain in chains:
            width, steps = inputs, []
            for name, outputs, kernel, stride in chain:
                parts: dict[str, Size] = {f"{name}a": ROW, f"{name}b": COLUMN}
                if not isinstance(kernel, str):
                    parts = {name: kernel}
                for part, size in parts.items():
                    self.add_module(part, _Conv(width, outputs, size, stride, _same(size) if stride == 1 else 0))
                width = outputs
                steps.append(list(parts))
            self.chains.append(steps)
        if pool != "reduce":
            self.branch_pool = _Conv(inputs, pooled, 1, 1, 0)

    def forward(self, x: Tensor) -> Tensor:
        results = []
        for chain in self.chains:
            y = x
            for parts in chain:
                y = torch.cat([getattr(self, part)(y) for part in parts], 1)
            results.append(y)
        if self.pool == "reduce":
            return torch.cat([*results, functional.max_pool2d(x, 3, 2)], 1)
        if self.pool == "maximum":
            around = functional.max_pool2d(x, 3, 1, 1)
        else:
            around = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*results, self.branch_pool(around)], 1)


def _same(kernel: Size) -> tuple[int, int]:
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    return high // 2, wide // 2


def _double(first: int, then: int, stride: int) -> list[Step]:
    names = [f"branch3x3dbl_{i}" for i in (1, 2, 3)]
    return [(names[0], first, 1, 1), (names[1], then, 3, 1), (names[2], then, 3, stride)]


def _square(inputs: int, pooled: int) -> _Mixed:
    five: list[Step] = [("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)]
    return _Mixed(inputs, [[("branch1x1", 64, 1, 1)], five, _double(64, 96, 1)], "average", pooled)


def _long(width: int) -> _Mixed:
    row, column = (1, 7), (7, 1)
    single: list[Step] = [
        ("branch7x7_1", width, 1, 1),
        ("branch7x7_2", width, row, 1),
        ("branch7x7_3", 192, column, 1),
    ]
    double: list[Step] = [
        ("branch7x7dbl_1", width, 1, 1),
        ("branch7x7dbl_2", width, column, 1),
        ("branch7x7dbl_3", width, row, 1),
        ("branch7x7dbl_4", width, column, 1),
        ("branch7x7dbl_5", 192, row, 1),
    ]
    return _Mixed(768, [[("branch1x1", 192, 1, 1)], single, double], "average")


def _wide(inputs: int, pool: str) -> _Mixed:
    single: list[Step] = [("branch3x3_1", 384, 1, 1), ("branch3x3_2", 384, BOTH, 1)]
    double: list[Step] = [
        ("branch3x3dbl_1", 448, 1, 1),
        ("branch3x3dbl_2", 384, 3, 1),
        ("branch3x3dbl_3", 384, BOTH, 1),
    ]
    return _Mixed(inputs, [[("branch1x1", 320, 1, 1)], single, double], pool)

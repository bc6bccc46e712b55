"""Where stored crops are when batches are cut out of them: in their file, or all in a GPU's memory.

A GPU trains on thousands of crops a second. Cutting them on the CPU would leave it waiting; on the GPU it takes a
hundredth of a step. An hour of faces at 96 px takes 4 GB there.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from torch import Tensor

from .clips import Pictures

log = logging.getLogger(__name__)
MOST = 0.3  # of the free memory of a GPU that crops may take
PART = 4096  # crops that go there at once


class Shelf:
    """Stored crops by row.

    Args:
        pictures: all of them.
        device: where rows are wanted. A GPU holds all pictures if they fit into `MOST` of its free memory.
    """

    def __init__(self, pictures: Pictures, device: torch.device) -> None:
        self.device, self._pictures = device, pictures
        self._held = _moved(pictures, device) if device.type == "cuda" else None

    def rows(self, rows: np.ndarray) -> Tensor:
        """Stored crops of some rows [N], uint8 [N, S, S, 3]."""
        if self._held is not None:
            return self._held[torch.from_numpy(rows).to(self.device)]
        return torch.from_numpy(np.ascontiguousarray(self._pictures[rows])).to(self.device)

    def means(self, groups: list[np.ndarray]) -> Tensor:
        """Mean picture of each group of rows, uint8 [len(groups), S, S, 3]."""
        if self._held is None:
            means = [self._pictures[rows].mean(0).round().astype(np.uint8) for rows in groups]
            return torch.from_numpy(np.stack(means)).to(self.device)
        counts = torch.tensor([len(rows) for rows in groups])
        owner = torch.arange(len(groups)).repeat_interleave(counts).to(self.device)
        pictures = self.rows(np.concatenate(groups))
        # Sums of whole numbers: the same in whatever order the device adds them.
        sums = torch.zeros(len(groups), *pictures.shape[1:], device=self.device).index_add_(0, owner, pictures.float())
        return (sums / counts.to(self.device)[:, None, None, None]).round().byte()


def _moved(pictures: Pictures, device: torch.device) -> Tensor | None:
    size, free = int(np.prod(pictures.shape)), torch.cuda.mem_get_info(device)[0]
    if size > MOST * free:
        log.warning(
            "crops take %.1f GB, too much for %.1f GB of free GPU memory: they are cut on the CPU",
            size / 1e9,
            free / 1e9,
        )
        return None
    held = torch.empty(tuple(pictures.shape), dtype=torch.uint8, device=device)
    for first in range(0, len(pictures), PART):
        held[first : first + PART] = torch.from_numpy(np.ascontiguousarray(pictures[first : first + PART])).to(device)
    return held

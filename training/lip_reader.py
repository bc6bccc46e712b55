"""What the lips of a picture do: mouth region -> 14 mouth numbers, trained once, then frozen in the generator's loss.

A swapped frame has no ground truth to compare pixels with, but its mouth must do what the target's mouth does at that
moment. Comparing what a reader sees in both gives lips in sync on swapped faces too; no contrastive expert is needed,
which a few minutes of data cannot train (spec section 9).
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from models.checkpoints import bundled_path, load_any, load_into
from models.networks.lip_reader import SIDE, LipReader

from .batches import Batches, sample
from .clips import OPENING, Clip, ClipSet
from .engine import settled

BUILTIN = "lip_reader.safetensors"

log = logging.getLogger(__name__)


def load_reader(path: Path) -> LipReader:
    """The bundled reader, or one saved by a training run (lip_reader.pt), in eval mode.

    Raises:
        ValueError: the file is missing, damaged, or holds something else.
    """
    reader = LipReader()
    load_into(reader, load_any(path)[0], path.name)
    return reader.eval()


def reader_path(name: str) -> Path | None:
    """File of the reader that a command was given: "builtin", "none" or a path."""
    return {"builtin": bundled_path(BUILTIN), "none": None}.get(name, Path(name))


def softened(crops: Tensor, seed: int) -> Tensor:
    """Crops as a half-trained generator draws them: half of them blurred by averaging down and up again."""
    random = torch.Generator().manual_seed(seed)
    side = int(torch.randint(28, 96, (), generator=random))
    small = nn.functional.interpolate(crops, (side, side), mode="area")
    blurred = nn.functional.interpolate(small, crops.shape[-2:], mode="bilinear")
    chosen = (torch.rand(len(crops), 1, 1, 1, generator=random) < 0.5).to(crops.device)
    return torch.where(chosen, blurred, crops)


def lip_scale(data: ClipSet) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [14] of the mouth numbers over the training frames."""
    rows = np.concatenate([data.lips[c.start : c.start + c.frames] for c in data.training()])
    return torch.from_numpy(rows.mean(0)), torch.from_numpy(rows.std(0) + 1e-6)


def reading_correlation(reader: LipReader, data: ClipSet, clips: list[Clip]) -> tuple[float, float]:
    """Mean over clips of the correlation over all 14 numbers, and of lip opening alone."""
    totals = []
    for clip in clips:
        rows = np.arange(clip.start, clip.start + clip.frames)
        with torch.inference_mode():
            read = reader(sample(data.crops[rows], np.tile(np.eye(3), (len(rows), 1, 1)), SIDE)).numpy()
        values = [np.corrcoef(a, b)[0, 1] for a, b in zip(read.T, data.lips[rows].T, strict=True)]
        totals.append((np.nanmean(values), values[OPENING]))
    mean = np.mean(totals, 0)
    return float(mean[0]), float(mean[1])


def pretrain_reader(data: ClipSet, batches: Batches, steps: int, seed: int = 0) -> tuple[LipReader, dict[str, float]]:
    """Train a reader on the training clips' measured mouths.

    Args:
        data: prepared clips.
        batches: where the jittered, recoloured pictures come from; training runs on their device.
        steps: optimiser steps at batch 64.
        seed: seed of weights and order.

    Returns:
        The reader in eval mode on the CPU, and its correlations on the val clips; nothing where there are none.
    """
    torch.manual_seed(seed)
    device = batches.shelf.device
    reader = LipReader().to(device)
    mean, deviation = lip_scale(data)
    optimizer = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    lips = torch.from_numpy(data.lips)
    started = time.monotonic()
    for step in range(steps):
        crops, rows = batches.pictures(step, 64)
        with torch.autocast(device.type, torch.bfloat16, enabled=settled("auto", device) == "bf16"):
            read = reader(softened(crops, step))
        wanted = ((lips[rows] - mean) / deviation).clamp(-4, 4).to(device)
        loss = nn.functional.smooth_l1_loss(read.float(), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 200 == 0:
            log.info("lip reader step %d loss %.3f, %.0f s", step, loss.item(), time.monotonic() - started)
    reader.cpu().eval()
    if not data.of("val"):
        log.info("lip reader: nobody is held out, so it is not measured")
        return reader, {}
    everything, opening = reading_correlation(reader, data, data.of("val"))
    log.info("lip reader on val: mean correlation %.3f, lip opening %.3f", everything, opening)
    return reader, {"mouth_correlation_val": everything, "opening_correlation_val": opening}

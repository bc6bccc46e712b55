"""Supervised start of the audio tower: mel window -> 14 mouth numbers.

A tower that starts from noise does not begin to listen for hours under L1 or a contrastive loss; two minutes of direct
supervision give a mouth-opening correlation above 0.5 on unseen people (spec section 9).
"""

from __future__ import annotations

import logging
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .clips import OPENING, Clip, ClipSet
from .engine import settled

log = logging.getLogger(__name__)
AVERAGE = 0.995  # of the weights over steps; the tower is small and its steps are noisy


def rows_of(clips: list[Clip]) -> np.ndarray:
    """Row numbers of all frames of the clips, int64 [F]."""
    return np.concatenate([np.arange(clip.start, clip.start + clip.frames) for clip in clips])


def fair_weights(clips: list[Clip]) -> Tensor:
    """How often each frame of the clips is drawn, float64 [F] with sum 1: a clip counts by the root of its length.

    Long clips matter more, but one person must not own the network.
    """
    weights = np.concatenate([np.full(clip.frames, clip.frames**-0.5) for clip in clips])
    return torch.from_numpy(weights / weights.sum())


def augment_mel(mel: Tensor, generator: torch.Generator) -> Tensor:
    """Gain of +-0.7, one roll of +-3 bands for the batch, one masked run of up to 12 bands per sample.

    Args:
        mel: float32 [B, 1, 80, 16].
        generator: source of randomness.

    Returns:
        New tensor of the same shape in [-4, 4].
    """
    batch = len(mel)
    mel = mel + (torch.rand(batch, 1, 1, 1, generator=generator) * 1.4 - 0.7)
    mel = mel.roll(int(torch.randint(-3, 4, (1,), generator=generator)), 2)
    start = torch.randint(0, 80, (batch, 1), generator=generator)
    width = torch.randint(0, 13, (batch, 1), generator=generator)
    bands = torch.arange(80)[None]
    hidden = (bands >= start) & (bands < start + width)
    return mel.masked_fill(hidden[:, None, :, None], -4.0).clamp(-4, 4)


def opening_correlation(tower: nn.Module, head: nn.Module, data: ClipSet, clips: list[Clip]) -> tuple[float, float]:
    """Mean over clips of the correlation over all 14 numbers, and of lip opening alone."""
    totals = []
    for clip in clips:
        rows = slice(clip.start, clip.start + clip.frames)
        with torch.inference_mode():
            predicted = head(tower(torch.from_numpy(data.windows[rows])[:, None]).flatten(1)).numpy()
        values = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted.T, data.mouth[rows].T, strict=True)]
        totals.append((np.nanmean(values), values[OPENING]))
    mean = np.mean(totals, 0)
    return float(mean[0]), float(mean[1])


def pretrain(
    data: ClipSet, steps: int, tower: nn.Module, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[nn.Module, dict[str, float]]:
    """Train an audio tower against the measured mouths of the training clips.

    Args:
        data: prepared clips.
        steps: optimiser steps at batch 128.
        tower: fresh, mel [B, 1, 80, 16] -> [B, C, 1, 1].
        seed: of order and augmentation.
        device: where to train.

    Returns:
        The same tower, in eval mode on the CPU, and its correlations on the val clips; nothing where there are none.
    """
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    head = nn.Linear(len(list(tower.parameters())[-1]), 14)  # the last norm has a number a channel
    model = nn.Sequential(tower, nn.Flatten(), nn.Dropout(0.2), head).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    clips = data.training()
    rows, weights = rows_of(clips), fair_weights(clips)
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(AVERAGE), use_buffers=True)
    windows, mouth = torch.from_numpy(data.windows), torch.from_numpy(data.mouth)
    fast = settled("auto", torch.device(device)) == "bf16"
    started = time.monotonic()
    for step in range(steps):
        picked = torch.from_numpy(rows[torch.multinomial(weights, 128, replacement=True, generator=random).numpy()])
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=fast):
            predicted = model(augment_mel(windows[picked][:, None], random).to(device))
        loss = nn.functional.smooth_l1_loss(predicted.float(), mouth[picked].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        if step % 100 == 0:
            log.info("audio tower step %d loss %.3f, %.0f s", step, loss.item(), time.monotonic() - started)
    model.load_state_dict(average.module.state_dict())
    model.cpu().eval()
    if not data.of("val"):
        log.info("audio tower: nobody is held out, so it is not measured")
        return tower, {}
    everything, opening = opening_correlation(tower, head, data, data.of("val"))
    log.info("audio tower on val: mean correlation %.3f, lip opening %.3f", everything, opening)
    return tower, {"mouth_correlation_val": everything, "opening_correlation_val": opening}

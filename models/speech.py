"""When does somebody speak: an activity curve beside the mel, and the gate that quiets the mel elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .resample import Read

HOP = 200  # samples at 16 kHz, one mel column
FRAME = 400  # samples, 25 ms
SILENT_DB = -60.0  # dBFS; below this nothing is speech, however quiet the rest
LEAST_CONTRAST = 9.0  # dB between loud and quiet columns; steadier sound is noise or music, hardly speech
BLOCK = 1024  # columns computed at a time, about 13 s
HANGOVER = 10  # columns (125 ms) by which speech is drawn out on both sides, so that no onset comes late


def speech_activity(waveform: Tensor) -> Tensor:
    """How likely somebody speaks, from the level alone, adapted to the recording's own noise floor.

    Args:
        waveform: float32 [T], 16 kHz mono.

    Returns:
        float32 [1 + T // 200] in [0, 1]; digital silence is 0, steady noise near 0.
    """
    return activity_of(lambda start, stop: waveform[start:stop], len(waveform))


def activity_of(read: Read, samples: int) -> Tensor:
    """`speech_activity` of a sound of so many samples that is read once, from its beginning to its end."""
    columns = 1 + samples // HOP
    if not samples:
        return torch.zeros(columns)
    level = torch.empty(columns, dtype=torch.float64)
    for start in range(0, columns, BLOCK):  # double samples of an hour would fill gigabytes
        stop = min(start + BLOCK, columns)
        level[start:stop] = 10 * torch.log10(_power(read, samples, start, stop) + 1e-12)
    return level_activity(level)


def _power(read: Read, samples: int, start: int, stop: int) -> Tensor:
    """Mean squares around columns start .. stop - 1, float64; there is nothing before and after the sound."""
    first, last = start * HOP - FRAME // 2, (stop - 1) * HOP + FRAME // 2
    part = read(max(0, first), min(last, samples)).double()
    padded = functional.pad(part, (max(0, -first), max(0, last - samples)))
    return functional.avg_pool1d(padded.square()[None], FRAME, HOP)[0]


def level_activity(level: Tensor) -> Tensor:
    """`speech_activity` of a level curve.

    Args:
        level: float64 [T] dBFS, one a mel column.

    Returns:
        float32 [T] in [0, 1].
    """
    columns = len(level)
    audible = level[level > SILENT_DB]
    if not len(audible):
        return torch.zeros(columns)
    # Gaps of digital silence would pass for a very low noise floor: only audible columns vote.
    floor, loud = torch.quantile(_thinned(audible), torch.tensor([0.1, 0.95], dtype=torch.float64)).tolist()
    if len(audible) < columns:  # then silence itself is the floor
        floor = min(floor, max(SILENT_DB, loud - 30))
    contrast = loud - floor
    if contrast < LEAST_CONTRAST:
        return torch.zeros(columns)
    active = ((level - floor) / contrast - 0.25) / 0.25
    active = torch.where(level > SILENT_DB, active, torch.zeros_like(active)).clamp(0, 1).float()
    held = functional.max_pool1d(active[None, None], 2 * HANGOVER + 1, 1, HANGOVER)
    return functional.avg_pool1d(held, 9, 1, 4, count_include_pad=False)[0, 0].clamp(0, 1)


def gate_mel(mel: Tensor, activity: Tensor, strength: float, silence: float) -> Tensor:
    """Draw the mel towards silence where nobody speaks.

    Args:
        mel: float32 [80, T].
        activity: float32 [T] in [0, 1].
        strength: 0 = unchanged, 1 = full silence where activity is 0.
        silence: mel value of silence.

    Returns:
        New float32 [80, T].
    """
    keep = 1 - strength * (1 - activity[None])
    return (mel - silence).mul_(keep).add_(silence)


def _thinned(values: Tensor, most: int = 1_000_000) -> Tensor:
    """Every k-th value: torch.quantile refuses more than 16 million."""
    return values[:: 1 + len(values) // most]

"""Where somebody in a clip is silent with closed lips, told from the stored mel windows and mouth numbers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.audio import (
    MEL_SILENCE,
    MIN_DB,
    N_FFT,
    N_MELS,
    PRE_EMPHASIS,
    REFERENCE_DB,
    SAMPLE_RATE,
    WINDOW_COLUMNS,
    slaney_filter_bank,
    window_starts,
)
from models.speech import level_activity

from .clips import FPS, OPENING, Clip, ClipSet

ACTIVE = 0.05  # speech activity from which on somebody speaks
CLOSED = 0.25  # share of a clip's frames, those of the smallest lip opening, that count as closed


def mel_level(mel: Tensor) -> Tensor:
    """Level of the sound that a mel was made of, back through filter bank and pre-emphasis.

    Within about 2 dB of the waveform's own; 55 to 7600 Hz. Digital silence comes out at -68.5.

    Args:
        mel: float32 [80, T] in [-4, 4].

    Returns:
        float64 [T] dBFS.
    """
    bank = slaney_filter_bank().double()
    area = bank.sum(1)
    hertz = bank @ torch.arange(bank.shape[1], dtype=torch.float64) / area * SAMPLE_RATE / N_FFT  # band centres
    bins = area / bank.amax(1)  # that a band stands for: half of its triangle's base
    emphasis = 1 + PRE_EMPHASIS**2 - 2 * PRE_EMPHASIS * torch.cos(2 * torch.pi * hertz / SAMPLE_RATE)
    decibel = (mel.double() - MEL_SILENCE) / 8 * -MIN_DB + MIN_DB + REFERENCE_DB
    magnitude = 10 ** (decibel / 20) / area[:, None]
    hann = 3 / 8 * N_FFT  # sum of its squares
    power = (magnitude.square() * (bins / emphasis)[:, None]).sum(0) * 2 / (N_FFT * hann)
    return 10 * torch.log10(power + 1e-12)


def spoken_frames(windows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """In which frames of one clip somebody speaks at any moment of the mel window, bool [N].

    Args:
        windows: float32 [N, 80, 16] mel windows of consecutive frames at 25 fps.
    """
    endless = len(windows) * WINDOW_COLUMNS
    columns = window_starts(len(windows), FPS, endless, lag=-1)[:, None] + torch.arange(WINDOW_COLUMNS)
    mel = torch.full((N_MELS, int(columns.max()) + 1), MEL_SILENCE)
    mel[:, columns] = torch.from_numpy(np.ascontiguousarray(windows)).transpose(0, 1)
    return (level_activity(mel_level(mel))[columns].amax(1) >= ACTIVE).numpy()


def resting_frames(data: ClipSet, clip: Clip) -> NDArray[np.int64]:
    """Frames of a clip in which nobody speaks and the lips are closed, counted from its first one.

    Both are asked for: before they speak people open their mouths, and lips close within speech too.
    """
    rows = slice(clip.start, clip.start + clip.frames)
    opening = data.lips[rows, OPENING]
    return np.flatnonzero(~spoken_frames(data.windows[rows]) & (opening <= np.quantile(opening, CLOSED)))

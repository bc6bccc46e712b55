"""A frozen expert as teacher: the pupil learns which sounds and windows it finds alike, not only which match."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from .sync_loss import load_expert


class Teacher:
    """A frozen sync expert.

    Args:
        path: any file that `sync_loss.load_expert` takes.
        device: where the run is.

    Raises:
        ValueError: as `load_expert`, with the key that names the file.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        try:
            self.expert = load_expert(path).to(device)
        except ValueError as error:
            raise ValueError(f"syncnet.teacher: {error}") from error

    @torch.no_grad()
    def cosines(self, mel: Tensor, faces: Tensor) -> Tensor:
        """How well each sound goes with each window in the teacher's eyes, float32 [B, B] in [0, 1].

        Args:
            mel: [B, 1, 80, 16] as it was recorded: the teacher hears clearly what the pupil hears distorted.
            faces: [B, 15, 48, 96] as `frames_to_expert` gives them.
        """
        audio, face = self.expert(mel, faces)
        return audio @ face.T


def distillation_loss(audio: Tensor, face: Tensor, cosines: Tensor) -> Tensor:
    """Mean squared difference of the pupil's cosines, of unit vectors [B, D] each, from the teacher's [B, B]."""
    return functional.mse_loss(audio @ face.T, cosines)

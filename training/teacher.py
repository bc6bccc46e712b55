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
    def vectors(self, mel: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
        """Where the teacher puts sounds and windows, float32 unit vectors [B, 512] each.

        Args:
            mel: [B, 1, 80, 16] as it was recorded: the teacher hears clearly what the pupil hears distorted.
            faces: [B, 15, 48, 96] as `frames_to_expert` gives them.
        """
        return self.expert(mel, faces)


def distillation_loss(pupil: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """Mean squared difference of all cosines between sounds and windows; (audio, face) unit vectors [B, D] of each."""
    own, wanted = (audio @ face.T for audio, face in (pupil, teacher))
    return functional.mse_loss(own, wanted)

"""What the generator is asked for: pixels, pose and colour, identity, lips, and to look real."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from models.identity import Recogniser
from models.mouth import mouth_weights
from models.networks.patchgan import least_squares_loss, weak_feature_matching

from .batches import Batch, aligned_faces
from .config import LossConfig
from .lip_reader import LipReader
from .second_recogniser import MobileFaceNet

Critic = Callable[[Tensor], Any]  # the PatchGAN, compiled or not


def recoloured(faces: Tensor, seed: int, dealt: tuple[int, int] = (0, 1)) -> Tensor:
    """Aligned faces [B, 3, 112, 112] with random gain and a random share of their colour.

    Without it the generator learns to please the recogniser with orange noses and blue eyelids. `dealt` as in `Batch`:
    a part's faces get what they would have got in the whole batch.
    """
    random = torch.Generator().manual_seed(seed)
    index, count = dealt
    share = torch.rand(len(faces) * count, 1, 1, 1, generator=random)[index::count].to(faces.device)
    gain = torch.exp(0.15 * torch.randn(len(faces) * count, 3, 1, 1, generator=random))[index::count].to(faces.device)
    return torch.lerp(faces.mean(1, keepdim=True), faces, share) * gain


class GeneratorLosses:
    """Weighted losses of a step, by name. The networks that judge are frozen, in evaluation mode.

    Args:
        config: weights.
        px: side of the crops.
        recogniser: the generator's own.
        reader: lip reader; None where lips do not count.
        second: second recogniser, if there is one.
        device: where the run is.
        compiled: compile what runs every step.
    """

    def __init__(
        self,
        config: LossConfig,
        px: int,
        recogniser: Recogniser,
        reader: LipReader | None,
        second: MobileFaceNet | None,
        device: torch.device,
        compiled: bool,
    ) -> None:
        self.config, self.recogniser = config, recogniser
        recogniser.network.eval().requires_grad_(False).to(device)
        self.reader = reader if reader is None else reader.eval().requires_grad_(False).to(device)
        self.second = second if second is None else second.to(device)
        self.weights = mouth_weights(px).to(device)
        self.cell = px // 12  # 8 px of 96
        self.embed = torch.compile(recogniser.embed) if compiled else recogniser.embed

    def reconstruction(self, batch: Batch, generated: Tensor) -> dict[str, Tensor]:
        """L1 where the ground truth is known, L1 of coarse averages on swapped rows, [B, 3, px, px] each."""
        same = len(generated) - batch.swapped
        difference = generated - batch.truth
        losses = {"l1": self.config.l1 * (difference[:same].abs() * self.weights).mean()}
        if batch.swapped:
            coarse = nn.functional.avg_pool2d(difference[same:], self.cell)
            losses["low"] = self.config.low * coarse.abs().mean()
        return losses

    def identity(
        self, batch: Batch, generated: Tensor, step: int, precise: AbstractContextManager
    ) -> dict[str, Tensor]:
        """Distances of a batch's last rows to their sources: the swapped ones and a few more; none without weight."""
        config, parts = self.config, batch.dealt[1]
        if not config.identity:
            return {}
        rows = slice(-(config.identity_rows // parts), None)
        faces = recoloured(aligned_faces(generated[rows], batch.to_arcface[rows]), step, batch.dealt)
        with precise:
            vectors = self.embed(faces).float()
        losses = {"identity": config.identity * (1 - (vectors * batch.source[rows]).sum(1)).mean()}
        if self.second is not None and batch.second is not None and config.second_identity:
            rows = slice(-(config.second_rows // parts), None)
            distance = 1 - (self.second.embed(faces[rows]) * batch.second[rows]).sum(1)
            losses["second_identity"] = config.second_identity * distance.mean()
        return losses

    def lips(self, batch: Batch, generated: Tensor, precise: AbstractContextManager) -> dict[str, Tensor]:
        """Difference of what the lip reader sees in the generated and in the true picture, all rows."""
        if self.reader is None:
            return {}
        with precise:
            read = self.reader(torch.cat([generated, batch.truth])).float()
        return {"lips": self.config.lips * nn.functional.smooth_l1_loss(*read.chunk(2))}

    def realism(
        self, critic: Critic, batch: Batch, generated: Tensor, precise: AbstractContextManager
    ) -> dict[str, Tensor]:
        """LSGAN and weak feature matching (spec 5.1, A22)."""
        with precise:
            fake, real = critic(generated), critic(batch.truth)
        return {
            "adversarial": self.config.adversarial * least_squares_loss(fake, 1.0),
            "matching": self.config.feature_matching * weak_feature_matching(fake, real),
        }


def critic_loss(critic: Critic, real: Tensor, fake: Tensor, precise: AbstractContextManager) -> Tensor:
    """LSGAN loss of the critic on real and generated pictures."""
    with precise:
        outputs = critic(real), critic(fake.detach())
    return 0.5 * (least_squares_loss(outputs[0], 1.0) + least_squares_loss(outputs[1], 0.0))

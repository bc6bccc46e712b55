"""Can the expert learn at all? `python -m training syncnet --sanity` has it learn a few windows by heart, in minutes.

A network that cannot do that on this data and with this recipe will not leave chance in days either (spec 5.3).
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

import torch

from models.networks.syncnet import SyncNetExpert, frames_to_expert

from .clips import ClipSet
from .config import Recipe
from .engine import Engine
from .sync_windows import SyncBatch, SyncBatches
from .syncnet import SyncTrainer, probability_loss

log = logging.getLogger(__name__)
CLIPS, WINDOWS = 8, 4  # of each clip
STEPS, CHECK_EVERY = 300, 20
WANTED = 0.9  # share of windows that must find their sound, and of sounds that must find their window


@dataclass(frozen=True)
class Verdict:
    """What the check found.

    Attributes:
        recall: share of windows whose own sound is nearer than that of all others, both ways, in [0, 1].
        chance: what guessing gives.
        loss: BCE of the cosine; ln 2 = 0.69 is chance.
        steps: optimiser steps done.
        seconds: time taken.
    """

    recall: float
    chance: float
    loss: float
    steps: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether the windows were learnt."""
        return self.recall >= WANTED

    def __str__(self) -> str:
        found = (
            f"{'pass' if self.passed else 'FAIL'}: {self.recall:.0%} of the windows find their own sound (chance "
            f"{self.chance:.0%}, wanted {WANTED:.0%}), loss {self.loss:.2f} (chance 0.69) after {self.steps} steps, "
            f"{self.seconds:.0f} s"
        )
        if self.passed:
            return found
        return f"{found}. Look at the clips (is there a mouth, is there sound?), then at syncnet.lr and optim.warmup."


@torch.inference_mode()
def recall(expert: SyncNetExpert, batch: SyncBatch) -> tuple[float, float, float]:
    """Recall, its chance level and the BCE loss of an expert on a batch, see `Verdict`; the expert in eval mode."""
    device = next(expert.parameters()).device
    audio, face = expert.eval()(batch.mel.to(device), frames_to_expert(batch.faces.to(device)))
    negative = batch.negative.to(device)
    rivals = negative | torch.eye(len(negative), dtype=torch.bool, device=device)
    cosine = (audio @ face.T).masked_fill(~rivals, -1)
    row = torch.arange(len(cosine), device=device)
    both = [(matrix[row, row] > matrix.masked_fill(row[:, None] == row, -1).amax(1)) for matrix in (cosine, cosine.T)]
    chance = (1 / rivals.sum(1)).mean().item()
    return torch.cat(both).float().mean().item(), chance, probability_loss(audio, face, negative).item()


def check(data: ClipSet, recipe: Recipe, engine: Engine | None = None, compiled: bool = True) -> Verdict:
    """Train on one batch of a few clips until it is known by heart, or for a few hundred steps.

    Args:
        data: prepared clips.
        recipe: its learning rate, temperature and precision count; both towers learn to meet from the first step.
        engine: where to train; None = one process on the CPU.
        compiled: use torch.compile.
    """
    syncnet = replace(recipe.syncnet, steps=2 * STEPS, supervised_steps=0)  # the rate falls in the second half only
    recipe = replace(recipe, syncnet=syncnet, optim=replace(recipe.optim, warmup=min(recipe.optim.warmup, 20)))
    trainer = SyncTrainer(recipe, engine, compiled)
    clips = data.training()
    batch = SyncBatches(data, clips, recipe.schedule.seed)(0, min(CLIPS, len(clips)), WINDOWS)
    part = batch.part(trainer.engine.index, trainer.engine.count)
    begun = time.monotonic()
    while True:
        trainer.train_step(part)
        if trainer.step % CHECK_EVERY == 0:
            verdict = Verdict(*recall(trainer.expert, batch), trainer.step, time.monotonic() - begun)
            log.info("step %d: %.0f%% find their own sound", trainer.step, 100 * verdict.recall)
            if verdict.passed or trainer.step >= STEPS:
                return verdict

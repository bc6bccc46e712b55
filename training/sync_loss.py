"""The sync loss: a frozen expert hears and sees windows of generated frames; a gate decides when it has a say.

A generator that cannot draw a mouth yet learns artefacts from the expert (spec 5.3), so its loss counts only once held-
out windows are good enough, and then little by little.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import torch
from torch import Tensor, nn

from models.checkpoints import load_into, load_pickle_state
from models.networks.syncnet import FRAMES, SyncNetExpert, frames_to_expert, sync_probability

from .batches import Batch, Batches, SourceBank
from .clips import ClipSet
from .config import LossConfig, Recipe
from .sources import Embedder, clip_vectors

log = logging.getLogger(__name__)
HELD_OUT = 24  # windows that the gate looks at


def load_expert(path: Path) -> SyncNetExpert:
    """A sync expert, frozen, in eval mode.

    Args:
        path: syncnet.pt of a run, what `export` made of it, or the public lipsync_expert.pth.

    Raises:
        ValueError: the file is missing, damaged, no weights at all, or of another network.
    """
    state = load_pickle_state(path)
    first = state.get("face_encoder.0.conv_block.0.weight")
    expert = SyncNetExpert() if first is None else SyncNetExpert(len(first) / 32)
    load_into(expert, {name: value.float() for name, value in state.items()}, path.name)
    return expert.eval().requires_grad_(False)


def expert_of(recipe: Recipe) -> SyncNetExpert | None:
    """The expert that a recipe names; None where it wants no sync loss.

    Raises:
        ValueError: as `load_expert`, with the key that names the file.
    """
    if not recipe.loss.sync:
        return None
    try:
        return load_expert(Path(recipe.loss.expert))
    except ValueError as error:
        raise ValueError(
            f"loss.expert: {error} Train one with `python -m training syncnet`, or switch it off: --set loss.sync=0"
        ) from error


def held_out_windows(data: ClipSet, recogniser: Embedder, px: int, count: int = HELD_OUT) -> Batch:
    """`count` windows of people the generator does not train on, with their own identity and sound.

    Where the data holds nobody out the training clips stand in.
    """
    clips = data.of("val") or data.training()
    vectors = torch.cat([clip_vectors(data, clip, recogniser, 1) for clip in clips])
    bank = SourceBank(vectors, [clip.identity for clip in clips])
    return Batches(data, clips, bank, px, 0)(0, FRAMES * count, swapped=0, windows=count)


class SyncLoss:
    """Minus the logarithm of the expert's probability that windows are in sync (spec 5.1), behind its gate.

    Args:
        config: weight and gate.
        expert: frozen here, in eval mode.
        held_out: windows that the gate is decided by.
        device: where the run is.

    Attributes:
        opened: the step at which the gate opened; None = it is shut. Goes into checkpoints.
    """

    def __init__(self, config: LossConfig, expert: SyncNetExpert, held_out: Batch, device: torch.device) -> None:
        self.config = config
        self.expert = expert.eval().requires_grad_(False).to(device)
        self.held_out = held_out.to(device)
        self.opened: int | None = None

    def distance(self, pictures: Tensor, batch: Batch) -> Tensor:
        """Mean of -log(probability) over a batch's windows, for pictures [B, 3, px, px] in place of its truth."""
        rows = batch.window_rows
        # Mel windows are stored one frame early for the generator (spec A13): the second frame's begins with the first.
        audio = self.expert.embed_audio(batch.mel[rows[:, 1]])
        face = self.expert.embed_face(frames_to_expert(pictures[rows]))
        return -sync_probability(audio, face).log().mean()

    def weight(self, step: int) -> float:
        """What the loss weighs at a step: nothing before the gate, rising after it."""
        if self.opened is None:
            return 0.0
        return self.config.sync * min(1.0, (step - self.opened + 1) / max(1, self.config.sync_ramp))

    @torch.no_grad()
    def look(
        self, net: nn.Module, step: int, precise: AbstractContextManager, agree: Callable[[bool], bool] = bool
    ) -> None:
        """Open the gate if it is time to look and the held-out windows are good enough; leaves the net in eval mode.

        Args:
            net: the generator, called as `WavSyncSwap` is.
            step: steps done.
            precise: number type of the run.
            agree: asks the run's other processes, see `Engine.any`; all must open it at the same step.
        """
        config, batch = self.config, self.held_out
        if self.opened is not None or step < config.sync_start or step % config.sync_every:
            return
        net.eval()
        with precise:
            generated = net(batch.crops, batch.mel, batch.given)
            made, true = (self.distance(pictures, batch).item() for pictures in (generated, batch.truth))
        enough = max(config.sync_gate, config.sync_ratio * true)
        if agree(made < enough):
            self.opened = step
        state = "stays shut" if self.opened is None else "opens"
        log.info("sync gate %s at step %d: %.3f, wanted below %.3f; true windows %.3f", state, step, made, enough, true)

    def __call__(
        self, batch: Batch, generated: Tensor, step: int, precise: AbstractContextManager
    ) -> dict[str, Tensor]:
        """The weighted loss of a step by name; nothing while the gate is shut."""
        weight = self.weight(step)
        if not weight:
            return {}
        with precise:
            return {"sync": weight * self.distance(generated, batch)}


def sync_loss_of(recipe: Recipe, data: ClipSet, recogniser: Embedder, device: torch.device) -> SyncLoss | None:
    """The sync loss that a recipe asks for; None where it asks for none.

    Raises:
        ValueError: as `expert_of`.
    """
    expert = expert_of(recipe)
    if expert is None:
        return None
    return SyncLoss(recipe.loss, expert, held_out_windows(data, recogniser, recipe.model.px), device)

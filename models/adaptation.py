"""Fine-tuning of the generator to one clip: it learns to draw this face, and not to forget what sound and swaps do.

What is learnt are the low-rank terms of `adapters`. Rows of a step are of four kinds: the clip's frames with the face
kept, and with the person's own identity, both against the true picture; somebody else's identity, and another sound,
both against what the network drew before. Without the last two, a face that is always seen with its own sound would
teach the network to copy lips out of pose, light and reference. A slice at the clip's end is held out: the step that
draws it best is kept, provided that lips there still follow the sound.

A clip without speech has no lips to learn from: its mouth is left as the network draws it, and all else is learnt.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .adaptation_look import Examiner, Look
from .adaptation_rows import Rows, RowSource
from .adapters import KIND, RANK, Adapter
from .checkpoints import bundled_path, load_into, load_weights
from .footage import Footage
from .generator import FaceGenerator, Generator
from .metrics.sync_model import bundled_expert
from .mouth import mouth, mouth_weights
from .networks.lip_reader import LipReader
from .networks.syncnet import SyncNetExpert, frames_to_expert, sync_probability
from .networks.wavsyncswap import WavSyncSwap
from .precision import candidates

log = logging.getLogger(__name__)

Progress = Callable[[int, int, "NDArray[np.uint8] | None"], None]

ROWS = {"kept": 5, "own": 3, "swapped": 2, "other": 2}  # of a step
LOOKS, APART = 10, 10  # looks at the held-out frames in a run at most, and steps from one to the next at least
PATIENCE = 4  # looks without a better one after which the run ends
FEWEST = 20  # steps of a run whose length the clock decides
TIMED = 4  # steps after the first that say how many fit into the minutes
OVERTIME = 1.25  # of the minutes, after which a run ends wherever it is
RATE, WARM_UP, LEFT = 1.5e-3, 20, 0.05  # learning rate: rises for some steps, then falls to a share of it
AVERAGE = 0.97  # share of the averaged terms that stays after a step: single steps are noisy
LIPS, EDGES, MEMORY, OBEDIENCE, SYNC = 0.1, 0.5, 2.0, 0.3, 0.01  # weights of the losses beside L1


@dataclass(frozen=True, eq=False)
class Adaptation:
    """The result.

    Attributes:
        state: terms for `adapters.merge`; empty where nothing was better than the network as it was.
        metadata: for the file.
        before: the held-out frames without the terms.
        after: with them.
        report: for people.
    """

    state: dict[str, Tensor]
    metadata: dict[str, object]
    before: Look
    after: Look
    report: str


def adapt(
    generator: FaceGenerator,
    footage: Footage,
    *,
    steps: int | None = None,
    minutes: float = 5.0,
    seed: int = 0,
    rank: int = RANK,
    progress: Progress | None = None,
) -> Adaptation:
    """Adapt a generator to a clip. The generator itself stays as it is.

    On a CPU the same steps and seed give the same result to the bit.

    Args:
        generator: the pack's own, float32, on the device to compute on.
        footage: the clip.
        steps: how many; None = as many as fit into the minutes.
        minutes: how long to train, if no steps are given.
        seed: of everything random.
        rank: see `adapters.LowRank`.
        progress: called with (done, total, picture) after every step; may raise to cancel. The picture, uint8
            [H, W, 3], comes with every look at the held-out frames (true, unadapted, adapted), else None.

    Raises:
        ValueError: another system, half precision, a network that can draw this face in no way, or no time, no steps
            or no rank to learn with.
    """
    for name, value in (("steps", steps), ("rank", rank), ("minutes", minutes)):
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value:g}; give a number above 0.")
    network = _copy_of(generator, footage)
    with torch.inference_mode(False), torch.enable_grad():
        return _Run(generator, network, footage, seed, rank).train(steps, minutes, progress or (lambda *_: None))


def _copy_of(generator: FaceGenerator, footage: Footage) -> WavSyncSwap:
    """The network to be changed.

    Raises:
        ValueError: see `adapt`.
    """
    if not isinstance(generator, Generator):
        found = generator.metadata.get("network", "this system")
        raise ValueError(f"Only the pack's own network can be adapted; {found} was given. Load the built-in model.")
    if (found := next(generator.network.parameters()).dtype) != torch.float32:
        raise ValueError(f"Adaptation needs a model in fp32; this one is in {found}. Load it with precision fp32.")
    if footage.person is None and not generator.keeps_identity:
        raise ValueError(
            f"This model needs an identity to draw anybody. Give its recogniser, '{generator.recogniser}'."
        )
    with torch.inference_mode(False):
        return copy.deepcopy(generator.network)


class _Run:
    """Everything that a run holds on to."""

    def __init__(self, generator: FaceGenerator, network: WavSyncSwap, footage: Footage, seed: int, rank: int) -> None:
        self.generator, self.network, self.footage, self.device = generator, network, footage, generator.device
        self.seed, self.rank, self.adapter = seed, rank, Adapter(network, rank, seed)
        reader = LipReader()
        load_into(reader, load_weights(bundled_path("lip_reader"))[0], "lip_reader.safetensors")
        self.reader = reader.eval().requires_grad_(False).to(self.device)
        dim = network.config["id_dim"]
        self.expert = _expert(self.device)
        self.rows = RowSource(footage.part(0, footage.learnt), network.keep, dim, seed, ROWS)
        self.examiner = Examiner(footage, network.keep, dim, self.reader, self.expert, self.device, self._precision())
        self.average = [parameter.detach().clone() for parameter in self.adapter.parameters()]
        self.optimizer = torch.optim.Adam(self.adapter.parameters(), RATE, (0.9, 0.99))
        weights = mouth_weights(network.px)
        if not footage.speaks:
            mouth(weights)[:] = 0
        self.weights = weights.to(self.device)

    def _precision(self) -> AbstractContextManager:
        """bfloat16 where the device computes it, which halves a step on a CPU with tiles; else float32."""
        if torch.bfloat16 not in candidates(self.device):
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def train(self, steps: int | None, minutes: float, progress: Progress) -> Adaptation:
        begun = time.monotonic()
        with self.adapter.off():
            before = self.examiner(self.network)
        log.info("before: %s", before)
        look_seconds, best, best_step, state = time.monotonic() - begun, before, 0, self.adapter.state()
        total, done, idle, mark = WARM_UP if steps is None else steps, 0, 0, begun
        while done < total:
            self._step(done, total)
            done += 1
            if steps is None and done == 1:
                mark = time.monotonic()
            if steps is None and done == 1 + TIMED:
                pace = (time.monotonic() - mark) / TIMED
                total = max(FEWEST, int((60 * minutes - LOOKS * look_seconds) / pace))
            late = steps is None and time.monotonic() - begun > 60 * minutes * OVERTIME and done >= FEWEST
            picture = None
            if done == total or late or done % max(APART, total // LOOKS) == 0:
                with self.adapter.holding(self.average):
                    look = self.examiner(self.network)
                    picture, idle = self.examiner.picture, idle + 1
                    log.info("step %d of %d: %s", done, total, look)
                    if look.better(best, before):
                        best, best_step, state, idle = look, done, self.adapter.state(), 0
            progress(done, total, picture)
            if late or idle >= PATIENCE:
                break
        return self._result(state if best_step else {}, before, best, best_step, done, time.monotonic() - begun)

    def _step(self, step: int, total: int) -> None:
        rising, falling = (step + 1) / WARM_UP, 1 - (1 - LEFT) * step / total
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1.0, rising) * falling
        loss = torch.stack(list(self._losses(self.rows(step)).values())).sum()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.adapter.parameters(), 1.0)
        self.optimizer.step()
        forget = 1 - min(AVERAGE, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, [parameter.detach() for parameter in self.adapter.parameters()], forget)

    def _losses(self, rows: Rows) -> dict[str, Tensor]:
        """Weighted losses of a step's rows."""
        crops = rows.crops.to(self.device).contiguous(memory_format=torch.channels_last)
        mel, identity, truth = (tensor.to(self.device) for tensor in (rows.mel, rows.identity, rows.truth))
        known = rows.shown.stop if self.footage.speaks else 0  # from here on what was drawn before matters
        with self._precision():
            with self.adapter.off(), torch.no_grad():
                former = self.network(crops[known:], mel[known:], identity[known:]).float()
            drawn = self.network(crops, mel, identity).float()
        former = torch.cat([drawn[:known].detach(), former])
        shown, swapped, other = rows.shown, rows.swapped, rows.other
        difference = drawn[shown] - truth[shown]
        losses = {
            "l1": (difference.abs() * self.weights).mean(),
            "edges": EDGES * _edges(difference, self.weights),
            "memory": MEMORY * (drawn[swapped] - former[swapped]).abs().mean(),
        }
        with self._precision():
            obeyed = self.reader(torch.cat([drawn[other], former[other]])).float()
            losses["obedience"] = OBEDIENCE * nn.functional.smooth_l1_loss(*obeyed.chunk(2))
            if self.footage.speaks:
                read = self.reader(torch.cat([drawn[shown], truth[shown]])).float()
                losses["lips"] = LIPS * nn.functional.smooth_l1_loss(*read.chunk(2))
            else:
                losses["mouth"] = MEMORY * mouth(drawn[shown] - former[shown]).abs().mean()
            if self.expert is not None and rows.window.stop:
                # Mel windows lie one frame early (spec A13): the second frame's begins with the first frame.
                heard = self.expert.embed_audio(mel[1:2])
                seen = self.expert.embed_face(frames_to_expert(drawn[None, rows.window]))
                losses["sync"] = -SYNC * sync_probability(heard, seen).log().mean()
        return losses

    def _result(
        self, state: dict[str, Tensor], before: Look, after: Look, best: int, done: int, seconds: float
    ) -> Adaptation:
        base = self.generator.metadata
        metadata = {
            "network": KIND,
            "base": self.generator.digest,
            "clip": self.footage.digest,
            "frames": len(self.footage),
            "speaks": self.footage.speaks,
            "seed": self.seed,
            "rank": self.rank,
            "steps": done,
            "best_step": best,
            "before": asdict(before),
            "after": asdict(after),
            "licence": f"as the weights it belongs to ({base.get('licence', 'unstated')}); the clip's owner has a say",
        }
        metadata["report"] = report = _report(self.footage, metadata, before, after, seconds)
        return Adaptation(state, metadata, before, after, report)


def _expert(device: torch.device) -> SyncNetExpert | None:
    """The bundled sync expert, frozen; None for a version without."""
    if (path := bundled_expert()) is None:
        return None
    state = {name: value.float() for name, value in load_weights(path)[0].items()}
    expert = SyncNetExpert(len(state["face_encoder.0.conv_block.0.weight"]) / 32)
    load_into(expert, state, path.name)
    return expert.eval().requires_grad_(False).to(device)


def _edges(difference: Tensor, weights: Tensor) -> Tensor:
    """L1 of the differences between neighbours: blur costs more than a wrong shade."""
    across = (difference[..., 1:] - difference[..., :-1]).abs() * weights[..., 1:]
    down = (difference[..., 1:, :] - difference[..., :-1, :]).abs() * weights[..., 1:, :]
    return across.mean() + down.mean()


def _report(footage: Footage, metadata: dict, before: Look, after: Look, seconds: float) -> str:
    learnt = f"{footage.learnt} frames learnt from, {len(footage) - footage.learnt} held out"
    lines = [f"{learnt}; {metadata['steps']} steps in {seconds:.0f} s, best step {metadata['best_step']}"]
    if not footage.speaks:
        lines.append("No speech in the clip: its looks were learnt, the mouth stays as the model draws it.")
    lines.append(f"held out before: {before}")
    if metadata["best_step"]:
        lines.append(f"held out after:  {after}")
    else:
        lines.append("No step drew the held-out frames better with lips that follow the sound: the adapter is empty.")
    return "\n".join(lines)

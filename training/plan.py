"""What a recipe would do: sizes, cost, memory and data found, without doing it (`--dry-run`)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.identity import load_recogniser
from models.networks.syncnet import FRAMES, SyncNetExpert

from .config import Recipe, to_toml
from .data.reader import summary
from .engine import settled
from .lip_reader import LipReader
from .research_layout import GENERATED, TALKING, manifest_rows
from .trainer import critic_of

BYTES = {"bf16": 2, "fp32": 4}  # of a number that waits for the backward pass
STATE = 4 * 4  # bytes of a trained weight: itself, its gradient and two moments of Adam, in float32


@dataclass(frozen=True)
class Part:
    """A network that takes part in a step.

    Attributes:
        network: on the meta device, so that it costs nothing.
        inputs: of two samples: batch norm refuses one.
        samples: how many of them it sees in a step.
        trained: whether its weights are learnt.
        copies: further copies of its weights, such as their average.
    """

    network: nn.Module
    inputs: tuple[Tensor, ...]
    samples: float
    trained: bool = True
    copies: int = 0

    def bytes(self, precision: str) -> float:
        """Memory of the weights, their optimiser and what the backward pass needs."""
        weights = sum(p.numel() for p in self.network.parameters())
        state = weights * (STATE if self.trained else 4) + 4 * weights * self.copies
        return state + BYTES[precision] * self.samples * kept_numbers(self) / len(self.inputs[0])


def multiply_adds(network: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulate operations of one forward pass, as `torch.utils.flop_counter` counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2


def kept_numbers(part: Part) -> int:
    """How many numbers autograd keeps of a part's forward pass on its inputs, weights not counted."""
    weights = {id(p) for p in (*part.network.parameters(), *part.network.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights and not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage()._cdata] = tensor  # several operations may keep the same one
        return tensor

    inputs = tuple(tensor.clone().requires_grad_() for tensor in part.inputs)
    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = part.network(*inputs)
    del result
    return sum(tensor.numel() for tensor in kept.values())


def data_found(folder: Path) -> str:
    """One line on the clips of a data folder.

    Raises:
        FileNotFoundError: it has no manifest.
        ValueError: a manifest cannot be read, or a shard.
    """
    if (folder / "index.json").is_file():
        return summary(folder)
    counts = []
    for part in (TALKING, GENERATED):
        rows = manifest_rows(folder, part)
        of_split = {split: [r for r in rows if r["split"] == split] for split in ("train", "val")}
        counts.append(
            f"{part}: "
            + ", ".join(
                f"{len(members)} {split} clips of {len({r['identity'] for r in members})} people"
                for split, members in of_split.items()
                if members
            )
        )
    return "; ".join(counts)


def describe(recipe: Recipe, data: Path) -> str:
    """The resolved plan of a generator's run as text: recipe, parameters, multiply-adds, memory, samples, data."""
    schedule, parts = recipe.schedule, generator_parts(recipe)
    network = parts[0].network
    macs = multiply_adds(copy.deepcopy(network).eval(), *(tensor[:1] for tensor in parts[0].inputs))
    return "\n".join(
        [
            to_toml(recipe),
            f"generator: {_millions(network)} parameters, {macs / 1e9:.2f} GMACs a frame",
            _memory(parts, recipe, "a batch (of one of its parts) through generator, critic and frozen networks"),
            f"samples: {schedule.steps * schedule.batch:,} in {schedule.steps:,} steps of {schedule.batch}",
            f"phases: {generator_phases(recipe)}",
            f"data: {data_found(data)}",
        ]
    )


def describe_syncnet(recipe: Recipe, data: Path) -> str:
    """The same of the sync expert's run."""
    config, parts = recipe.syncnet, sync_parts(recipe)
    face, audio = parts[0], parts[1]
    macs = sum(multiply_adds(copy.deepcopy(p.network).eval(), *(t[:1] for t in p.inputs)) for p in (face, audio))
    windows = config.clips * config.windows
    taught = f", {config.distillation:g} times the distance to {config.teacher}" if config.teacher else ""
    return "\n".join(
        [
            to_toml(recipe),
            f"sync expert: {_millions(face.network, audio.network)} parameters, {macs / 1e9:.2f} GMACs a window of "
            f"{FRAMES} frames and 200 ms",
            _memory(parts, recipe, "a batch through both towers"),
            f"samples: {config.steps * windows:,} windows in {config.steps:,} steps of {windows} ({config.windows} of "
            f"each of {config.clips} clips)",
            f"phases: mouth numbers alone until step {config.supervised_steps:,}, then the contrastive losses "
            f"too{taught}",
            f"data: {data_found(data)}",
        ]
    )


def generator_phases(recipe: Recipe) -> str:
    """What is learnt when, in order."""
    schedule, optim, loss = recipe.schedule, recipe.optim, recipe.loss
    taught = [f"{schedule.reader_steps:,} steps of the lip reader"] if loss.lips else []
    taught += [f"{schedule.tower_steps:,} of the audio tower"] if recipe.system.hears else []
    phases = [" and ".join(taught)] if taught else []
    if schedule.gan_start:
        phases.append(f"from step 0 without the critic at a rate of {optim.lr:g}")
    phases.append(f"from step {schedule.gan_start:,} with it at {optim.lr * optim.gan_rate:g}")
    if loss.sync:
        phases.append(
            f"sync from the step on, {loss.sync_start:,} at the earliest, at which its gate opens, rising over "
            f"{loss.sync_ramp:,} steps"
        )
    return "; ".join(phases)


def generator_parts(recipe: Recipe) -> list[Part]:
    """All networks of a generator's step; the generator first."""
    model, loss, px = recipe.model, recipe.loss, recipe.model.px
    batch = recipe.schedule.batch / recipe.schedule.accumulate
    seen = min(loss.identity_rows, recipe.schedule.batch) / recipe.schedule.accumulate
    recogniser = load_recogniser("builtin")
    with torch.device("meta"):
        generator = recipe.system.called(recipe.system.build(model, recogniser.dim))
        critic, reader = critic_of(px), LipReader()
        picture, face = torch.empty(2, 3, px, px), torch.empty(2, 3, 112, 112)
        inputs = torch.empty(2, 6, px, px), torch.empty(2, 1, 80, 16), torch.empty(2, recogniser.dim)
    identity = copy.deepcopy(recogniser.network).to("meta")
    parts = [
        Part(generator, inputs, batch, copies=1),
        Part(critic, (picture,), 2 * batch),
    ]
    if loss.identity:
        parts.append(Part(identity, (face,), seen, trained=False))
    if loss.lips:
        parts.append(Part(reader.eval().requires_grad_(False), (picture,), batch, trained=False))
    if loss.sync:
        with torch.device("meta"):
            expert = SyncNetExpert().eval().requires_grad_(False)
            window = torch.empty(2, 3 * FRAMES, 48, 96)
        kinds = 2 + (recipe.schedule.kept > 0)
        windows = kinds * recipe.schedule.windows / recipe.schedule.accumulate
        parts.append(Part(expert.face_encoder, (window,), windows, trained=False))
    return parts


def sync_parts(recipe: Recipe) -> list[Part]:
    """Both towers of the expert, faces first."""
    config = recipe.syncnet
    with torch.device("meta"):
        expert = SyncNetExpert(config.width)
        faces, mel = torch.empty(2, 3 * FRAMES, 48, 96), torch.empty(2, 1, 80, 16)
    windows = config.clips * config.windows
    return [Part(expert.face_encoder, (faces,), windows), Part(expert.audio_encoder, (mel,), windows)]


def _millions(*networks: nn.Module) -> str:
    return f"{sum(p.numel() for network in networks for p in network.parameters()) / 1e6:.2f} M"


def _memory(parts: Sequence[Part], recipe: Recipe, what: str) -> str:
    precision = settled(recipe.optim.precision, torch.device("cpu"))
    size = sum(part.bytes(precision) for part in parts) / 2**30
    return f"memory: about {size:.1f} GiB in one process, in {precision}: weights, optimisers, {what}"

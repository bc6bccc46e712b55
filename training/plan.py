"""What a recipe would do: sizes, cost and data found, without doing it (`--dry-run`)."""

from __future__ import annotations

import csv
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from models.networks.wavsyncswap import WavSyncSwap

from .config import Recipe, to_toml
from .data.reader import summary


def multiply_adds(network: nn.Module, *inputs: torch.Tensor) -> int:
    """Multiply-accumulate operations of one forward pass, as `torch.utils.flop_counter` counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return counter.get_total_flops() // 2


def data_found(folder: Path) -> str:
    """One line on the clips of a data folder.

    Raises:
        FileNotFoundError: it has no manifest.
    """
    if (folder / "index.json").is_file():
        return summary(folder)
    counts = []
    for part in ("talking", "talking_generated"):
        manifest = folder / part / "manifest.csv"
        if not manifest.is_file():
            raise FileNotFoundError(
                f"{manifest} is missing, and index.json too. --data is a folder made by: python -m training prepare"
            )
        with manifest.open(newline="") as file:
            rows = list(csv.DictReader(file))
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
    """The resolved plan as text: recipe, parameters, multiply-adds, memory, samples, data."""
    model, schedule = recipe.model, recipe.schedule
    with torch.device("meta"):
        network = WavSyncSwap(**asdict(model)).eval()
        pair, mel, identity = torch.empty(1, 6, model.px, model.px), torch.empty(1, 1, 80, 16), torch.empty(1, 512)
    parameters = sum(p.numel() for p in network.parameters())
    macs = multiply_adds(network, pair, mel, identity)
    state = 4 * 4 * parameters  # weights, gradients, two moments of Adam, in float32
    activations = _activation_bytes(network, pair, mel, identity) * schedule.batch
    return "\n".join(
        [
            to_toml(recipe),
            f"generator: {parameters / 1e6:.2f} M parameters, {macs / 1e9:.2f} GMACs a frame",
            f"memory: about {(state + activations) / 2**30:.1f} GiB for the generator's weights, its optimiser and the "
            "activations of a batch; the networks of the losses come on top",
            f"samples: {schedule.steps * schedule.batch:,} in {schedule.steps:,} steps of {schedule.batch}",
            f"data: {data_found(data)}",
        ]
    )


def _activation_bytes(network: nn.Module, *inputs: torch.Tensor) -> int:
    """Outputs of all leaf modules of one sample, at two bytes a number."""
    total = 0

    def count(module: nn.Module, arguments: object, output: torch.Tensor) -> None:
        nonlocal total
        total += 2 * output.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if not list(m.children())]
    with torch.no_grad():
        network(*inputs)
    for hook in hooks:
        hook.remove()
    return total

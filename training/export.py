"""Training checkpoint -> the safetensors file that the nodes load."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from models import geometry
from models.checkpoints import save_weights
from models.identity import load_recogniser
from models.networks import build

log = logging.getLogger(__name__)

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
MEL_LAG = -1  # the loader of `clips` cuts windows one frame early (spec A13)


def export(checkpoint: Path, output: Path, dtype: torch.dtype) -> Path:
    """Write the averaged weights with all that is needed to run them.

    Args:
        checkpoint: file of `training.generator`.
        output: safetensors file to write.
        dtype: number type of the weights.

    Returns:
        `output`.
    """
    state = torch.load(checkpoint, weights_only=True)
    recipe = state["recipe"]
    recogniser = load_recogniser("builtin")
    config = recipe["model"] | {"id_dim": recogniser.dim}
    build("wavsyncswap", **config).load_state_dict(state["average"])  # fails here rather than on the user's machine
    weights = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state["average"].items()}
    metadata = {
        "network": "wavsyncswap",
        "config": config,
        "recogniser": recogniser.id,
        "geometry": geometry.GEOMETRY_ID,
        "mel_lag": MEL_LAG,
        "steps": state["step"],
        "recipe": recipe,
        "licence": "non-commercial research use; see the model card",
    }
    save_weights(output, weights, metadata)
    log.info("%s: %.1f MB after %d steps", output, output.stat().st_size / 1e6, state["step"])
    return output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training export`."""
    parser.add_argument("checkpoint", type=Path, help="last.pt of a run folder")
    parser.add_argument("output", type=Path, help="safetensors file to write")
    parser.add_argument("--dtype", choices=TYPES, default="fp16", help="number type (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Export."""
    export(args.checkpoint, args.output, TYPES[args.dtype])
    return 0

"""Training checkpoint -> the safetensors file that the nodes load."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import geometry
from models.checkpoints import check_fit, load_pickle_state, save_weights
from models.identity import load_recogniser
from models.networks import build

from .config import from_checkpoint, portable
from .keeper import read_record
from .outputs import check_outputs

log = logging.getLogger(__name__)

_OTHER = (
    "no checkpoint that can be exported: name a run's last.pt, best.pt, step_N.pt, syncnet.pt, syncnet_best.pt, "
    "syncnet_step_N.pt or lip_reader.pt"
)
TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def export(checkpoint: Path, output: Path, dtype: torch.dtype) -> Path:
    """Write the weights, averaged where a run averages, with all that is needed to run them.

    Args:
        checkpoint: any file of `training.generator` (last.pt, best.pt, step_N.pt, lip_reader.pt) or `training.syncnet`
            (syncnet.pt, syncnet_best.pt, syncnet_step_N.pt).
        output: safetensors file to write.
        dtype: number type of the weights.

    Returns:
        `output`.

    Raises:
        ValueError: the file is no such checkpoint, or damaged, or `output` cannot be written or is the checkpoint.
    """
    check_outputs([("output", output)], [("checkpoint", checkpoint)])
    state = _contents(checkpoint)
    if {"step", "recipe"} <= state.keys() and ("expert" in state or "average" in state):
        learnt, metadata = _expert(state) if "expert" in state else _generator(state)
        record = read_record(state)
        metadata |= {
            "steps": state["step"],
            "recipe": portable(state["recipe"]),
            "start": record.start,
            "data_sha256": record.data,
            "metrics": record.measured,
        }
    else:
        learnt, metadata = state, {"network": "lip_reader", "config": {}, "geometry": geometry.GEOMETRY_ID}
    try:
        # fails here, not on the user's machine
        check_fit(build(metadata["network"], **metadata["config"]), learnt, checkpoint.name)
    except ValueError as error:
        raise ValueError(f"{checkpoint.name} is {_OTHER} ({error})") from error
    metadata["licence"] = "non-commercial research use; see the model card"
    output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(output, {k: v.to(dtype) if v.is_floating_point() else v for k, v in learnt.items()}, metadata)
    log.info("%s: %.1f MB", output, output.stat().st_size / 1e6)
    return output


def _contents(checkpoint: Path) -> dict[str, Any]:
    """A checkpoint's dictionary.

    Raises:
        ValueError: it holds none, or finished weights.
    """
    try:
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception:  # damage shows as errors of a dozen kinds
        content = None
    if isinstance(content, dict):
        return content
    load_pickle_state(checkpoint)  # tells what is wrong with a file that holds no weights; safetensors do
    raise ValueError(f"{checkpoint.name} is {_OTHER}; weights that are finished are used as they are.")


def _generator(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    recipe = from_checkpoint(state["recipe"])
    return state["average"], recipe.system.metadata(recipe.model, load_recogniser("builtin"))


def _expert(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    config = {"width": state["recipe"]["syncnet"].get("width", 1.0)}
    described = {"network": "syncnet_expert", "config": config, "geometry": geometry.GEOMETRY_ID}
    return state["expert"], described


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training export`."""
    parser.add_argument("checkpoint", type=Path, help="last.pt, best.pt, syncnet.pt, lip_reader.pt ... of a run folder")
    parser.add_argument("output", type=Path, help="safetensors file to write")
    parser.add_argument("--dtype", choices=TYPES, default="fp16", help="number type (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Export."""
    export(args.checkpoint, args.output, TYPES[args.dtype])
    return 0

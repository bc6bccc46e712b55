"""`python -m training import FILE`: a public weights file -> safetensors that say what they are."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.checkpoints import check_fit, identify, load_any, save_weights, sha256_file
from models.identity import file_id
from models.known_files import KnownFile, named
from models.layouts import Layout, recognise, shapes_of
from models.networks import build
from models.networks.arcface import DEPTHS

log = logging.getLogger(__name__)

GENERATORS = ("wavsyncswap", "wav2lip", "simswap_224", "simswap_512")


def import_weights(source: Path, output: Path, io_norm: bool = False) -> tuple[Layout, KnownFile | None]:
    """Convert one file.

    Args:
        source: any public checkpoint that `models.layouts` knows; read without running code it may carry.
        output: safetensors file to write, with the network, its options and conventions, the licence, and the source's
            name and SHA-256 as metadata.
        io_norm: the file is a SimSwap generator of the 2022 trainer.

    Returns:
        What it was recognised as, by its tensors and by its content.

    Raises:
        ValueError: the file is missing, damaged, no weights, of an unknown kind or already converted; says which.
    """
    if source.suffix.lower() == ".onnx":
        raise ValueError(
            f"{source.name} needs no conversion: recognisers and detectors are read from .onnx as they are."
        )
    state, metadata = load_any(source)
    if "network" in metadata:
        raise ValueError(f"{source.name} says what it is ({metadata['network']}) and can be used without a conversion.")
    layout, known = recognise(shapes_of(state)), identify(source)
    if layout is None or layout.network == "wavsyncswap":
        raise ValueError(_unknown(source, state, layout, known))
    if io_norm and "io_norm" not in layout.config:
        raise ValueError(f"--io-norm is for SimSwap generators, but {source.name} holds the {layout.what}.")
    if output.exists() and output.samefile(source):
        raise ValueError(f"{output} is the file itself; name another --output.")
    described = metadata_of(source, layout, known, io_norm)
    with torch.device("meta"):
        network = build(layout.network, **described["config"])
    check_fit(network, state, source.name)
    save_weights(output, state, described)
    return layout, known


def metadata_of(source: Path, layout: Layout, known: KnownFile | None, io_norm: bool) -> dict[str, Any]:
    """All that the converted file says about itself."""
    described = layout.metadata
    if io_norm:
        described["config"] = described["config"] | {"io_norm": True}
    if layout.network in DEPTHS:
        described["id"] = file_id(source)  # embeddings made with the file before and after are one kind
    return described | {
        "what": known.what if known else layout.what,
        "licence": known.licence if known else "unknown: ask whoever gave you the file",
        "source": source.name,
        "source_sha256": sha256_file(source),
    }


def _unknown(source: Path, state: dict[str, Tensor], layout: Layout | None, known: KnownFile | None) -> str:
    if layout:
        return f"{source.name} is a generator of this project without its metadata; export it again from its run."
    if known:
        return f"{source.name} is the {known.what}, which nothing here needs converted."
    names = ", ".join(list(state)[:3])
    return f"{source.name} holds {len(state)} tensors ({names}, ...) of no network that is known here."


def report(source: Path, output: Path, layout: Layout, known: KnownFile | None) -> str:
    """What was recognised, how, and what to do with the result."""
    if known:
        how = f"{known.what}, by its SHA-256 the public {known.name}"
    elif named(source):
        how = f"{layout.what} by its tensors; its content is not that of the public {source.name}"
    else:
        how = f"{layout.what} by its tensors; not one of the public files on record"
    lines = [f"{source.name}: {how}", f"licence: {known.licence if known else 'unknown'}"]
    if layout.network in GENERATORS:
        lines.append("put it into models/wavsyncswap: Load WavSyncSwap Model lists it, and infer takes it as --weights")
    elif layout.network in (*DEPTHS, "simswap_arcface"):
        lines.append("put it into models/wavsyncswap: ArcFace Embed lists it, and infer takes it as --recogniser")
    return "\n".join([*lines, f"{output}: {output.stat().st_size / 1e6:.1f} MB"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training import`."""
    parser.add_argument("file", type=Path, help="wav2lip.pth, a SimSwap generator, arcface_checkpoint.tar, ...")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="safetensors file to write (default: beside the file, same name)"
    )
    parser.add_argument(
        "--io-norm",
        action="store_true",
        help="the SimSwap generator comes from the trainer of 2022, which normalises pictures (try it where faces look "
        "washed out; the file itself does not tell)",
    )


def run(args: argparse.Namespace) -> int:
    """Convert and report."""
    output = args.output or args.file.with_suffix(".safetensors")
    layout, known = import_weights(args.file, output, args.io_norm)
    print(report(args.file, output, layout, known))
    return 0

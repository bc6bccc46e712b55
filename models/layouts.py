"""What a weights file is, from the names and shapes of its tensors alone: one recognition for every loader.

Public files say nothing else about themselves (specification sections 3.1 to 3.8); files of this project carry
metadata, which counts before anything read from shapes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .checkpoints import peek
from .networks.arcface import DEPTHS

Shapes = Mapping[str, Sequence[int]]

SIMSWAP_RECOGNISER = "simswap-arcface"  # id of the embeddings that all public SimSwap generators understand
WAV2LIP_BOX, SIMSWAP_FIVE, SIMSWAP_FFHQ = "wav2lip-box", "simswap-five-templates", "simswap-ffhq"  # crop geometries


@dataclass(frozen=True)
class Layout:
    """A recognised weights file.

    Attributes:
        network: name for `networks.build`.
        what: for people.
        config: options for `networks.build`.
        facts: what else its users have to know, as metadata (crop geometry, channel order, recogniser ...).
    """

    network: str
    what: str
    config: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, Any]:
        """As a file of this project would carry it."""
        return {"network": self.network, "config": self.config, **self.facts}


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of tensors."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def recognise(shapes: Shapes) -> Layout | None:
    """The network that tensors of these names and shapes belong to, or None.

    One telling name is enough: whether the rest is there too is for `checkpoints.load_into` to complain about.
    """
    return next((read(shapes) for sign, read in _SIGNS.items() if sign in shapes), None)


def network_of(path: str | os.PathLike[str]) -> str:
    """Name of the network in a weights file, from a few kilobytes of it; "" for anything unknown or unreadable."""
    try:
        shapes, metadata = peek(path)
    except (ValueError, OSError):
        return ""
    layout = recognise(shapes)
    return str(metadata.get("network") or (layout.network if layout else ""))


def iresnet_blocks(names: Iterable[str]) -> tuple[int, ...]:
    """Residual units in the four stages of a ResNet-like network, from its names; zeros where there are none."""
    names = list(names)
    return tuple(len({name.split(".")[1] for name in names if name.startswith(f"layer{i}.")}) for i in range(1, 5))


def _size(shapes: Shapes, name: str, default: int, axis: int = 0) -> int:
    """One side of a tensor; the public network's where the tensor, or this side of it, is missing."""
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else default


def _width(shapes: Shapes, name: str, full: int) -> float:
    """Channels of a tensor as a factor on those of the public network."""
    return _size(shapes, name, full) / full


def _own(shapes: Shapes) -> Layout:
    return Layout("wavsyncswap", "generator of this project")


def _wav2lip(shapes: Shapes) -> Layout:
    config = {"width": _width(shapes, "face_encoder_blocks.0.0.conv_block.0.weight", 16)}
    return Layout("wav2lip", "Wav2Lip generator", config, {"channels": "BGR", "geometry": WAV2LIP_BOX, "mel_lag": 0})


def _quality(shapes: Shapes) -> Layout:
    return Layout("wav2lip_disc_qual", "Wav2Lip visual discriminator", facts={"channels": "BGR"})


def _expert(shapes: Shapes) -> Layout:
    config = {"width": _width(shapes, "face_encoder.0.conv_block.0.weight", 32)}
    return Layout("syncnet_expert", "sync expert", config, {"channels": "BGR"})


def _simswap(shapes: Shapes) -> Layout:
    side = 512 if "down0.0.weight" in shapes else 224
    config = {
        "width": _width(shapes, "first_layer.1.weight", 32 if side == 512 else 64),
        "io_norm": False,  # the keys do not tell; files of the 2022 trainer have to be imported with the flag
        "id_dim": _size(shapes, "BottleNeck.0.style1.linear.weight", 512, axis=1),
    }
    facts = {
        "channels": "RGB",
        "geometry": SIMSWAP_FFHQ if side == 512 else SIMSWAP_FIVE,
        "px": side,
        "recogniser": SIMSWAP_RECOGNISER,
        "mel_lag": 0,
    }
    return Layout(f"simswap_{side}", f"SimSwap generator, {side} px", config, facts)


def _simswap_recogniser(shapes: Shapes) -> Layout:
    config = {"width": _width(shapes, "conv1.weight", 64), "dim": _size(shapes, "fc.bias", 512)}
    facts = {"channels": "RGB", "id": SIMSWAP_RECOGNISER}
    return Layout("simswap_arcface", "SimSwap's recogniser", config, facts)


def _iresnet(shapes: Shapes) -> Layout | None:
    blocks = iresnet_blocks(shapes)
    name = next((name for name, depths in DEPTHS.items() if depths == blocks), None)
    if name is None or not {"conv1.weight", "fc.bias"} <= set(shapes):
        return None
    config = {"width": _width(shapes, "conv1.weight", 64), "dim": _size(shapes, "fc.bias", 512)}
    return Layout(name, f"recogniser ({name})", config, {"channels": "RGB"})


def _syncnet_v2(shapes: Shapes) -> Layout:
    return Layout("syncnet_v2", "SyncNet v2, for the LSE metrics", facts={"channels": "BGR"})


# A name that only files of this kind have; the first that is found counts.
_SIGNS: dict[str, Callable[[Shapes], Layout | None]] = {
    "identity_blocks.0.conv1.1.weight": _own,
    "BottleNeck.0.conv1.1.weight": _simswap,
    "face_decoder_blocks.0.0.conv_block.0.weight": _wav2lip,
    "binary_pred.0.weight": _quality,
    "audio_encoder.13.conv_block.0.weight": _expert,
    "netcnnaud.0.weight": _syncnet_v2,
    "layer1.0.se.fc.0.weight": _simswap_recogniser,
    "features.weight": _iresnet,
}

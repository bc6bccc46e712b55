"""Networks by name, so that a weights file can say which one it belongs to."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from torch import nn

# name -> (module of this package, class or factory); imported when asked for
_NETWORKS = {
    "wavsyncswap": ("wavsyncswap", "WavSyncSwap"),
    "patchgan": ("patchgan", "MultiScalePatchGAN"),
    "iresnet18": ("arcface", "iresnet18"),
    "iresnet34": ("arcface", "iresnet34"),
    "iresnet50": ("arcface", "iresnet50"),
    "iresnet100": ("arcface", "iresnet100"),
    "syncnet_expert": ("syncnet", "SyncNetExpert"),
    "syncnet_v2": ("syncnet_v2", "SyncNetV2"),
    "lip_reader": ("lip_reader", "LipReader"),
    "wav2lip": ("wav2lip", "Wav2Lip"),
    "wav2lip_disc_qual": ("wav2lip", "Wav2LipQuality"),
    "simswap_224": ("simswap", "simswap_224"),
    "simswap_512": ("simswap", "simswap_512"),
    "simswap_arcface": ("simswap_arcface", "SimSwapArcFace"),
    "facedetector": ("facedetector", "FaceDetector"),
    "fid_inception": ("inception", "FIDInception"),
}


def names() -> list[str]:
    """Names `build` knows."""
    return list(_NETWORKS)


def build(name: str, **config: Any) -> nn.Module:
    """Make a network with fresh weights.

    Args:
        name: one of `names()`.
        **config: options of that network, as stored in a weights file's metadata.

    Returns:
        The module, on the current default device.

    Raises:
        ValueError: if the name, or an option, is not known.
    """
    if name not in _NETWORKS:
        raise ValueError(f"Unknown network {name!r}. Known: {', '.join(_NETWORKS)}.")
    module, attribute = _NETWORKS[name]
    factory: Callable[..., nn.Module] = getattr(import_module(f".{module}", __name__), attribute)
    known = list(inspect.signature(factory).parameters)
    if unknown := sorted(set(config) - set(known)):
        options = ", ".join(known) if known else "none"
        raise ValueError(
            f"Network {name!r} has no option {', '.join(map(repr, unknown))}. Known options: {options}. "
            "Weights of a newer version need an update of this pack."
        )
    return factory(**config)

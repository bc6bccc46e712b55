"""Public weight files people already own: what they are, and under which licence (specification section 3.9)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_NONE_GRANTED = "none granted: research and personal use only (LRS2 data)"
_NON_COMMERCIAL = "non-commercial research"
_SIMSWAP = "CC BY-NC 4.0"


@dataclass(frozen=True)
class KnownFile:
    """One public file.

    Attributes:
        name: as published; lower case.
        what: the network in it.
        licence: of the weights.
        size: bytes, None where only an approximate size is published.
        sha256: full digest, its published beginning, or "" where none is published.
    """

    name: str
    what: str
    licence: str
    size: int | None = None
    sha256: str = ""


KNOWN_FILES = (
    KnownFile(
        "wav2lip.pth",
        "Wav2Lip generator",
        _NONE_GRANTED,
        435_807_851,
        "b78b681b68ad9fe6c6fb1debc6ff43ad05834a8af8a62ffc4167b7b34ef63c37",
    ),
    KnownFile(
        "wav2lip_gan.pth",
        "Wav2Lip generator, trained with the visual discriminator",
        _NONE_GRANTED,
        435_801_865,
        "ca9ab7b7b812c0e80a6e70a5977c545a1e8a365a6c49d5e533023c034d7ac3d8",
    ),
    KnownFile(
        "lipsync_expert.pth",
        "Wav2Lip sync expert",
        _NONE_GRANTED,
        197_357_631,
        "9b9936c721696446eeed353032cab242a8cf0eed8c46cde540366f6ae5493be5",
    ),
    KnownFile(
        "visual_quality_disc.pth",
        "Wav2Lip visual discriminator",
        _NONE_GRANTED,
        169_382_040,
        "b3f8f6f7e954af02f2ffe0f3ea11f3259af89bff6e70933001c7c6bc8c145d96",
    ),
    KnownFile("s3fd-619a316812.pth", "S3FD face detector", "research", None, "619a316812"),
    KnownFile(
        "simswap_224.pth",
        "SimSwap generator, 224 px",
        _SIMSWAP,
        220_243_703,
        "24caf144e9aabd5acd1127b06f13ed3528240adb9e747d77a94ac3f33e672330",
    ),
    KnownFile(
        "arcface_checkpoint.tar",
        "SimSwap's recogniser as a pickled module",
        _SIMSWAP,
        None,
        "52ea5ce4902017b77a2bb811dd9a82f57dee3883e06c18a42d288437263c7a20",
    ),
    KnownFile(
        "simswap_arcface.pth",
        "SimSwap's recogniser as a state dict",
        _SIMSWAP,
        209_247_737,
        "49fb8dc922697861fcb6737c62ff96dc6aa91b8c8bc68f8a249f3182ce7d7187",
    ),
    KnownFile(
        "syncnet_v2.model",
        "SyncNet for the LSE metrics",
        "none stated (code MIT)",
        54_573_114,
        "961e8696f888fce4f3f3a6c3d5b3267cf5b343100b238e79b2659bff2c605442",
    ),
    KnownFile(
        "backbone.pth",
        "glint360k CosFace IResNet-100",
        _NON_COMMERCIAL,
        261_223_796,
        "5f631718e783448b41631e15073bdc622eaeef56509bbad4e5085f23bd32db83",
    ),
    KnownFile(
        "w600k_r50.onnx",
        "buffalo_l recogniser (ArcFace IResNet-50)",
        _NON_COMMERCIAL,
        174_383_860,
        "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
    ),
    KnownFile(
        "det_10g.onnx",
        "buffalo_l face detector (SCRFD-10G)",
        _NON_COMMERCIAL,
        16_923_827,
        "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
    ),
    KnownFile(
        "2d106det.onnx",
        "buffalo_l 106 landmarks",
        _NON_COMMERCIAL,
        5_030_888,
        "f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf",
    ),
    KnownFile("pt_inception-2015-12-05-6726825d.pth", "FID Inception", "Apache-2.0 (code)", None, "6726825d"),
)


def named(path: str | os.PathLike[str]) -> KnownFile | None:
    """The public file that goes by this path's name; its content may differ."""
    name = Path(path).name.lower()
    return next((known for known in KNOWN_FILES if known.name.lower() == name), None)

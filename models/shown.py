"""How a video is meant to be shown: the shape of its pixels, its colours, and what people should know about both."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from .colours import HLG, PQ, Colours, tags_of

HDR = {PQ: "PQ", HLG: "HLG"}


@dataclass(frozen=True)
class Shown:
    """What a file says about its pictures.

    Attributes:
        aspect: width of an upright picture's pixels / their height; 1 where nothing is said.
        tags: see `tags_of`.
        notes: remarks for people.
    """

    aspect: Fraction = Fraction(1)
    tags: Colours = Colours()
    notes: tuple[str, ...] = ()


def shown(frame: Any, stream: Any) -> Shown:
    """Of a video's first decoded frame.

    Args:
        frame: PyAV's.
        stream: that it comes from.
    """
    tags = tags_of(frame, stream.codec_context)
    return Shown(_aspect(frame, stream), tags, tuple(_notes(frame, tags)))


def _aspect(frame: Any, stream: Any) -> Fraction:
    stored = Fraction(stream.sample_aspect_ratio or 0)
    if stored <= 0:  # not known
        return Fraction(1)
    return 1 / stored if round(getattr(frame, "rotation", 0) / 90) % 2 else stored


def _notes(frame: Any, tags: Colours) -> list[str]:
    notes = []
    if tags.transfer in HDR:
        notes.append(
            f"The video is HDR ({HDR[tags.transfer]}). A result is HDR too, but in 8 bits, and faces are made and "
            "matched in the video's own curve; convert it to SDR (BT.709) first if they look wrong or skies show bands."
        )
    if frame.interlaced_frame:
        notes.append(
            "The video is interlaced. Its frames are kept as they are, with combs where something moves; deinterlace "
            "it first, for example with FFmpeg's filter bwdif."
        )
    return notes

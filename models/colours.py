"""Between the RGB that programs reckon with and the YUV that videos hold: which matrix, and how exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MPEG_RANGE, FULL_RANGE = 1, 2  # AVColorRange
BT709, UNKNOWN, BT470BG, SMPTE170M, BT2020 = 1, 2, 5, 6, 9  # H.273; BT.601 is the third and the fourth
SRGB, PQ, HLG = 13, 16, 18  # H.273's transfers; the last two are HDR
PLAIN_PRIMARIES = BT709, UNKNOWN, BT470BG, SMPTE170M  # players show all of them alike
PLAIN_TRANSFERS = BT709, UNKNOWN, SMPTE170M, SRGB
ITU709, ITU601 = 1, 5  # swscale's numbers of matrices
HD_HEIGHT = 720  # players take untagged video from this height on as BT.709, below as BT.601
CODED = "yuv420p"  # the pixel format of nearly all video

# swscale flags bilinear | full chroma, horizontally in and out | accurate rounding, as PyAV takes them in all versions.
# Without them every decoded picture is a level and a half too dark.
SCALING = 0x2 | 0x2000 | 0x4000 | 0x40000
DRAFT = 0x2  # bilinear: that dark, in a tenth of the time; faces are found in it all the same


@dataclass(frozen=True)
class Colours:
    """What the numbers of a video's YUV pictures mean, in H.273's numbers; MPEG range.

    Attributes:
        matrix: 1 is BT.709, 5 and 6 BT.601, 9 BT.2020.
        primaries: 2 = not known.
        transfer: 2 = not known.
    """

    matrix: int = BT709
    primaries: int = BT709
    transfer: int = BT709

    @property
    def scaler(self) -> int:
        """Number of the matrix in swscale."""
        return self.matrix if self.matrix in (BT709, BT2020) else ITU601


def untagged_matrix(height: int) -> int:
    """The matrix by which players show a video that does not name one."""
    return BT709 if height >= HD_HEIGHT else SMPTE170M


def to_rgb(matrix: int, full: bool = False) -> dict[str, int]:
    """What PyAV's reformatter has to be told to make RGB of YUV.

    RGB has no matrix; naming another one makes PyAV before 17 set the first, which it forgets where both are alike.

    Args:
        matrix: H.273's or swscale's number.
        full: whether numbers have full range.
    """
    known = {"src_colorspace": matrix, "dst_colorspace": ITU709 if matrix == ITU601 else ITU601}
    return known | {"src_color_range": FULL_RANGE} if full else known


def is_full(frame: Any) -> bool:
    """Whether a decoded frame's numbers have full range: as it says, or by the old names of pixel formats."""
    return frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")


def colours_of(frame: Any, context: Any) -> Colours | None:
    """What a decoded frame's numbers mean.

    Args:
        frame: PyAV's.
        context: of the codec that decoded it.

    Returns:
        None where frames have to become RGB to be worked on: another pixel format than 4:2:0 in eight bits, full range,
        a rare matrix, an odd size, or pictures that are shown turned.
    """
    matrix = untagged_matrix(frame.height) if frame.colorspace == UNKNOWN else int(frame.colorspace)
    plain = frame.format.name == CODED and not is_full(frame) and not getattr(frame, "rotation", 0)
    if not plain or matrix not in (BT709, BT470BG, SMPTE170M) or frame.width % 2 or frame.height % 2:
        return None
    return Colours(matrix, int(context.color_primaries), int(context.color_trc))


def tags_of(frame: Any, context: Any) -> Colours:
    """What a video has to say that is made of decoded frames: as they are, or of their RGB.

    RGB has the primaries and the transfer of what it was made of. Of a plain source it is BT.709; wide gamut and HDR
    stay what they are, for players would show them dull.

    Args:
        frame: PyAV's.
        context: of the codec that decoded it.
    """
    same = colours_of(frame, context)
    if same is not None:
        return same
    primaries, transfer = int(context.color_primaries), int(context.color_trc)
    if primaries in PLAIN_PRIMARIES and transfer in PLAIN_TRANSFERS:
        return Colours()
    return Colours(BT2020 if BT2020 in (int(frame.colorspace), primaries) else BT709, primaries, transfer)

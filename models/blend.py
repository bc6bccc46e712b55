"""Laying generated crops back into their frames: soft mask, one resampling, work only round the face.

The mask is a function of unit-crop coordinates, evaluated at the frame's own pixels. It is therefore the same whatever
the resolution of the crop, and it ends before the crop's border does, so that no edge of the crop can show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import skin_colour
from .geometry import Matrices, invert, pixel_matrix
from .parallel import each

if TYPE_CHECKING:
    from .face_track import FaceTrack

Floats = NDArray[np.float32]
Rectangle = tuple[slice, slice]  # rows, columns

ERODE = 0.06  # untouched border of the crop, in crop sides
COLOUR_MATCHES = ("off", "lab")
MOST_FEATHER = 0.5  # where the soft edges of both sides meet
ROUNDING = 0.35  # corner radius of the pasted area, in crop sides: the corners beside the chin are background
SHRINK = 1.25  # a crop this much larger than its place is averaged down before it is warped


def paste_faces(
    frames: NDArray[Any],
    crops: Floats,
    track: FaceTrack,
    mask: Floats | None = None,
    feather: float = 0.05,
    erode: float = ERODE,
    colour_match: str = "lab",
) -> tuple[NDArray[Any], Floats]:
    """Lay one face back into each frame, where the track says it was cut out.

    Args:
        frames: uint8 or float32 (0..1) [N, H, W, 3] RGB.
        crops: float32 [N, S, S, 3] RGB 0..1; S is free and need not be the size that was cut out.
        track: the same N frames.
        mask: float [N, H, W] or [1, H, W] in 0..1, the most that may be drawn at each pixel (0 protects a hand),
            or None. The face crop's own mask changes nothing.
        feather: width of the soft edge as a share of the crop's side.
        erode: width of the untouched border of the crop, the same way.
        colour_match: "lab" gives the crop's skin the mean and spread of the frame's own face in CIELAB
            (`skin_colour`); "off" pastes colours as they are.

    Returns:
        New frames of the same dtype, and what was drawn as float32 [N, H, W] in 0..1. Absent frames, and pixels where
        the mask is 0, are equal to the input bit for bit.

    Raises:
        ValueError: inputs that do not fit together.
    """
    _check(frames, crops, track, mask, colour_match)
    result = frames.copy()
    drawn = np.zeros(frames.shape[:3], np.float32)
    _paste(result, crops, track, mask, feather, erode, colour_match, drawn)
    return result, drawn


def paste_into(
    frames: NDArray[Any], crops: Floats, track: FaceTrack, feather: float = 0.05, colour_match: str = "lab"
) -> None:
    """As `paste_faces`, into the frames themselves and without an account of it: no frame is copied.

    Raises:
        ValueError: inputs that do not fit together.
    """
    _check(frames, crops, track, None, colour_match)
    _paste(frames, crops, track, None, feather, ERODE, colour_match, None)


def _paste(
    frames: NDArray[Any],
    crops: Floats,
    track: FaceTrack,
    mask: Floats | None,
    feather: float,
    erode: float,
    colour_match: str,
    drawn: Floats | None,
) -> None:
    """Paste in place, frames side by side; the opacity of each paste goes into `drawn` [N, H, W]."""
    skin = skin_colour.skin() if colour_match == "lab" else None

    def paste(i: int) -> None:
        frame, matrix = frames[i], track.matrices[i]
        found = paste_area(matrix, frames.shape[1], frames.shape[2], feather, erode)
        if found is None:
            return
        area, alpha = found
        if mask is not None:
            limit = mask[i if len(mask) > 1 else 0][area]
            alpha = np.minimum(alpha, np.clip(limit, 0, 1, dtype=np.float32))
        if not alpha.any():
            return
        crop = _fitted(np.clip(crops[i], 0, 1, dtype=np.float32), matrix)
        if skin is not None:
            crop = skin_colour.matched(crop, frame, matrix, skin)
        frame[area] = _mixed(frame[area], crop, matrix, area, alpha)
        if drawn is not None:
            drawn[i][area] = alpha

    each(paste, np.flatnonzero(track.present).tolist())


def paste_area(
    matrix: Matrices, height: int, width: int, feather: float = 0.05, erode: float = ERODE
) -> tuple[Rectangle, Floats] | None:
    """Where a crop is laid into its frame when nothing is masked.

    Args:
        matrix: [2, 3] frame pixels -> unit crop.
        height: of the frame, px.
        width: of the frame, px.
        feather: see `paste_faces`.
        erode: see `paste_faces`.

    Returns:
        The rectangle of the frame, and how much is drawn in it, float32 in 0..1; None outside the frame.
    """
    area = _rectangle(matrix, erode, height, width)
    return None if area is None else (area, _soft_rectangle(matrix, area, feather, erode))


def edge(matrices: Matrices, feather: float, erode: float) -> tuple[float, float, NDArray[np.float64]]:
    """The rounded rectangle that is pasted, in crop sides.

    Args:
        matrices: [..., 2, 3] frame pixels -> unit crop.
        feather: see `paste_faces`.
        erode: see `paste_faces`.

    Returns:
        Half its side; the radius of its corners; the width [...] of its soft edge, which lies within.
    """
    half = 0.5 - erode
    # At least one frame pixel wide (no stairs), at most to the middle of the crop.
    width = np.clip(feather, np.hypot(matrices[..., 0, 0], matrices[..., 1, 0]), half)
    return half, min(ROUNDING, half), np.asarray(width)


def fitted_side(matrices: Matrices, size: int) -> NDArray[np.int64]:
    """Side [...] to which a crop of `size` is averaged down where it is clearly larger than its place, else `size`."""
    side = np.maximum(np.ceil(1 / np.hypot(matrices[..., 0, 0], matrices[..., 1, 0])), 2).astype(np.int64)
    return np.where(size <= SHRINK * side, size, side)


def _check(frames: NDArray, crops: NDArray, track: FaceTrack, mask: NDArray | None, colour_match: str) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype not in (np.uint8, np.float32):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; expected uint8 or float32 [N, H, W, 3].")
    if crops.ndim != 4 or crops.shape[-1] != 3 or crops.shape[1] != crops.shape[2] or 0 in crops.shape[1:]:
        raise ValueError(f"crops have shape {crops.shape}; expected square RGB pictures [N, S, S, 3].")
    if not np.isfinite(crops.sum(dtype=np.float64)):
        raise ValueError(
            "The crops hold NaN or infinite numbers, which are no colours. Check the node or program they come from."
        )
    if not len(frames) == len(crops) == len(track):
        raise ValueError(
            f"There are {len(frames)} frames, {len(crops)} crops and {len(track)} tracked frames; give one crop and "
            "one tracked frame for every frame."
        )
    height, width = frames.shape[1:3]
    if tuple(track.frame_size) != (width, height):
        raise ValueError(
            f"The frames are {width} x {height} px, but the face was tracked in {track.frame_size[0]} x "
            f"{track.frame_size[1]} px. Paste into frames of the size that was tracked."
        )
    if mask is not None and (mask.shape[1:] != (height, width) or len(mask) not in (1, len(frames))):
        raise ValueError(f"The mask has shape {mask.shape}; expected [1 or {len(frames)}, {height}, {width}].")
    if colour_match not in COLOUR_MATCHES:
        raise ValueError(f"colour_match is {colour_match!r}; choose one of {', '.join(COLOUR_MATCHES)}.")


def _rectangle(matrix: Matrices, erode: float, height: int, width: int) -> Rectangle | None:
    """Smallest rectangle of frame pixels that holds all of the paste, or None when that lies outside the frame."""
    low, high = erode, 1 - erode
    corners = np.array([[low, low], [high, low], [high, high], [low, high]])
    back = invert(matrix)
    points = corners @ back[:, :2].T + back[:, 2] - 0.5
    left, top = np.clip(np.floor(points.min(0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(points.max(0)) + 1, 0, (width, height)).astype(int)
    return (slice(top, bottom), slice(left, right)) if right > left and bottom > top else None


def _soft_rectangle(matrix: Matrices, area: Rectangle, feather: float, erode: float) -> Floats:
    """Rounded rectangle at the frame's pixels: 0 up to `erode` from the crop's border, 1 from `erode + feather` on."""
    import cv2

    rows, columns = area
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5)[:, None]
    half, radius, width = edge(matrix, feather, erode)
    beyond = []  # the straight part of a side, from the centre outwards
    for a, b, c in np.float32(matrix - ((0, 0, 0.5),)):
        beyond.append(np.abs(a * x + (b * y + c)))
        beyond[-1] -= np.float32(half - radius)
    inner = np.minimum(np.maximum(*beyond), 0) if width > radius else None  # otherwise opaque, however deep
    depth = cv2.magnitude(*(np.maximum(over, 0, out=over) for over in beyond))
    if inner is not None:
        depth += inner
    t = np.subtract(np.float32(radius), depth, out=depth)
    t /= np.float32(width)
    np.clip(t, 0, 1, out=t)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _fitted(crop: Floats, matrix: Matrices) -> Floats:
    """The crop, averaged down where it is clearly larger than its place in the frame, so that warping cannot alias."""
    import cv2

    side = int(fitted_side(matrix, len(crop)))
    if side == len(crop):
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _warped(crop: Floats, matrix: Matrices, area: Rectangle) -> Floats:
    """The crop as it looks in this rectangle of the frame (bicubic, which may overshoot), float32 [h, w, 3]."""
    import cv2

    rows, columns = area
    to_crop = pixel_matrix(matrix, len(crop))
    to_crop[:, 2] += to_crop[:, :2] @ (columns.start, rows.start)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(crop, to_crop, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.float32)


def _mixed(behind: NDArray[Any], crop: Floats, matrix: Matrices, area: Rectangle, alpha: Floats) -> NDArray[Any]:
    """The crop over `behind`, its rectangle of the frame; where alpha is 0 the very numbers of `behind`."""
    import cv2

    levels = behind.dtype == np.uint8
    white = np.float32(255 if levels else 1)
    below = np.asarray(behind, np.float32)
    mixed = _warped(crop * white, matrix, area)
    np.clip(mixed, 0, white, out=mixed)
    mixed -= below
    mixed *= cv2.cvtColor(alpha, cv2.COLOR_GRAY2RGB)  # NumPy alone is slow where one number serves three channels
    mixed += below
    if levels:
        mixed += np.float32(0.5)  # what follows cuts off
        mixed = mixed.astype(np.uint8)
    return np.asarray(cv2.copyTo(behind, (alpha == 0).view(np.uint8), mixed))

"""Laying generated crops back into their frames: soft mask, colour match, one resampling, work only round the face.

The mask is a function of unit-crop coordinates, evaluated at the frame's own pixels. It is therefore the same whatever
the resolution of the crop, and it ends before the crop's border does, so that no edge of the crop can show.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .geometry import CROP_TEMPLATE, Matrices, invert, pixel_matrix, warp_crops

if TYPE_CHECKING:
    from .face_track import FaceTrack

Floats = NDArray[np.float32]
Rectangle = tuple[slice, slice]  # rows, columns

ERODE = 0.06  # untouched border of the crop, in crop sides
COLOUR_MATCHES = ("off", "lab")
ROUNDING = 0.35  # corner radius of the pasted area, in crop sides: the corners beside the chin are background
STATISTICS_SIDE = 96  # px of the small crops that colour statistics are taken from
LEAST_SKIN = 64  # pixels of skin inside the frame below which colours are left alone
GAIN = (0.7, 1.4)  # limits of the spread's correction: a blurry or noisy face must not be blown up
SKIN_SPREAD = 4.0  # standard deviations from the skin's mean up to which the spread is corrected
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
        colour_match: "lab" gives the crop's skin the mean and spread of the frame's own face in CIELAB (Reinhard et
            al. 2001, with Lab in place of their colour space); "off" pastes colours as they are.

    Returns:
        New frames of the same dtype, and what was drawn as float32 [N, H, W] in 0..1. Absent frames, and pixels where
        the mask is 0, are equal to the input bit for bit.

    Raises:
        ValueError: inputs that do not fit together.
    """
    _check(frames, crops, track, mask, colour_match)
    result = frames.copy()
    drawn = np.zeros(frames.shape[:3], np.float32)
    for i, area, alpha in _pasted(result, crops, track, mask, feather, erode, colour_match):
        drawn[i][area] = alpha
    return result, drawn


def paste_into(
    frames: NDArray[Any], crops: Floats, track: FaceTrack, feather: float = 0.05, colour_match: str = "lab"
) -> None:
    """As `paste_faces`, into the frames themselves and without an account of it: no frame is copied.

    Raises:
        ValueError: inputs that do not fit together.
    """
    _check(frames, crops, track, None, colour_match)
    for _ in _pasted(frames, crops, track, None, feather, ERODE, colour_match):
        pass


def _pasted(
    frames: NDArray[Any],
    crops: Floats,
    track: FaceTrack,
    mask: Floats | None,
    feather: float,
    erode: float,
    colour_match: str,
) -> Iterator[tuple[int, Rectangle, Floats]]:
    """Paste in place, frame after frame; number, rectangle and opacity of each paste."""
    for i in np.flatnonzero(track.present).tolist():
        matrix = track.matrices[i]
        found = paste_area(matrix, frames.shape[1], frames.shape[2], feather, erode)
        if found is None:
            continue
        area, alpha = found
        if mask is not None:
            limit = mask[i if len(mask) > 1 else 0][area]
            alpha = np.minimum(alpha, np.clip(limit, 0, 1, dtype=np.float32))
        if not alpha.any():
            continue
        crop = _fitted(np.clip(crops[i], 0, 1, dtype=np.float32), matrix)
        if colour_match == "lab":
            crop = _match_colours(crop, frames[i], matrix)
        frames[i][area] = _mixed(frames[i][area], _warped(crop, matrix, area), alpha)
        yield i, area, alpha


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


def _check(frames: NDArray, crops: NDArray, track: FaceTrack, mask: NDArray | None, colour_match: str) -> None:
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype not in (np.uint8, np.float32):
        raise ValueError(f"frames are {frames.dtype} {frames.shape}; expected uint8 or float32 [N, H, W, 3].")
    if crops.ndim != 4 or crops.shape[-1] != 3 or crops.shape[1] != crops.shape[2] or 0 in crops.shape[1:]:
        raise ValueError(f"crops have shape {crops.shape}; expected square RGB pictures [N, S, S, 3].")
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
    rows, columns = area
    x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5
    y = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5)[:, None]
    half = 0.5 - erode
    radius = min(ROUNDING, half)
    from_centre = [np.abs(np.float32(a) * x + np.float32(b) * y + np.float32(c - 0.5)) for a, b, c in matrix]
    over_x, over_y = (side - np.float32(half - radius) for side in from_centre)
    corner = np.hypot(np.maximum(over_x, 0), np.maximum(over_y, 0))
    depth = radius - np.where(corner > 0, corner, np.maximum(over_x, over_y))
    # At least one frame pixel wide (no stairs), at most to the middle of the crop.
    width = float(np.clip(feather, np.hypot(matrix[0, 0], matrix[1, 0]), half))
    t = np.clip(depth / width, 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def _fitted(crop: Floats, matrix: Matrices) -> Floats:
    """The crop, averaged down where it is clearly larger than its place in the frame, so that warping cannot alias."""
    import cv2

    side = max(int(np.ceil(1 / np.hypot(matrix[0, 0], matrix[1, 0]))), 2)
    if len(crop) <= SHRINK * side:
        return crop
    return np.asarray(cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _warped(crop: Floats, matrix: Matrices, area: Rectangle) -> Floats:
    """The crop as it looks in this rectangle of the frame (bicubic), float32 [h, w, 3] in 0..1."""
    import cv2

    rows, columns = area
    to_crop = pixel_matrix(matrix, len(crop))
    to_crop[:, 2] += to_crop[:, :2] @ (columns.start, rows.start)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(crop, to_crop, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(np.clip(warped, 0, 1), np.float32)


def _mixed(behind: NDArray[Any], front: Floats, alpha: Floats) -> NDArray[Any]:
    """`front` over `behind`; where alpha is 0 the very numbers of `behind`."""
    weight = alpha[..., None]
    if behind.dtype == np.uint8:
        mixed = behind + weight * (front * 255 - behind)
        return np.where(weight > 0, (mixed + 0.5).clip(0, 255).astype(np.uint8), behind)
    return np.where(weight > 0, behind + weight * (front - behind), behind)


def _match_colours(crop: Floats, frame: NDArray[Any], matrix: Matrices) -> Floats:
    """Crop with its skin's mean and spread in Lab taken from the frame's own face.

    Every frame on its own: the statistics are means over a stabilised area and hardly flicker, and a result that
    depended on neighbours would depend on how a clip was cut into chunks.
    """
    import cv2

    skin = _skin() & _inside_frame(matrix, *frame.shape[:2])
    if skin.sum() < LEAST_SKIN:
        return crop
    side = (STATISTICS_SIDE, STATISTICS_SIDE)
    original = warp_crops(frame[None], matrix[None], STATISTICS_SIDE)[0]
    original = np.float32(original) / np.float32(255) if frame.dtype == np.uint8 else original
    made = cv2.resize(crop, side, interpolation=cv2.INTER_AREA if len(crop) > side[0] else cv2.INTER_LINEAR)
    wanted, found = (cv2.cvtColor(picture, cv2.COLOR_RGB2Lab)[skin] for picture in (original, made))
    gain = np.clip(wanted.std(0) / np.maximum(found.std(0), 1e-3), *GAIN)
    lab = cv2.cvtColor(crop, cv2.COLOR_RGB2Lab)
    # Stretched like skin, colours far from it (a blue wall, hair, teeth) would run away; they are only moved along.
    reach = SKIN_SPREAD * found.std(0)
    lab = lab + (wanted.mean(0) - found.mean(0)) + (gain - 1) * np.clip(lab - found.mean(0), -reach, reach)
    return np.asarray(np.clip(cv2.cvtColor(np.float32(lab), cv2.COLOR_Lab2RGB), 0, 1), np.float32)


def _unit_grid() -> NDArray[np.float64]:
    centres = (np.arange(STATISTICS_SIDE) + 0.5) / STATISTICS_SIDE
    return np.stack(np.meshgrid(centres, centres), -1)


def _skin() -> NDArray[np.bool_]:
    """Where the crop shows skin: brow to chin, without eyes and mouth (these differ for good reasons)."""
    grid = _unit_grid()
    eyes_and_mouth = [(*CROP_TEMPLATE[0], 0.10, 0.06), (*CROP_TEMPLATE[1], 0.10, 0.06)]
    eyes_and_mouth.append((*CROP_TEMPLATE[3:].mean(0), 0.18, 0.10))

    def ellipse(x: float, y: float, a: float, b: float) -> NDArray[np.bool_]:
        return np.asarray((((grid - (x, y)) / (a, b)) ** 2).sum(-1) < 1)

    area = ellipse(0.5, 0.55, 0.25, 0.32)
    for hole in eyes_and_mouth:
        area &= ~ellipse(*hole)
    return area


def _inside_frame(matrix: Matrices, height: int, width: int) -> NDArray[np.bool_]:
    back = invert(matrix)
    points = _unit_grid() @ back[:, :2].T + back[:, 2]
    return np.asarray(((points >= 0) & (points <= (width, height))).all(-1))

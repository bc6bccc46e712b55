"""Whole frames through Wav2Lip and SimSwap as their own programs do it (specification 2.1, 2.2), for comparisons.

Integer boxes with a hard paste, one face at a time, a second detection on the frames that Wav2Lip drew: what it costs
and how it looks is part of what is compared. The pack's own way with the same networks is `systems`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .audio import MEL_COLUMNS_PER_SECOND, MEL_SILENCE, WINDOW_COLUMNS, load_mel
from .faces import BUILTIN, Detection, Detector
from .frames import FrameSource
from .generator import FaceGenerator
from .geometry import GEOMETRY_ID, Matrices, crop_matrices, invert, pixel_matrix
from .identity import FaceEmbedding, Recogniser
from .layouts import SIMSWAP_FFHQ, SIMSWAP_FIVE, SIMSWAP_RECOGNISER
from .networks.simswap_arcface import INPUT_SIZE
from .networks.wav2lip import SIDE as WAV2LIP_SIDE
from .networks.wavsyncswap import mask_lower_half
from .regions import FACE_BOX
from .simswap_identity import CROP, cut, ffhq_matrices, pose_matrices
from .systems import Cascade, SimSwapSystem, Wav2LipSystem, in_order, typed
from .video_writer import VideoWriter

Frames = NDArray[np.uint8]  # [N, H, W, 3] RGB
PADS = (0, 10, 0, 0)  # px above, below, left, right of the detected box
SMOOTHING = 5  # frames whose boxes are averaged, this one and those that follow
ERODE, BLUR = 40, 20  # px: side of the square that eats SimSwap's mask, and reach of the blur after it
WHITE = 20  # grey levels of 255 from which a warped white pixel counts as inside


def wav2lip_windows(mel: Tensor, fps: Fraction) -> Tensor:
    """Mel windows as Wav2Lip's program cuts them: no lag, and the first that would pass the end is the last (spec 1.2).

    A clip of N frames with sound as long gets three windows fewer than frames, and the video ends there.

    Args:
        mel: float32 [80, T].
        fps: frames per second, exact.

    Returns:
        float32 [K, 1, 80, 16].
    """
    mel = torch.nn.functional.pad(mel, (0, max(0, WINDOW_COLUMNS - mel.shape[1])), value=MEL_SILENCE)
    last = mel.shape[1] - WINDOW_COLUMNS
    step = Fraction(MEL_COLUMNS_PER_SECOND) / fps
    starts = [int(i * step) for i in range(math.ceil((last + 1) / step))]
    return torch.stack([mel[:, start : start + WINDOW_COLUMNS] for start in [*starts, last]])[:, None]


def detected_boxes(frames: Frames, detector: Detector) -> NDArray[np.float64]:
    """Box of the surest face in each frame, forehead to chin, float64 [N, 4] (x1, y1, x2, y2).

    Boxes of the built-in detector begin at the brow; what it finds is boxed from its landmarks.

    Raises:
        ValueError: a frame without a face, which Wav2Lip's program does not accept either.
    """
    found = detector.detect(frames)
    if missing := [i for i, faces in enumerate(found) if not faces]:
        raise ValueError(
            f"No face in {len(missing)} of {len(frames)} frames (the first is {missing[0]}). Wav2Lip's own way needs "
            "one in every frame: leave these frames out, or lower the detector's threshold."
        )
    best = [faces[0] for faces in found]
    if detector.name == BUILTIN:
        return np.stack([landmark_box(face) for face in best])
    return np.stack([face.box for face in best]).astype(np.float64)


def landmark_box(face: Detection) -> NDArray[np.float64]:
    """Upright box around a face, forehead to chin, from its five landmarks: float64 [4]."""
    back = invert(crop_matrices(face.landmarks[None] + 0.5))[0]
    left, top, right, bottom = FACE_BOX
    centre = back[:, :2] @ ((left + right) / 2, (top + bottom) / 2) + back[:, 2] - 0.5
    half = np.hypot(back[0, 0], back[1, 0]) * np.array([right - left, bottom - top]) / 2
    return np.concatenate([centre - half, centre + half])


def wav2lip_boxes(
    boxes: NDArray[np.floating],
    width: int,
    height: int,
    pads: tuple[int, int, int, int] = PADS,
    smoothing: int = SMOOTHING,
) -> NDArray[np.int64]:
    """Boxes as Wav2Lip cuts them: whole pixels, padded, inside the frame, averaged with those that follow.

    The average is taken in place and cut to whole pixels, as published: the last `smoothing` - 1 rows mix boxes that
    are averages already.

    Args:
        boxes: [N, 4] x1, y1, x2, y2 as detected, of the frames that have a window: the clip ends there before.
        width: of the frames.
        height: of the frames.
        pads: px added above, below, left, right; (0, 0, 0, 0) for evaluation on LRS.
        smoothing: frames; 1 = off.

    Returns:
        int64 [N, 4] x1, y1, x2, y2.
    """
    above, below, left, right = pads
    whole = np.maximum(boxes, 0).astype(np.int64)
    result = np.stack(
        [
            np.maximum(whole[:, 0] - left, 0),
            np.maximum(whole[:, 1] - above, 0),
            np.minimum(whole[:, 2] + right, width),
            np.minimum(whole[:, 3] + below, height),
        ],
        1,
    )
    for i in range(len(result)):
        first = i if i + smoothing <= len(result) else len(result) - smoothing
        result[i] = result[first : first + smoothing if first >= 0 else None].mean(0)
    return result


@torch.inference_mode()
def wav2lip_frames(
    frames: Frames, windows: Tensor, boxes: NDArray[np.integer], system: Wav2LipSystem, batch: int = 16
) -> Frames:
    """Frames with new lips, one for each mel window; when frames run out they start over.

    Args:
        frames: uint8 [N, H, W, 3] RGB.
        windows: float32 [K, 1, 80, 16], of `wav2lip_windows` or any others.
        boxes: [N, 4] of `wav2lip_boxes`.
        system: a loaded Wav2Lip.
        batch: faces a forward pass.

    Returns:
        uint8 [K, H, W, 3].

    Raises:
        ValueError: frames and boxes differ in number, or a box has no area.
    """
    import cv2

    if len(boxes) != len(frames) or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise ValueError(f"Each of the {len(frames)} frames needs a box with an area; got {len(boxes)} boxes.")
    rows = np.arange(len(windows)) % len(frames)
    result = frames[rows]
    places = [(slice(y1, y2), slice(x1, x2)) for x1, y1, x2, y2 in boxes[rows].tolist()]
    side = (WAV2LIP_SIDE, WAV2LIP_SIDE)
    for start in range(0, len(rows), batch):
        part = range(start, min(start + batch, len(rows)))
        faces = np.stack([cv2.resize(result[i][places[i]], side) for i in part])
        pictures = in_order(_pictures(faces, system.device), system.metadata)
        pair = torch.cat([mask_lower_half(pictures), pictures], 1)
        sound = windows[part.start : part.stop].to(system.device)
        made = in_order(system.network(*typed(system.network, sound, pair)), system.metadata)
        levels = (made * 255).byte().movedim(1, -1).contiguous().cpu().numpy()  # rounded down
        for i, face in zip(part, levels, strict=True):
            height, width = result[i][places[i]].shape[:2]
            result[i][places[i]] = cv2.resize(face, (width, height))
    return result


@torch.inference_mode()
def simswap_identity(
    picture: Frames, detector: Detector, recogniser: Recogniser, system: SimSwapSystem
) -> FaceEmbedding:
    """The source's identity as the program that goes with these weights takes it.

    The crop is the generator's own: five poses for 224 px, FFHQ's for 512 px. Of its pixels every second one is looked
    at (every 4.57th of 512); the trainer of 2022 (`io_norm`) makes the crop smaller by bicubic interpolation.

    Args:
        picture: uint8 [H, W, 3] RGB; the surest face counts.
        detector: finds it.
        recogniser: that of the weights.
        system: a loaded SimSwap.

    Raises:
        ValueError: no face, or another recogniser than the weights'.
    """
    faces = detector.detect(picture[None])[0]
    if not faces:
        raise ValueError("No face in the source picture. Give another picture, or lower the detector's threshold.")
    if system.recogniser != SIMSWAP_RECOGNISER:  # trained here: the recogniser has its own way
        vector = recogniser.embed_frames(picture[None], faces[0].landmarks[None])[0]
    else:
        side = 512 if system.metadata["geometry"] == SIMSWAP_FFHQ else CROP
        matrices = simswap_matrices(replace(system, side=side), faces[0].landmarks[None])
        mode = "bicubic" if system.network.io_norm else "nearest"
        crop = _pictures(cut(picture[None], matrices, side), recogniser.device)
        seen = torch.nn.functional.interpolate(crop, (INPUT_SIZE, INPUT_SIZE), mode=mode)
        vector = recogniser.embed(seen)[0].cpu().numpy()
    embedding = FaceEmbedding(vector, recogniser.id)
    system.check_identity(embedding)
    return embedding


@torch.inference_mode()
def simswap_frames(
    frames: Frames,
    detector: Detector,
    embedding: FaceEmbedding,
    system: SimSwapSystem,
    scaled: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Frames:
    """Frames whose surest face has another identity; frames without a face stay as they are.

    Args:
        frames: uint8 [N, H, W, 3] RGB.
        detector: asked again for every frame.
        embedding: source identity.
        system: a loaded SimSwap; its `side` is the side of the crop.
        scaled: False = the published paste, whose soft border is measured in frame pixels, so that small faces vanish
            in it; True = it grows and shrinks with the face.
        progress: called with (done, N) after every frame.

    Returns:
        uint8 [N, H, W, 3].

    Raises:
        ValueError: as `SimSwapSystem.check_identity`.
    """
    system.check_identity(embedding)
    styles, result = system.prepare(embedding), frames.copy()
    for i, frame in enumerate(frames):
        if faces := detector.detect(frame[None])[0]:
            matrix = simswap_matrices(system, faces[0].landmarks[None])[0]
            crop = in_order(_pictures(cut(frame[None], matrix[None], system.side), system.device), system.metadata)
            made = in_order(system.network.modulated(crop, styles), system.metadata)[0]
            result[i] = paste_swapped(frame, made.movedim(0, -1).cpu().numpy(), matrix, scaled)
        if progress:
            progress(i + 1, len(frames))
    return result


def simswap_matrices(system: SimSwapSystem, landmarks: NDArray[np.floating]) -> Matrices:
    """Frame pixels -> pixels of the crop that these weights were trained on: landmarks [N, 5, 2] -> [N, 2, 3]."""
    geometry, side = system.metadata["geometry"], system.side
    if geometry == GEOMETRY_ID:
        return np.stack([pixel_matrix(matrix, side) for matrix in crop_matrices(landmarks + 0.5)])
    return {SIMSWAP_FIVE: pose_matrices, SIMSWAP_FFHQ: ffhq_matrices}[geometry](landmarks, side)


def paste_swapped(frame: Frames, made: NDArray[np.float32], matrix: Matrices, scaled: bool = False) -> Frames:
    """SimSwap's paste: the warped square, eaten away from its border and blurred, is the mask.

    Args:
        frame: uint8 [H, W, 3].
        made: float32 [S, S, 3] in [0, 1].
        matrix: float64 [2, 3], frame pixels -> crop pixels.
        scaled: see `simswap_frames`.

    Returns:
        uint8 [H, W, 3].
    """
    import cv2

    size, back = (frame.shape[1], frame.shape[0]), invert(matrix)
    factor = len(made) / np.hypot(matrix[0, 0], matrix[1, 0]) / CROP if scaled else 1.0  # of a face of 224 px
    mask = cv2.warpAffine(np.full(made.shape[:2], 255.0), back, size)
    mask[mask > WHITE] = 255
    eaten, reach = max(1, round(ERODE * factor)), max(1, round(BLUR * factor))
    mask = cv2.erode(mask, np.ones((eaten, eaten), np.uint8))
    mask = cv2.GaussianBlur(mask, (2 * reach + 1,) * 2, 0)[..., None] / 255
    placed = cv2.warpAffine(made, back, size) * 255.0
    mixed: Frames = (mask * placed + (1 - mask) * frame).clip(0, 255).astype(np.uint8)  # rounded down
    return mixed


def talking_swap_upstream(
    source: FrameSource,
    audio: tuple[NDArray[np.float32], int] | None,
    embedding: FaceEmbedding | None,
    output: Path,
    *,
    system: FaceGenerator,
    detector: Detector,
    scaled: bool = False,
) -> int:
    """The whole job as the original programs do it, one after the other: file to file, every frame in memory.

    Wav2Lip's program ends the video with the last whole mel window, three frames before the sound, and cuts the clip
    there before it averages boxes. Between the programs frames are handed on as they are; the originals write and read
    a lossy file there.

    Args:
        source: target video.
        audio: float32 [C, T] and rate. None for SimSwap alone, whose result then has no sound.
        embedding: of `simswap_identity`; None for Wav2Lip alone.
        output: mp4 to write.
        system: a loaded Wav2Lip, SimSwap or cascade.
        detector: face detector.
        scaled: see `simswap_frames`.

    Returns:
        Frames written.

    Raises:
        ValueError: another system, no sound for Wav2Lip, or what its steps do not accept.
    """
    system.check_identity(embedding)
    talk, swap = split(system)
    info = source.info
    frames = source.read(0, info.frames)
    if talk:
        if audio is None:
            raise ValueError("Wav2Lip's own way needs speech. Give a sound, or a video that has one.")
        windows = wav2lip_windows(load_mel(*audio).values.T, info.fps)
        frames = frames[: len(windows)]
        boxes = wav2lip_boxes(detected_boxes(frames, detector), info.width, info.height)
        frames = wav2lip_frames(frames, windows, boxes, talk)
    if swap:
        assert embedding is not None  # `check_identity` came first
        frames = simswap_frames(frames, detector, embedding, swap, scaled)
    form = info.width, info.height, info.fps
    with VideoWriter(output, *form, audio, colours=info.tags, aspect=info.aspect) as writer:
        writer.write(frames)
    return len(frames)


def split(system: FaceGenerator) -> tuple[Wav2LipSystem | None, SimSwapSystem | None]:
    """The two programs' parts of a system.

    Raises:
        ValueError: neither Wav2Lip nor SimSwap is in it.
    """
    if isinstance(system, Cascade):
        return system.talk, system.swap
    if isinstance(system, Wav2LipSystem):
        return system, None
    if isinstance(system, SimSwapSystem):
        return None, system
    raise ValueError(
        f"{system.metadata.get('network')} has no other program's way with whole frames: only Wav2Lip, SimSwap and the "
        "cascade of both have one."
    )


def _pictures(faces: Frames, device: torch.device) -> Tensor:
    """uint8 [n, S, S, 3] -> float32 [n, 3, S, S] in [0, 1]."""
    return torch.from_numpy(faces).to(device).movedim(-1, 1).float() / 255

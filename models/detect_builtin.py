"""The built-in detector at work: letterboxing, batches, a second look for small faces, refined landmarks."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from . import nearby
from .checkpoints import bundled_path, load_into, load_weights
from .faces import DEFAULT_THRESHOLD, Detection
from .generator import inference_form
from .geometry import crop_matrices, invert, warp_crops
from .memory import moved
from .networks.facedetector import REFINER_SIDE, FaceDetector, decode, suppress

WEIGHTS = "detector.safetensors"
LONG_SIDE = 320  # px a frame is reduced to at first
SECOND_LOOK = 800  # px for frames in which nothing was found
STRICTER = 0.25  # share of the way to 1 by which the second look's threshold rises: it sees six times the places
BATCH = 8
REFINED = 32  # faces whose landmarks are corrected at a time
MOST_AREA = 0.6  # of the frame that windows may cover and still be cheaper than the whole
REFINEMENTS = 2  # the second pass starts from better landmarks, so its crop is better too

Found = tuple[list[Detection], int]  # faces of a frame, and the long side at which it was looked at


class BuiltinDetector:
    """Detector protocol over the bundled network.

    Args:
        path: weights; None = the bundled file.
        device: torch device.
        threshold: least score, 0..1.
        long_side: frames larger than this are reduced to it for the first look.
    """

    def __init__(
        self,
        path: Path | None = None,
        device: str | torch.device = "cpu",
        threshold: float = DEFAULT_THRESHOLD,
        long_side: int = LONG_SIDE,
    ) -> None:
        state, metadata = load_weights(path or bundled_path(WEIGHTS))
        network = FaceDetector(**metadata.get("config", {}))
        load_into(network, {key: value.float() for key, value in state.items()}, WEIGHTS)
        self.network = inference_form(network, torch.float32).to(device)
        self.name, self.threshold, self.long_side = "builtin", threshold, long_side
        self.sizes = (long_side, SECOND_LOOK)  # px, named where nothing is found

    @torch.inference_mode()
    def detect(self, frames: NDArray[np.uint8]) -> list[list[Detection]]:
        """Faces of every frame; see `Detector.detect`."""
        return self._refined(frames, [faces for faces, _ in self._searched(frames)])

    @torch.inference_mode()
    def detect_video(self, frames: NDArray[np.uint8]) -> list[list[Detection]]:
        """Faces of consecutive frames of a video: in most of them only where faces are before and after.

        Args:
            frames: uint8 [N, H, W, 3] RGB.

        Returns:
            As `Detector.detect`; a face that shows itself for less than `nearby.EVERY` frames may be missed.
        """
        keys = nearby.key_frames(len(frames))
        found: list[Found | None] = [None] * len(frames)
        for i, faces in zip(keys, self._searched(frames[keys]), strict=True):
            found[i] = faces
        small = nearby.thumbnails(frames)
        for before, after in pairwise(keys):
            first, last = found[before], found[after]
            assert first is not None and last is not None
            inside = range(before + 1, after)
            if not inside or not nearby.same_shot(small[before : after + 1]):
                continue
            if not first[0] and not last[0]:
                found[before + 1 : after] = [([], first[1])] * len(inside)
            elif first[1] == last[1] and (boxes := nearby.joint_boxes(first[0], last[0])) is not None:
                found[before + 1 : after] = self._near(frames[before + 1 : after], boxes, first[1])
        rest = [i for i, faces in enumerate(found) if faces is None]
        for i, faces in zip(rest, self._searched(frames[rest]), strict=True):
            found[i] = faces
        return self._refined(frames, [faces[0] for faces in found if faces is not None])

    def _searched(self, frames: NDArray[np.uint8]) -> list[Found]:
        """Faces of the whole frames, and the size at which each was looked at last."""
        if not len(frames):
            return []
        found = [(faces, self.long_side) for faces in self._look(frames, self.long_side)]
        missed = [i for i, (faces, _) in enumerate(found) if not faces]
        if missed and max(frames.shape[1:3]) > self.long_side:
            for i, faces in zip(missed, self._look(frames[missed], SECOND_LOOK), strict=True):
                found[i] = faces, SECOND_LOOK
        return found

    def _look(self, frames: NDArray[np.uint8], long_side: int) -> list[list[Detection]]:
        result = []
        for start in range(0, len(frames), BATCH):
            canvas, ratio = _canvas(frames[start : start + BATCH], long_side)
            result += self._found(canvas, self._least(long_side), ratio)
        return result

    def _near(self, frames: NDArray[np.uint8], boxes: list[NDArray[np.float64]], long_side: int) -> list[Found | None]:
        """Faces in and around boxes; None for a frame that does not show one in each."""
        canvas, ratio = _canvas(frames, long_side)
        windows = nearby.windows([box / np.tile(ratio, 2) for box in boxes], *canvas.shape[2:0:-1])
        looked_at = sum((right - left) * (bottom - top) for left, top, right, bottom in windows)
        if looked_at > MOST_AREA * canvas.shape[1] * canvas.shape[2]:
            return [None] * len(frames)
        found: list[list[Detection]] = [[] for _ in frames]
        for left, top, right, bottom in windows:
            parts = self._found(canvas[:, top:bottom, left:right], self._least(long_side), ratio, (left, top))
            for faces, more in zip(found, parts, strict=True):
                faces += more
        ordered = [sorted(faces, key=lambda face: -face.score) for faces in found]
        return [(faces, long_side) if len(faces) == len(boxes) else None for faces in ordered]

    def _least(self, long_side: int) -> float:
        """Score from which a face counts."""
        return self.threshold + STRICTER * (1 - self.threshold) * (long_side != self.long_side)

    def _found(
        self, canvas: NDArray[np.uint8], threshold: float, ratio: NDArray[np.float32], origin: tuple[int, int] = (0, 0)
    ) -> list[list[Detection]]:
        """Faces of reduced frames uint8 [n, h, w, 3], sides divisible by 32, in pixels of the frames they come from."""
        pictures = moved(torch.from_numpy(np.ascontiguousarray(canvas)), self._device).permute(0, 3, 1, 2)
        maps = self.network(pictures.float() / 255)
        corner = np.array(origin, np.float32)
        result = []
        for scores, boxes, points in decode([level.cpu() for level in maps], threshold):
            result.append(
                [
                    Detection(
                        (boxes[i].numpy() + np.tile(corner, 2)) * np.tile(ratio, 2),
                        float(scores[i]),
                        (points[i].numpy() + corner) * ratio,
                    )
                    for i in suppress(boxes)
                ]
            )
        return result

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    def _refined(self, frames: NDArray[np.uint8], found: list[list[Detection]]) -> list[list[Detection]]:
        rows = [i for i, faces in enumerate(found) for _ in faces]
        if not rows:
            return found
        landmarks = np.stack([face.landmarks for faces in found for face in faces]).astype(np.float64)
        for _ in range(REFINEMENTS):
            matrices = crop_matrices(landmarks + 0.5)
            unit = np.concatenate(
                [
                    self._corrected(frames, rows[start : start + REFINED], matrices[start : start + REFINED])
                    for start in range(0, len(rows), REFINED)
                ]
            )
            back = invert(matrices)
            landmarks = unit @ back[:, :, :2].transpose(0, 2, 1) + back[:, None, :, 2] - 0.5
        better = iter(landmarks.astype(np.float32))
        return [[Detection(face.box, face.score, next(better)) for face in faces] for faces in found]

    def _corrected(
        self, frames: NDArray[np.uint8], rows: list[int], matrices: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Landmarks in unit coordinates, seen on crops of frames `rows`: float64 [n, 5, 2]."""
        each = zip(rows, matrices, strict=True)
        crops = np.concatenate([warp_crops(frames[i, None], matrix[None], REFINER_SIDE) for i, matrix in each])
        pictures = moved(torch.from_numpy(crops), self._device).permute(0, 3, 1, 2)
        return self.network.refiner(pictures.float() / 255).cpu().double().numpy()


def _canvas(frames: NDArray[np.uint8], long_side: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Reduced frames with a grey border up to sides divisible by 32, and frame pixels per pixel of them (x, y)."""
    import cv2

    height, width = frames.shape[1:3]
    scale = min(1.0, long_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    padded = [-(-side // nearby.GRID) * nearby.GRID for side in size]
    canvas = np.full((len(frames), padded[1], padded[0], 3), 127, np.uint8)
    for row, frame in zip(canvas, frames, strict=True):
        row[: size[1], : size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return canvas, np.array([width / size[0], height / size[1]], np.float32)

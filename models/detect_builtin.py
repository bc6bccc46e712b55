"""The built-in detector at work: letterboxing, batches, a second look for small faces, refined landmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from .checkpoints import bundled_path, load_into, load_weights
from .faces import DEFAULT_THRESHOLD, Detection
from .geometry import crop_matrices, invert, warp_crops
from .networks.facedetector import REFINER_SIDE, FaceDetector, decode, suppress

WEIGHTS = "detector.safetensors"
LONG_SIDE = 320  # px a frame is reduced to at first
SECOND_LOOK = 800  # px for frames in which nothing was found
STRICTER = 0.25  # share of the way to 1 by which the second look's threshold rises: it sees six times the places
BATCH = 8
REFINEMENTS = 2  # the second pass starts from better landmarks, so its crop is better too


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
        self.network = network.eval().requires_grad_(False).to(device)
        self.name, self.threshold, self.long_side = "builtin", threshold, long_side
        self.sizes = (long_side, SECOND_LOOK)  # px, named where nothing is found

    @torch.inference_mode()
    def detect(self, frames: NDArray[np.uint8]) -> list[list[Detection]]:
        """Faces of every frame; see `Detector.detect`."""
        if not len(frames):
            return []
        found = self._look(frames, self.long_side, self.threshold)
        missed = [i for i, faces in enumerate(found) if not faces]
        if missed and max(frames.shape[1:3]) > self.long_side:
            stricter = self.threshold + STRICTER * (1 - self.threshold)
            for i, faces in zip(missed, self._look(frames[missed], SECOND_LOOK, stricter), strict=True):
                found[i] = faces
        return [self._refined(frame, faces) for frame, faces in zip(frames, found, strict=True)]

    def _look(self, frames: NDArray[np.uint8], long_side: int, threshold: float) -> list[list[Detection]]:
        import cv2

        height, width = frames.shape[1:3]
        scale = min(1.0, long_side / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        padded = [-(-side // 32) * 32 for side in size]
        ratio = np.array([width / size[0], height / size[1]], np.float32)
        device = next(self.network.parameters()).device
        result: list[list[Detection]] = []
        for start in range(0, len(frames), BATCH):
            part = frames[start : start + BATCH]
            canvas = np.full((len(part), padded[1], padded[0], 3), 127, np.uint8)
            for row, frame in zip(canvas, part, strict=True):
                row[: size[1], : size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            maps = self.network(torch.from_numpy(canvas).to(device).permute(0, 3, 1, 2).float() / 255)
            for scores, boxes, points in decode([level.cpu() for level in maps], threshold):
                faces = [
                    Detection(boxes[i].numpy() * np.tile(ratio, 2), float(scores[i]), points[i].numpy() * ratio)
                    for i in suppress(boxes)
                ]
                result.append(faces)
        return result

    def _refined(self, frame: NDArray[np.uint8], faces: list[Detection]) -> list[Detection]:
        if not faces:
            return faces
        landmarks = np.stack([face.landmarks for face in faces]).astype(np.float64)
        device = next(self.network.parameters()).device
        for _ in range(REFINEMENTS):
            matrices = crop_matrices(landmarks + 0.5)
            crops = np.concatenate([warp_crops(frame[None], matrix[None], REFINER_SIDE) for matrix in matrices])
            unit = self.network.refiner(torch.from_numpy(crops).to(device).permute(0, 3, 1, 2).float() / 255)
            back = invert(matrices)
            landmarks = unit.cpu().double().numpy() @ back[:, :, :2].transpose(0, 2, 1) + back[:, None, :, 2] - 0.5
        return [
            Detection(face.box, face.score, five.astype(np.float32))
            for face, five in zip(faces, landmarks, strict=True)
        ]

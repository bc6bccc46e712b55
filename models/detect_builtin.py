"""The built-in detector at work: letterboxing, batches, a second look for small faces, refined landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from . import nearby
from .checkpoints import bundled_path, load_into, load_weights
from .faces import DEFAULT_THRESHOLD, Detection
from .geometry import crop_matrices, invert, warp_crops
from .inference_form import inference_form
from .letterbox import Letterbox, Window
from .memory import moved
from .networks.facedetector import REFINER_SIDE, FaceDetector, decode, joined, suppress
from .parallel import each
from .shots import thumbnail

WEIGHTS = "detector.safetensors"
LONG_SIDE = 320  # px a frame is reduced to at first
SECOND_LOOK = 800  # px for frames in which nothing was found
STRICTER = 0.25  # share of the way to 1 by which the second look's threshold rises: it sees six times the places
BATCH = 8  # pictures in one call, and more where these are fewer pixels:
PIXELS = {"cpu": 8 * 320 * 192, "cuda": 64 * 320 * 192}
REFINED = {"cpu": 32, "cuda": 512}  # faces whose landmarks are corrected in one call
MULTIPLE = {"cpu": 1, "cuda": 8}  # of pictures that a call gets, blank ones if need be: cuDNN plans each number anew
MOST_AREA = 0.6  # of the frame that windows may cover and still be cheaper than the whole
REFINEMENTS = 2  # the second pass starts from better landmarks, so its crop is better too

Frames = Sequence[NDArray[np.uint8]]  # [H, W, 3] each, of one size
Found = tuple[list[Detection], int]  # faces of a frame, and the long side at which it was looked at
Gap = tuple[range, nearby.Boxes]  # frames between two that are searched as a whole, and where their faces will be
View = tuple[int, tuple[int, int], NDArray[np.uint8]]  # a frame, and the corner and the picture of a window in it


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
        return self._refined(frames, [faces for faces, _ in self._searched(list(frames))])

    @torch.inference_mode()
    def detect_video(
        self, frames: NDArray[np.uint8], small: Sequence[NDArray[np.float32]] | None = None
    ) -> list[list[Detection]]:
        """Faces of consecutive frames of a video: in most of them only where faces are before and after.

        Args:
            frames: uint8 [N, H, W, 3] RGB.
            small: their `shots.thumbnail`s, where they are known.

        Returns:
            As `Detector.detect`; a face that shows itself for less than `nearby.EVERY` frames may be missed.
        """
        keys = nearby.key_frames(len(frames))
        found: list[Found | None] = [None] * len(frames)
        for i, faces in zip(keys, self._searched([frames[i] for i in keys]), strict=True):
            found[i] = faces
        small = each(thumbnail, frames) if small is None else small
        gaps: dict[int, list[Gap]] = {}
        for before, after in pairwise(keys):
            first, last = found[before], found[after]
            assert first is not None and last is not None
            inside = range(before + 1, after)
            if not inside or not nearby.same_shot(small[before : after + 1]):
                continue
            if not first[0] and not last[0]:
                found[before + 1 : after] = [([], first[1])] * len(inside)
            elif first[1] == last[1] and (boxes := nearby.joint_boxes(first[0], last[0])) is not None:
                gaps.setdefault(first[1], []).append((inside, boxes))
        for long_side, alike in gaps.items():
            for i, found_there in self._near(frames, alike, long_side).items():
                found[i] = found_there, long_side
        rest = [i for i, faces in enumerate(found) if faces is None]
        for i, faces in zip(rest, self._searched([frames[i] for i in rest]), strict=True):
            found[i] = faces
        return self._refined(frames, [faces[0] for faces in found if faces is not None])

    def _searched(self, frames: Frames) -> list[Found]:
        """Faces of the whole frames, and the size at which each was looked at last."""
        if not frames:
            return []
        found = [(faces, self.long_side) for faces in self._look(frames, self.long_side)]
        missed = [i for i, (faces, _) in enumerate(found) if not faces]
        if missed and max(frames[0].shape[:2]) > self.long_side:
            for i, faces in zip(missed, self._look([frames[i] for i in missed], SECOND_LOOK), strict=True):
                found[i] = faces, SECOND_LOOK
        return found

    def _look(self, frames: Frames, long_side: int) -> list[list[Detection]]:
        letterbox = Letterbox.of(frames[0], long_side)
        step, result = self._batch(*letterbox.canvas), []
        for start in range(0, len(frames), step):
            canvas = np.stack(each(letterbox.whole, frames[start : start + step]))
            result += self._found(canvas, self._least(long_side), letterbox.ratio)
        return result

    def _near(self, frames: NDArray[np.uint8], gaps: list[Gap], long_side: int) -> dict[int, list[Detection]]:
        """Faces in and around the boxes of gaps, by frame; without the frames that do not show one in each.

        Windows of one size go through the network together. Growing others to that size would save calls and move boxes
        by a pixel: what the border of a window cuts off counts.
        """
        letterbox = Letterbox.of(frames[0], long_side)
        plan: dict[int, list[Window]] = {}
        wanted: dict[int, int] = {}
        for rows, boxes in gaps:
            windows = nearby.windows([box / np.tile(letterbox.ratio, 2) for box in boxes], *letterbox.canvas)
            if nearby.area(windows) <= MOST_AREA * np.prod(letterbox.canvas):
                plan |= dict.fromkeys(rows, windows)
                wanted |= dict.fromkeys(rows, len(boxes))
        parts = each(letterbox.parts, [frames[i] for i in plan], plan.values())
        alike: dict[tuple[int, ...], list[View]] = {}
        for (i, windows), pictures in zip(plan.items(), parts, strict=True):
            for window, picture in zip(windows, pictures, strict=True):
                alike.setdefault(picture.shape, []).append((i, window[:2], picture))
        found: dict[int, list[Detection]] = {i: [] for i in plan}
        for (height, width, _), views in alike.items():
            step = self._batch(width, height)
            for some in (views[start : start + step] for start in range(0, len(views), step)):
                canvas, corners = np.stack([view[2] for view in some]), np.array([view[1] for view in some], np.float32)
                faces = self._found(canvas, self._least(long_side), letterbox.ratio, corners)
                for (i, *_), more in zip(some, faces, strict=True):
                    found[i] += more
        ordered = {i: sorted(faces, key=lambda face: -face.score) for i, faces in found.items()}
        return {i: faces for i, faces in ordered.items() if len(faces) == wanted[i]}

    def _least(self, long_side: int) -> float:
        """Score from which a face counts."""
        return self.threshold + STRICTER * (1 - self.threshold) * (long_side != self.long_side)

    def _batch(self, width: int, height: int) -> int:
        """Pictures of a size that go through the network at a time."""
        return max(BATCH, PIXELS[self._kind] // (width * height))

    def _found(
        self,
        canvas: NDArray[np.uint8],
        threshold: float,
        ratio: NDArray[np.float32],
        corners: NDArray[np.float32] | None = None,
    ) -> list[list[Detection]]:
        """Faces of reduced frames, in pixels of the frames they come from.

        Args:
            canvas: uint8 [n, h, w, 3], sides divisible by 32.
            threshold: least score.
            ratio: frame pixels per pixel of the canvas (x, y).
            corners: [n, 2] where in the reduced frames these pictures begin; None = they are whole.
        """
        values = joined(self.network(self._sent(canvas)))[: len(canvas)].cpu().numpy()
        picture, scores, boxes, points = decode(values, canvas.shape[2], canvas.shape[1], threshold)
        edges = np.searchsorted(picture, range(len(canvas) + 1)).tolist()
        kept = [[start + i for i in suppress(boxes[start:stop])] for start, stop in pairwise(edges)]
        if corners is not None:
            boxes, points = boxes + np.tile(corners, 2)[picture], points + corners[picture, None]
        boxes, points = boxes * np.tile(ratio, 2), points * ratio
        return [[Detection(boxes[i], float(scores[i]), points[i]) for i in faces] for faces in kept]

    def _sent(self, pictures: NDArray[np.uint8]) -> torch.Tensor:
        """Pictures uint8 [n, h, w, 3], and blank ones, on the device: float32 [m, 3, h, w] in [0, 1]."""
        there = moved(torch.from_numpy(pictures), self._device)
        if blank := -len(there) % MULTIPLE[self._kind]:
            there = torch.cat([there, there.new_zeros(blank, *there.shape[1:])])
        return there.permute(0, 3, 1, 2).float().div_(255)

    @property
    def shared(self) -> bool:
        """See `Detector`: on a card each thread would have cuDNN plan everything anew."""
        return self._device.type == "cpu"

    @property
    def _device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def _kind(self) -> str:
        """Of device, for the numbers above: calls cost most on a GPU, pixels elsewhere."""
        return "cuda" if self._device.type == "cuda" else "cpu"

    def _refined(self, frames: NDArray[np.uint8], found: list[list[Detection]]) -> list[list[Detection]]:
        rows = [i for i, faces in enumerate(found) for _ in faces]
        if not rows:
            return found
        landmarks = np.stack([face.landmarks for faces in found for face in faces]).astype(np.float64)
        step = REFINED[self._kind]
        for _ in range(REFINEMENTS):
            matrices = crop_matrices(landmarks + 0.5)
            crops = each(lambda i, matrix: warp_crops(frames[i, None], matrix[None], REFINER_SIDE)[0], rows, matrices)
            parts = [self._corrected(np.stack(crops[i : i + step])) for i in range(0, len(crops), step)]
            back = invert(matrices)
            landmarks = np.concatenate(parts) @ back[:, :, :2].transpose(0, 2, 1) + back[:, None, :, 2] - 0.5
        better = iter(landmarks.astype(np.float32))
        return [[Detection(face.box, face.score, next(better)) for face in faces] for faces in found]

    def _corrected(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Landmarks in unit coordinates, seen on crops uint8 [n, S, S, 3]: float64 [n, 5, 2]."""
        return self.network.refiner(self._sent(crops))[: len(crops)].cpu().double().numpy()

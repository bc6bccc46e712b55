"""Face detectors behind one protocol: the built-in one, and insightface's SCRFD where the user has its packs."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

BUILTIN = "builtin"
DEFAULT_THRESHOLD = 0.6  # at 0.5 the built-in detector takes lamps and earrings for faces; SimSwap's SCRFD setting too
MARGINS = (0.0, 0.5, 1.0)  # grey borders tried around a portrait, in shares of its longer side
SCRFD_SIDE = 640  # px, the size SCRFD was trained at
CPU_PROVIDER = "CPUExecutionProvider"
GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider")


@dataclass(frozen=True, eq=False)
class Detection:
    """One face in one frame.

    Coordinates are pixel positions (the middle of column j is j): add 0.5 for `geometry`'s continuous ones.

    Attributes:
        box: float32 [4], x1 y1 x2 y2, forehead to chin.
        score: 0..1.
        landmarks: float32 [5, 2]: left eye, right eye, nose tip, left and right mouth corner, as in the image.
    """

    box: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32]

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0)))


class Detector(Protocol):
    """Finds faces and their five landmarks.

    One that is cheaper on consecutive frames has a method `detect_video` beside, which is also given a list of their
    `shots.thumbnail`s. One that several threads should use at a time has `shared`, true.
    """

    name: str
    threshold: float

    def detect(self, frames: NDArray[np.uint8]) -> list[list[Detection]]:
        """Faces of every frame.

        Args:
            frames: uint8 [N, H, W, 3] RGB.

        Returns:
            N lists, highest score first; an empty list where there is no face.
        """
        ...


class InsightFaceDetector:
    """SCRFD from an insightface pack (non-commercial weights that the user fetched).

    Args:
        path: the pack's `det_*.onnx`.
        threshold: least score, 0..1.
        device: torch device; on any but the CPU, onnxruntime's GPU is used if it has one that works.

    Raises:
        RuntimeError: insightface or onnxruntime is not installed.
        ValueError: the file is no SCRFD model, or one without landmarks.
    """

    sizes = (SCRFD_SIDE,)  # px that frames are fitted into

    def __init__(self, path: Path, threshold: float = DEFAULT_THRESHOLD, device: str = "cpu") -> None:
        try:
            import onnxruntime
            from insightface.model_zoo.scrfd import SCRFD
        except ImportError as error:
            raise RuntimeError(
                f"Reading {path.name} needs the packages insightface and onnxruntime ({error}). Install them, or "
                "choose the builtin detector, which needs neither."
            ) from error
        usable = set(onnxruntime.get_available_providers()) if device != "cpu" else set()
        providers = [*(provider for provider in GPU_PROVIDERS if provider in usable), CPU_PROVIDER]
        try:
            session = onnxruntime.InferenceSession(str(path), providers=providers)
            self._model: Any = SCRFD(model_file=str(path), session=session)
        except Exception as error:  # onnxruntime's own exception types share no base class
            raise ValueError(f"{path} is not a readable SCRFD detector ({error}). Fetch the pack again.") from error
        if not self._model.use_kps:
            raise ValueError(f"{path} finds boxes but no landmarks. Use a detector of a pack, such as buffalo_l's.")
        self.name, self.threshold = path.stem, threshold
        active = session.get_providers()[0]  # onnxruntime itself falls back where a GPU provider cannot start
        self._model.prepare(-1 if active == CPU_PROVIDER else 0, input_size=(SCRFD_SIDE,) * 2, det_thresh=threshold)
        log.info("%s runs on %s", path.name, active)

    def detect(self, frames: NDArray[np.uint8]) -> list[list[Detection]]:
        """Faces of every frame; see `Detector.detect`."""
        result = []
        for frame in frames:
            boxes, points = self._model.detect(np.ascontiguousarray(frame[..., ::-1]), input_size=(SCRFD_SIDE,) * 2)
            found = [
                Detection(np.float32(box[:4]), float(box[4]), np.float32(five))
                for box, five in zip(boxes, points, strict=True)
                if box[4] >= self.threshold
            ]
            result.append(sorted(found, key=lambda face: -face.score))
        return result


def find_packs(roots: Sequence[Path]) -> dict[str, Path]:
    """Insightface packs below some folders.

    Args:
        roots: e.g. the host's `models/insightface` and the user's `.insightface`; looked at with and without `models/`.

    Returns:
        Pack name -> its `det_*.onnx`, in order of name; the first root wins.
    """
    packs: dict[str, Path] = {}
    for root in roots:
        for folder in (root / "models", root):
            for model in sorted(folder.glob("*/det_*.onnx")):
                if os.path.isfile(model):  # no link that leads nowhere
                    packs.setdefault(model.parent.name, model)
    return dict(sorted(packs.items()))


def load_detector(name: str | Path = BUILTIN, device: str = "cpu", threshold: float = DEFAULT_THRESHOLD) -> Detector:
    """Make a detector.

    Args:
        name: "builtin", or the path of an insightface pack folder or of a `det_*.onnx`.
        device: torch device; see `InsightFaceDetector` for what onnxruntime makes of it.
        threshold: least score, 0..1.

    Raises:
        ValueError: the path holds no detector, or the threshold is no score.
        RuntimeError: insightface is needed and missing.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"The detector's threshold is {threshold:g}; choose a score from 0 to 1, such as 0.6.")
    if str(name) == BUILTIN:
        from .detect_builtin import BuiltinDetector

        return BuiltinDetector(device=device, threshold=threshold)
    path = Path(name)
    models = sorted(path.glob("det_*.onnx")) if path.is_dir() else [path]
    if not models or not models[0].is_file():
        raise ValueError(
            f"There is no face detector at {path}: expected an insightface pack folder with a det_*.onnx, or such a "
            "file. Choose builtin, or fetch the pack with `python install.py --fetch buffalo_l`."
        )
    return InsightFaceDetector(models[0], threshold, device)


def largest_face(image: NDArray[np.uint8], detector: Detector) -> Detection:
    """The largest face of a picture; tight portraits are looked at again with a border round them.

    Args:
        image: uint8 [H, W, 3] RGB.
        detector: where to ask.

    Raises:
        ValueError: no face at any of the sizes tried.
    """
    tried = []
    for share in MARGINS:
        margin = round(share * max(image.shape[:2]))
        padded = np.pad(image, ((margin, margin), (margin, margin), (0, 0)), constant_values=127) if margin else image
        tried.append(f"{padded.shape[1]} x {padded.shape[0]}")
        faces = detector.detect(padded[None])[0]
        if faces:
            best = max(faces, key=lambda face: face.area)
            return Detection(best.box - np.float32(margin), best.score, best.landmarks - np.float32(margin))
    raise ValueError(
        f"No face found by the detector {detector.name} at threshold {detector.threshold:g} in the picture of "
        f"{tried[0]} px, also not with a grey border ({' and '.join(tried[1:])} px). Use a picture with one clear, "
        "upright face, or lower the threshold."
    )

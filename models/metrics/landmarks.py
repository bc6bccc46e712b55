"""Where the 68 points of a face come from: a model file that the user has; nothing in this pack can stand in for it.

The built-in detector knows five points and the lip reader 14 numbers that are no places, so without a file there is no
LMD. Two kinds are read: MediaPipe's face landmarker (Apache-2.0, `face_landmarker.task`, package mediapipe), of whose
478 points 68 are taken, and insightface's 1k3d68.onnx (non-commercial, part of buffalo_l).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..face_track import FACE_HEIGHT

POINTS = 68
MARGIN = 1.5  # side of the picture that is looked at, in sides of the unit crop: what both models were trained with
MOUTH = slice(48, 68)
EYES = (36, 45)  # outer corners
UPPER, LOWER = slice(61, 64), slice(67, 64, -1)  # inner lips, left to right

# Vertices of MediaPipe's face mesh that lie where the 68 points are annotated, in their order.
MESH = (
    *(127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356),  # jaw
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # brows
    *(168, 197, 5, 4, 98, 97, 2, 326, 327),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # outer lips
    *(78, 81, 13, 311, 308, 402, 14, 178),  # inner lips
)


class Landmarks(Protocol):
    """A source of landmarks.

    Attributes:
        name: for reports.
    """

    name: str

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The 68 points of the face in each crop.

        Args:
            crops: uint8 [N, S, S, 3] RGB, upright, `MARGIN` times as wide as the unit crop.

        Returns:
            float64 [N, 68, 2] in shares of S; NaN rows where no face was found.
        """
        ...


class MediaPipeLandmarks:
    """MediaPipe's face landmarker.

    Args:
        path: a face_landmarker.task file.

    Raises:
        RuntimeError: mediapipe is not installed.
        ValueError: the file is no face landmarker.
    """

    def __init__(self, path: Path) -> None:
        try:
            import mediapipe
            from mediapipe.tasks.python import vision
            from mediapipe.tasks.python.core.base_options import BaseOptions
        except ImportError as error:
            raise RuntimeError(
                f"Reading {path.name} needs the package mediapipe ({error}). Install it: pip install mediapipe."
            ) from error
        options = vision.FaceLandmarkerOptions(BaseOptions(model_asset_path=str(path)), num_faces=1)
        try:
            self._model = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{path.name} is no face landmarker of MediaPipe ({error}). Load it again.") from error
        self._image: Any = lambda crop: mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(crop))
        self.name = f"68 of the mesh points of {path.name}"

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `Landmarks`."""
        result = np.full((len(crops), POINTS, 2), np.nan)
        for row, crop in zip(result, crops, strict=True):
            faces = self._model.detect(self._image(crop)).face_landmarks
            if faces:
                row[:] = [(faces[0][i].x, faces[0][i].y) for i in MESH]
        return result


class InsightFaceLandmarks:
    """insightface's 3-D landmarks, of which the picture's two dimensions are used.

    Args:
        path: a pack's 1k3d68.onnx.

    Raises:
        RuntimeError: insightface or onnxruntime is not installed.
        ValueError: the file is no such model.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
            from insightface.model_zoo.landmark import Landmark
        except ImportError as error:
            raise RuntimeError(
                f"Reading {path.name} needs the packages insightface and onnxruntime ({error}). Install them."
            ) from error
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            self._model: Any = Landmark(model_file=str(path), session=session)
        except Exception as error:  # onnxruntime's own exception types share no base class
            raise ValueError(
                f"{path.name} is not a readable landmark model ({error}). Fetch the pack again."
            ) from error
        if self._model.lmk_num != POINTS:
            raise ValueError(f"{path.name} gives {self._model.lmk_num} points; 68 are needed. Use 1k3d68.onnx.")
        self.name = path.name

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """See `Landmarks`; finds a face in every crop, as the model has no notion of none."""
        from insightface.app.common import Face

        side = crops.shape[1]
        half = FACE_HEIGHT / MARGIN / 2  # the detector's box, which the model's own crop is 1.5 times as wide as
        box = side * np.array([0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half])
        found = [self._model.get(np.ascontiguousarray(crop[..., ::-1]), Face(bbox=box)) for crop in crops]
        points = np.array(found, np.float64).reshape(len(crops), POINTS, -1)[..., :2]
        return (points + 0.5) / side


def load_landmarks(path: Path) -> Landmarks:
    """A landmark model by its file: a .task of MediaPipe, or an .onnx of insightface.

    Raises:
        ValueError: another file, or a damaged one.
        RuntimeError: the package that reads it is not installed.
    """
    if not path.is_file():
        raise ValueError(
            f"There is no landmark model {path}. Give MediaPipe's face_landmarker.task, or 1k3d68.onnx of "
            "insightface's buffalo_l (python install.py --fetch buffalo_l)."
        )
    if path.suffix.lower() == ".task":
        return MediaPipeLandmarks(path)
    if path.suffix.lower() == ".onnx":
        return InsightFaceLandmarks(path)
    raise ValueError(f"{path.name} is no landmark model: a .task of MediaPipe or an .onnx of insightface is expected.")


def in_unit_crop(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points in shares of the wide picture -> shares of the unit crop."""
    return (points - 0.5) * MARGIN + 0.5


def opening(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of the inner lips over the distance of the outer eye corners, [N, 68, 2] -> [N]; NaN stays NaN."""
    apart = np.linalg.norm(points[:, UPPER] - points[:, LOWER], axis=-1).mean(1)
    return apart / eye_distance(points)


def eye_distance(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Between the outer eye corners, [N, 68, 2] -> [N], never 0."""
    return np.maximum(np.linalg.norm(points[:, EYES[1]] - points[:, EYES[0]], axis=-1), 1e-6)

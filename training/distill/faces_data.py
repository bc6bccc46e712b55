"""Labelled face pictures for the bundled detector and recogniser: photos, talking clips (mesh labels), scenes.

Every loader returns `Picture`s: one image with the boxes and five points of its faces. Held-out pictures (the `val`
split of the clips, a quarter of the photographed people, two scenes) are marked and never trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.geometry import ARCFACE_TEMPLATE, similarity_transform, warp_crops

from ..user_tables import read_table

# Mesh vertices whose mean is each of the five points (image left eye first), and the outline of the face.
MESH_POINTS = ((33, 133, 159, 145), (362, 263, 386, 374), (1, 4), (61,), (291,))
# fmt: off
FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
             148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
# fmt: on
HELD_OUT_SCENES = ("woman_1080p30.mp4", "stage_cuts_360p2997.mp4")


@dataclass(frozen=True)
class Picture:
    """An image and its faces.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        boxes: float32 [K, 4] x1 y1 x2 y2 in pixels.
        landmarks: float32 [K, 5, 2] pixels: left eye, right eye, nose tip, mouth corners (left and right in the image).
        identity: name of the (single) person, or "" if unknown.
        source: photo | ai_generated | painting | talking | generated | scene.
        held_out: kept for evaluation.
        ignore: float32 [J, 4] regions that may or may not be faces.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    identity: str
    source: str
    held_out: bool
    ignore: NDArray[np.float32]


NOTHING = np.zeros((0, 4), np.float32)


def _rows(folder: Path) -> list[dict[str, str]]:
    return read_table(folder / "manifest.csv")


def read_photos(data: Path) -> list[Picture]:
    """Labelled stills of `faces/`. Every fourth person with several pictures is held out.

    Args:
        data: the data folder (holds faces/, talking/, ...).

    Returns:
        One picture a file; only the largest face is labelled (pictures with more faces are left out).
    """
    import cv2

    rows = [row for row in _rows(data / "faces") if row["faces"] == "1"]
    counts = Counter(row["identity"] for row in rows if row["kind"] == "photo")
    several = sorted(name for name, count in counts.items() if count > 1)
    held_out = set(several[1::4])
    pictures = []
    for row in rows:
        image = np.asarray(cv2.imread(str(data / "faces" / row["file"])))[:, :, ::-1]
        box = np.array(row["face_box"].split(), np.float32).reshape(1, 4)
        points = np.array(row["kps5"].split(), np.float32).reshape(1, 5, 2)
        pictures.append(
            Picture(
                np.ascontiguousarray(image),
                box,
                points,
                row["identity"],
                row["kind"],
                row["identity"] in held_out,
                NOTHING,
            )
        )
    return pictures


def read_frames(path: Path, every: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Every `every`-th frame of a clip as (number, uint8 [H, W, 3] RGB)."""
    import av

    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number % every == 0:
                yield number, frame.to_ndarray(format="rgb24")


def mesh_labels(points: NDArray[np.int16], index: list[int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Box (forehead to chin) and five points from stored mesh vertices.

    Args:
        points: [V, 2] pixels x 64.
        index: vertex number of each row.

    Returns:
        Box [4] and landmarks [5, 2] in pixels.
    """
    where = {vertex: row for row, vertex in enumerate(index)}
    pixels = points.astype(np.float32) / 64
    five = np.stack([pixels[[where[v] for v in group]].mean(0) for group in MESH_POINTS])
    oval = pixels[[where[v] for v in FACE_OVAL]]
    return np.concatenate([oval.min(0), oval.max(0)]), five


def read_clips(data: Path, folder: str, every: int) -> list[Picture]:
    """Every `every`-th frame of `talking` or `talking_generated`, labelled by the stored face mesh."""
    pictures = []
    with np.load(data / "landmarks.npz") as stored:
        index = stored["index"].tolist()
        for row in _rows(data / folder):
            name = row["file"].removesuffix(".mp4")
            mesh = stored[f"{name}/points"]
            for number, image in read_frames(data / folder / row["file"], every):
                if number >= len(mesh) or mesh[number, 0, 0] == -32768:
                    continue
                box, five = mesh_labels(mesh[number], index)
                source = "talking" if folder == "talking" else "generated"
                held_out = row["split"] == "val"
                pictures.append(Picture(image, box[None], five[None], row["identity"], source, held_out, NOTHING))
    return pictures


def read_scenes(data: Path, seconds: float) -> list[Picture]:
    """One frame every `seconds` of the whole scenes, labelled by MTCNN; doubtful finds become `ignore` regions.

    Raises:
        RuntimeError: facenet-pytorch, whose wheel carries MTCNN, is not installed.
    """
    try:
        from facenet_pytorch import MTCNN
    except ImportError as error:
        raise RuntimeError("labels for scenes/ need MTCNN: pip install --no-deps facenet-pytorch") from error
    import cv2
    from PIL import Image

    teacher = MTCNN(keep_all=True, min_face_size=20, thresholds=[0.5, 0.6, 0.6], device="cpu")
    pictures = []
    for row in _rows(data / "scenes"):
        every = max(1, round(Fraction(row["fps"]) * Fraction(seconds)))
        for _, frame in read_frames(data / "scenes" / row["file"], every):
            scale = min(1.0, 960 / max(frame.shape[:2]))
            smaller = cv2.resize(frame, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else frame
            image = np.asarray(smaller, np.uint8)
            boxes, scores, points = teacher.detect(Image.fromarray(image), landmarks=True)
            if boxes is None:
                boxes, scores, points = np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2))
            sure = np.asarray(scores, np.float32) > 0.97
            boxes, points = np.asarray(boxes, np.float32), np.asarray(points, np.float32)
            held_out = row["file"] in HELD_OUT_SCENES
            pictures.append(Picture(image, boxes[sure], points[sure], "", "scene", held_out, boxes[~sure]))
    return pictures


def aligned(picture: Picture, size: int, margin: int, face: int = 0) -> NDArray[np.uint8]:
    """ArcFace-aligned crop with a border.

    Args:
        picture: labelled image.
        size: side of the crop in pixels, border included.
        margin: border, in pixels of the 112-pixel template; the crop shows 112 + 2 * margin template pixels.
        face: which face.

    Returns:
        uint8 [size, size, 3] RGB.
    """
    template = (ARCFACE_TEMPLATE + margin) / (112 + 2 * margin)
    matrix = similarity_transform(picture.landmarks[face : face + 1], template)
    return warp_crops(picture.image[None], matrix, size)[0]

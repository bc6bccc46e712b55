"""Is a track worth training on: size, sharpness, pose, speech, and whether it shows one person all the time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models import geometry
from models.faces import Detection, Detector, load_detector
from models.identity import load_recogniser

from ..clips import MARGIN, Clip, ClipSet
from ..sources import FRAMES_PER_CLIP, clip_vectors
from .items import Item, Settings
from .tracking import strip_of
from .work import Work

LEAST_SIDE = 2 / 3  # of the trained crop's side: what is smaller in the video is mostly made up by enlarging
LEAST_SHARPNESS = 0.006  # a still blurred by two pixels; recorded clips measure 0.06 to 0.26
MOST_TURN = 0.6  # a head turned by a little more than 45 degrees
MOST_SILENCE = 0.8  # some silence teaches closed lips, more teaches nothing
LEAST_FACES = 0.75  # of the pictures looked at, in which the detector finds a face again: a neck it mistook once fails
NEAR = 0.35  # eye distances by which its landmarks may lie off
SAME_FRAME = 0.4  # cosine of a frame to its track's mean; 99 % of frames of other people lie below
SAME_SHARE = 0.75  # of the frames looked at must be the same person


def quality(item: Item, work: Work, settings: Settings) -> dict:
    """Measure every track and drop those that teach little or the wrong thing."""
    landmarks, silence, detector = work.arrays("tracks.npz"), work.result("features")["silence"], load_detector()
    result: dict[str, dict] = {"tracks": {}, "drops": {}}
    for track in work.result("track")["tracks"]:
        name, strip = track["name"], strip_of(work, track["name"])
        pictures = strip.read(evenly(len(strip)))
        measured = {
            "side": track["side"],
            "sharpness": round(float(np.median([sharpness(picture) for picture in pictures])), 4),
            "turn": round(float(np.median(turn(landmarks[f"{name}_landmarks"]))), 3),
            "silence": silence[name],
            "faces": round(face_share(pictures, detector), 3),
        }
        result["tracks"][name] = measured
        if reason := objection(measured, settings.px):
            result["drops"][name] = reason
    return result


def objection(measured: dict[str, float], px: int) -> str:
    """Why a track with these numbers is left out; empty = it is good."""
    if measured["side"] < LEAST_SIDE * px:
        return f"small: the crop covers {measured['side']:.0f} px of the video, {LEAST_SIDE * px:.0f} are needed"
    if measured["faces"] < LEAST_FACES:
        return f"no face: only {100 * measured['faces']:.0f} % of its pictures show one when they are looked at again"
    if measured["sharpness"] < LEAST_SHARPNESS:
        return f"blurred: sharpness {measured['sharpness']:.4f}, {LEAST_SHARPNESS} is needed"
    if measured["turn"] > MOST_TURN:
        return f"turned away: {measured['turn']:.2f}, up to {MOST_TURN} is usable"
    if measured["silence"] > MOST_SILENCE:
        return f"silent: no speech in {100 * measured['silence']:.0f} %, up to {100 * MOST_SILENCE:.0f} % is usable"
    return ""


def evenly(frames: int) -> NDArray[np.int64]:
    """Rows of the frames that stand for a track, as `clip_vectors` takes them."""
    return np.linspace(0, frames - 1, FRAMES_PER_CLIP).astype(int)


def face_share(pictures: NDArray[np.uint8], detector: Detector) -> float:
    """Share of stored crops uint8 [N, S, S, 3] in which a face is found where the crop puts it."""
    side = pictures.shape[1]
    wanted = (geometry.CROP_TEMPLATE + MARGIN) / (1 + 2 * MARGIN) * side - 0.5
    eyes = np.linalg.norm(wanted[1] - wanted[0])

    def off(face: Detection) -> float:
        return float(np.linalg.norm(face.landmarks - wanted, axis=1).mean() / eyes)

    return float(np.mean([any(off(face) < NEAR for face in faces) for faces in detector.detect(pictures)]))


def sharpness(picture: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian over the variance of the grey picture uint8 [S, S, 3]."""
    grey = picture.astype(np.float64) @ (0.299, 0.587, 0.114)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    return float(laplacian.var() / max(grey.var(), 25.0))


def turn(landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """How far heads are turned to a side: the nose's distance from between the eyes, in eye distances, [N].

    Args:
        landmarks: [N, 5, 2] pixels, order of `models.geometry.ARCFACE_TEMPLATE`.
    """
    eyes = (landmarks[:, 1] - landmarks[:, 0]).astype(np.float64)
    nose = landmarks[:, 2] - landmarks[:, :2].mean(1)
    return np.abs((nose * eyes).sum(1)) / np.maximum((eyes**2).sum(1), 1e-9)


def identity(item: Item, work: Work, settings: Settings) -> dict:
    """Identity vectors of 12 frames of every track; a track that changes from one person to another is dropped."""
    recogniser = load_recogniser()
    result: dict = {"recogniser": recogniser.id, "drops": {}}
    arrays: dict[str, np.ndarray] = {}
    for track in work.result("track")["tracks"]:
        name, strip = track["name"], strip_of(work, track["name"])
        few = ClipSet([], strip.read(evenly(len(strip))), np.empty(0, np.float32), None)
        vectors = clip_vectors(few, Clip(name, "", "", 0, FRAMES_PER_CLIP, False), recogniser).numpy()
        arrays[name] = vectors
        share = float((vectors @ mean_vector(vectors) >= SAME_FRAME).mean())
        if share < SAME_SHARE:
            result["drops"][name] = f"more than one person: {100 * share:.0f} % of the frames are like the rest"
    work.save_arrays("identity.npz", **arrays)
    return result


def mean_vector(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of unit vectors [N, D] at unit length, [D]."""
    mean = vectors.mean(0)
    return mean / max(float(np.linalg.norm(mean)), 1e-9)

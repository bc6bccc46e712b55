"""The original programs' ways with whole frames: numbers of the specification (2.1, 2.2), second implementations."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from models import geometry, upstream
from models.audio import load_mel
from models.colours import Colours
from models.faces import Detection
from models.frames import FrameArray
from models.geometry import CROP_TEMPLATE
from models.layouts import SIMSWAP_FFHQ, SIMSWAP_FIVE, SIMSWAP_RECOGNISER, recognise, shapes_of
from models.regions import FACE_BOX
from models.simswap_identity import SimSwapRecogniser, ffhq_matrices, pose_matrices
from models.systems import SYSTEMS, Cascade
from models.video import VideoFile
from tests.models.public_files import random_network
from tests.models.swapping import DiscDetector, clip, embedding, generator, speech

SOURCE = embedding(SIMSWAP_RECOGNISER)
MEL = torch.randn(80, 801, generator=torch.Generator().manual_seed(0))


def loaded(name: str):
    """A system with narrow random weights as published, before inference form: float32, nothing folded."""
    state = random_network(name, width=1 / 8).state_dict()
    layout = recognise(shapes_of(state))
    system = SYSTEMS[layout.network](name, state, layout.metadata)
    system.network.eval().requires_grad_(False)
    return system


@pytest.fixture(scope="module")
def wav2lip():
    return loaded("wav2lip")


@pytest.fixture(scope="module")
def simswap():
    return loaded("simswap_224")


# --- windows ----------------------------------------------------------------------------------------------------------


def published_windows(mel: torch.Tensor, fps: float) -> torch.Tensor:
    """The published loop, in its own floating-point form."""
    windows, i = [], 0
    while True:
        start = int(i * (80.0 / fps))
        if start + 16 > mel.shape[1]:
            windows.append(mel[:, mel.shape[1] - 16 :])
            return torch.stack(windows)[:, None]
        windows.append(mel[:, start : start + 16])
        i += 1


@pytest.mark.parametrize("columns", [16, 17, 19, 20, 81, 400, 801])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(24), Fraction(30)])
def test_windows_equal_the_published_loop(columns, fps):
    found = upstream.wav2lip_windows(MEL[:, :columns], fps)
    assert torch.equal(found, published_windows(MEL[:, :columns], float(fps)))


def test_number_of_windows():
    """Spec 1.2: 10 s give 247 of 250, 1 s gives 22 of 25."""
    assert len(upstream.wav2lip_windows(MEL, Fraction(25))) == 247
    assert len(upstream.wav2lip_windows(MEL[:, :81], Fraction(25))) == 22
    short = upstream.wav2lip_windows(MEL[:, :5], Fraction(25))  # padded with silence, where the original fails
    assert torch.equal(short[-1, 0, :, 5:], torch.full((80, 11), -4.0))


# --- boxes ------------------------------------------------------------------------------------------------------------


def published_smoothing(boxes: np.ndarray, frames: int = 5) -> np.ndarray:
    for i in range(len(boxes)):
        window = boxes[len(boxes) - frames :] if i + frames > len(boxes) else boxes[i : i + frames]
        boxes[i] = np.mean(window, axis=0)
    return boxes


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 30])
def test_boxes_are_padded_kept_inside_and_smoothed_forwards(count):
    random = np.random.default_rng(count)
    raw = np.sort(random.uniform(-20, 220, (count, 2, 2)), 1).reshape(count, 4)
    found = upstream.wav2lip_boxes(raw, 200, 180)
    whole = np.maximum(raw, 0).astype(int)
    padded = np.minimum(whole + np.array([0, 0, 0, 10]), (10**6, 10**6, 200, 180))
    assert found.dtype == np.int64
    assert np.array_equal(found, published_smoothing(padded.copy()))
    if count > 5:  # spec 2.1: all but the last rows are means of what was detected
        means = np.stack([padded[i : i + 5].mean(0).astype(int) for i in range(count - 4)])
        assert np.array_equal(found[: count - 4], means)


def test_pads_and_smoothing_can_be_switched_off():
    raw = np.array([[10.9, 20.2, 50.7, 60.1], [20.0, 20.0, 60.0, 70.0]])
    assert np.array_equal(upstream.wav2lip_boxes(raw, 100, 100, (0, 0, 0, 0), 1), raw.astype(int))
    assert upstream.wav2lip_boxes(raw, 100, 100, (5, 6, 7, 8), 1)[0].tolist() == [3, 15, 58, 66]


def test_box_from_landmarks_is_the_face_box_of_our_crop():
    points = (CROP_TEMPLATE * 200 + (40, 30) - 0.5).astype(np.float32)
    box = upstream.landmark_box(Detection(np.zeros(4, np.float32), 1.0, points))
    np.testing.assert_allclose(box, np.array(FACE_BOX) * 200 + (40, 30, 40, 30) - 0.5, atol=1e-3)


def test_boxes_of_detectors():
    detector = DiscDetector()
    frames = clip(3)
    found = upstream.detected_boxes(frames, detector)
    assert np.allclose(found, [faces[0].box for faces in detector.detect(frames)])
    detector.name = "builtin"
    boxed = upstream.detected_boxes(frames, detector)
    assert np.allclose(boxed[0], upstream.landmark_box(detector.detect(frames[:1])[0][0]))
    with pytest.raises(ValueError, match=r"No face in 1 of 3 frames \(the first is 1\)"):
        upstream.detected_boxes(clip(3, absent=(1,)), DiscDetector())


# --- Wav2Lip ----------------------------------------------------------------------------------------------------------


def test_wav2lip_frames_equal_the_published_steps(wav2lip):
    frames, windows = clip(3), upstream.wav2lip_windows(MEL[:, :30], Fraction(25))[:5]
    boxes = upstream.wav2lip_boxes(upstream.detected_boxes(frames, DiscDetector()), 160, 120)
    made = upstream.wav2lip_frames(frames, windows, boxes, wav2lip, batch=2)
    assert made.shape == (5, 120, 160, 3)
    for i in range(5):  # frames start over when there are fewer than windows
        bgr = frames[i % 3][..., ::-1].copy()
        x1, y1, x2, y2 = boxes[i % 3]
        face = cv2.resize(bgr[y1:y2, x1:x2], (96, 96))
        masked = face.copy()
        masked[48:] = 0
        pair = torch.from_numpy(np.concatenate([masked, face], 2) / 255.0).float().permute(2, 0, 1)[None]
        with torch.no_grad():
            out = wav2lip.network(windows[i : i + 1], pair)[0].permute(1, 2, 0).numpy() * 255
        bgr[y1:y2, x1:x2] = cv2.resize(out.astype(np.uint8), (x2 - x1, y2 - y1))
        difference = np.abs(made[i].astype(int) - bgr[..., ::-1])
        assert difference.max() <= 2  # rounding of another batch size
        assert (difference > 0).mean() < 0.01
        outside = np.ones((120, 160), bool)
        outside[y1:y2, x1:x2] = False
        assert np.array_equal(made[i][outside], frames[i % 3][outside])


def test_boxes_without_area_are_refused(wav2lip):
    with pytest.raises(ValueError, match="Each of the 2 frames needs a box with an area; got 1 boxes"):
        upstream.wav2lip_frames(clip(2), torch.zeros(2, 1, 80, 16), np.array([[0, 0, 9, 9]]), wav2lip)
    with pytest.raises(ValueError, match="an area"):
        upstream.wav2lip_frames(clip(1), torch.zeros(1, 1, 80, 16), np.array([[9, 0, 9, 9]]), wav2lip)


# --- SimSwap ----------------------------------------------------------------------------------------------------------


def published_paste(frame: np.ndarray, made: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Spec 2.2 step by step."""
    back = cv2.invertAffineTransform(matrix)
    size = (frame.shape[1], frame.shape[0])
    mask = cv2.warpAffine(np.full(made.shape[:2], 255, float), back, size)
    mask[mask > 20] = 255
    mask = cv2.GaussianBlur(cv2.erode(mask, np.ones((40, 40), np.uint8), iterations=1), (41, 41), 0)[..., None] / 255
    placed = cv2.warpAffine(made, back, size).astype(float) * 255
    return (mask * placed + (1 - mask) * frame).astype(np.uint8)


def big_clip(frames: int = 2) -> np.ndarray:
    return np.stack([cv2.resize(frame, (640, 480)) for frame in clip(frames)])


def test_simswap_frames_equal_the_published_steps(simswap):
    frames, detector = big_clip(), BigDisc()
    made = upstream.simswap_frames(frames, detector, SOURCE, simswap)
    for frame, found in zip(frames, made, strict=True):
        matrix = pose_matrices(detector.detect(frame[None])[0][0].landmarks[None])[0]
        crop = cv2.warpAffine(frame, matrix, (224, 224), borderValue=0.0)
        pixels = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            swapped = simswap.network(pixels, torch.from_numpy(SOURCE.vector)[None])[0].permute(1, 2, 0).numpy()
        expected = published_paste(frame, swapped, matrix)
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
        assert (found != frame).any()


class BigDisc(DiscDetector):
    """Finds the disc in frames four times as large."""

    def _one(self, frame: np.ndarray) -> list[Detection]:
        small = super()._one(cv2.resize(frame, (160, 120)))
        return [Detection(4 * face.box, face.score, 4 * face.landmarks) for face in small]


@pytest.mark.parametrize(
    ("crops", "io_norm", "side"), [(SIMSWAP_FIVE, False, 224), (SIMSWAP_FIVE, True, 224), (SIMSWAP_FFHQ, False, 512)]
)
def test_source_identity_equals_the_published_steps(simswap, monkeypatch, crops, io_norm, side):
    """Normalise the generator's own crop, then resample it to 112 px, embed, normalise."""
    monkeypatch.setattr(simswap.network, "io_norm", io_norm)
    system = replace(simswap, side=96, metadata=simswap.metadata | {"geometry": crops})
    picture, network = big_clip(1)[0], random_network("simswap_arcface", width=1 / 16, dim=32)
    recogniser = SimSwapRecogniser(network, 32)
    found = upstream.simswap_identity(picture, BigDisc(), recogniser, system)
    points = BigDisc().detect(picture[None])[0][0].landmarks[None]
    matrix = (ffhq_matrices if crops == SIMSWAP_FFHQ else pose_matrices)(points)[0]
    crop = torch.from_numpy(cv2.warpAffine(picture, matrix, (side, side), borderValue=0.0)).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    crop = (crop - mean[:, None, None]) / std[:, None, None]
    small = torch.nn.functional.interpolate(crop, (112, 112), mode="bicubic" if io_norm else "nearest")
    with torch.no_grad():
        expected = torch.nn.functional.normalize(network(small))[0]
    np.testing.assert_allclose(found.vector, expected, atol=1e-5)
    usual = recogniser.embed_frames(picture[None], points)[0]  # what ArcFace Embed and infer take
    assert np.array_equal(found.vector, usual) == (crops == SIMSWAP_FIVE and not io_norm)


def test_source_identity_of_weights_trained_here_is_their_recognisers_own(simswap):
    picture = big_clip(1)[0]
    recogniser = SimSwapRecogniser(random_network("simswap_arcface", width=1 / 16, dim=32), 32, "ours")
    system = replace(simswap, recogniser="ours", metadata=simswap.metadata | {"geometry": geometry.GEOMETRY_ID})
    found = upstream.simswap_identity(picture, BigDisc(), recogniser, system)
    points = BigDisc().detect(picture[None])[0][0].landmarks[None]
    assert np.array_equal(found.vector, recogniser.embed_frames(picture[None], points)[0])


def test_source_without_a_face_or_of_another_recogniser_is_refused(simswap):
    recogniser = SimSwapRecogniser(random_network("simswap_arcface", width=1 / 16, dim=32), 32, "another")
    with pytest.raises(ValueError, match="No face in the source picture"):
        upstream.simswap_identity(clip(1, absent=(0,))[0], DiscDetector(), recogniser, simswap)
    with pytest.raises(ValueError, match="SimSwap understands its own"):
        upstream.simswap_identity(clip(1)[0], DiscDetector(), recogniser, simswap)


def test_frames_without_a_face_pass(simswap):
    frames = clip(3, absent=(1,))
    seen: list[tuple[int, int]] = []
    made = upstream.simswap_frames(frames, DiscDetector(), SOURCE, simswap, progress=lambda *done: seen.append(done))
    assert np.array_equal(made[1], frames[1])
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(ValueError, match="SimSwap understands its own"):
        upstream.simswap_frames(frames, DiscDetector(), embedding("r1"), simswap)


def test_published_border_eats_small_faces_and_the_scaled_one_does_not():
    """Spec 2.2: a crop below 40 px vanishes; scaled, what is covered grows with the face."""
    frame, made = np.zeros((400, 400, 3), np.uint8), np.ones((224, 224, 3), np.float32)

    def covered(side: float, scaled: bool) -> float:
        matrix = np.array([[224 / side, 0, -224 * 100 / side], [0, 224 / side, -224 * 100 / side]])
        return upstream.paste_swapped(frame, made, matrix, scaled)[..., 0].sum() / 255 / side**2

    assert covered(36, scaled=False) == 0
    assert covered(60, scaled=False) < 0.15
    assert covered(224, scaled=False) == covered(224, scaled=True)
    assert covered(36, scaled=True) == pytest.approx(covered(224, scaled=True), abs=0.06)


def test_alignment_follows_the_weights(simswap):
    points = (CROP_TEMPLATE * 200 + 30)[None].astype(np.float32)
    small = replace(simswap, side=96)
    assert np.array_equal(upstream.simswap_matrices(small, points), pose_matrices(points, 96))
    deep = replace(simswap, side=512, metadata=simswap.metadata | {"geometry": SIMSWAP_FFHQ})
    assert np.array_equal(upstream.simswap_matrices(deep, points), ffhq_matrices(points))
    own = replace(simswap, side=96, metadata=simswap.metadata | {"geometry": geometry.GEOMETRY_ID})
    matrix = upstream.simswap_matrices(own, points)[0]
    placed = points[0] @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(placed, CROP_TEMPLATE * 96 - 0.5, atol=1e-3)


# --- file to file -----------------------------------------------------------------------------------------------------


def test_the_whole_job_file_to_file(wav2lip, simswap, tmp_path):
    """Steps one after the other; the video ends with the last whole window."""
    sound = speech(1.0)
    frames = clip(25)
    windows = upstream.wav2lip_windows(load_mel(*sound).values.T, Fraction(25))
    assert len(windows) == 22
    boxes = upstream.wav2lip_boxes(upstream.detected_boxes(frames[:22], DiscDetector()), 160, 120)
    talking = upstream.wav2lip_frames(frames[:22], windows, boxes, wav2lip)
    small = replace(simswap, side=64)
    both = Cascade(torch.nn.ModuleList([wav2lip.network, small.network]), small.recogniser, 0, {}, wav2lip, small)
    for system, source, expected in (
        (wav2lip, None, talking),
        (both, SOURCE, upstream.simswap_frames(talking, DiscDetector(), SOURCE, small)),
        (small, SOURCE, upstream.simswap_frames(frames, DiscDetector(), SOURCE, small)),
    ):
        out = tmp_path / "made.mp4"
        video = FrameArray(frames, Fraction(25))
        video.info = replace(video.info, aspect=Fraction(4, 3), tags=Colours(1, 12, 13))
        count = upstream.talking_swap_upstream(video, sound, source, out, system=system, detector=DiscDetector())
        assert count == len(expected)
        with VideoFile(out) as video:
            assert video.info.frames == count
            assert (video.info.aspect, video.info.tags) == (Fraction(4, 3), Colours(1, 12, 13))
            difference = np.abs(video.read(0, count).astype(int) - expected)
        assert difference.mean() < 6  # what the coder loses
    silent = {"system": wav2lip, "detector": DiscDetector()}
    with pytest.raises(ValueError, match="needs speech"):
        upstream.talking_swap_upstream(FrameArray(frames, Fraction(25)), None, None, tmp_path / "x.mp4", **silent)
    with pytest.raises(ValueError, match="no other program's way"):
        upstream.split(generator())

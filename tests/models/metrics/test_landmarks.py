"""Landmark distances, jitter and silence on points that are known; the model files that give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.frames import FrameArray
from models.geometry import CROP_TEMPLATE
from models.metrics import metric
from models.metrics.jitter import jitter
from models.metrics.landmarks import MARGIN, MESH, in_unit_crop, load_landmarks, opening
from models.metrics.lmd import distances
from models.metrics.silence import silent_spans, spread
from models.metrics.subject import Subject, Tools, widened
from tests.models.metrics.stage import FPS, MarkDetector, murmur, scene, video


class BrightLandmarks:
    """68 points in a column below each other; the 20 of the mouth are as far apart as the mouth is bright."""

    name = "bright"

    def __call__(self, crops: np.ndarray) -> np.ndarray:
        points = np.zeros((len(crops), 68, 2))
        points[:, :, 1] = np.linspace(0.2, 0.8, 68)
        points[:, 36, 0], points[:, 45, 0] = 0.3, 0.7
        side = crops.shape[1]
        centre = slice(int(0.6 * side), int(0.64 * side))
        bright = crops[:, centre, int(0.48 * side) : int(0.52 * side)].mean((1, 2, 3)) / 255
        points[:, 65:68, 1] = points[:, 61:64, 1][:, ::-1] + 0.2 * bright[:, None]
        return points


def subject(made: np.ndarray, given: np.ndarray | None = None, **options) -> Subject:
    tools = Tools(MarkDetector(), landmarks=options.pop("landmarks", None))
    reference = None if given is None else FrameArray(given, FPS)
    return Subject(FrameArray(made, FPS), tools, reference=reference, **options)


def test_a_video_is_at_distance_zero_from_itself():
    frames = scene(np.linspace(0, 1, 12))
    result = metric("lmd").measure(subject(frames, frames, landmarks=BrightLandmarks()))
    assert set(result.scores.values()) == {0.0}
    assert result.notes == ("12 of 12 frames have the face in both",)


def test_another_mouth_counts_and_missing_frames_do_not():
    given, made = scene(np.full(12, 0.2)), scene(np.full(12, 0.8))
    made[3:8] = made[3:8, :1]
    result = metric("lmd").measure(subject(made, given, landmarks=BrightLandmarks()))
    assert result.scores["lmd_m"] > result.scores["lmd"] > 0
    assert result.notes[0].startswith("7 of 12")


def test_distances_by_hand():
    given = np.random.default_rng(0).uniform(0, 256, (3, 68, 2))
    moved = given + np.array([5, -3])
    assert all(value == pytest.approx(np.zeros(3), abs=1e-9) for value in distances(moved, given).values())
    raised = given.copy()
    raised[:, 48:, 1] += 34  # mouth down by 34: its own shape is the same, the whole's centre follows by 10
    found = distances(raised, given)
    assert found["lmd_m"] == pytest.approx(np.zeros(3), abs=1e-9)
    assert found["lmd"] == pytest.approx(np.full(3, (48 * 10 + 20 * 24) / 68))
    eyes = np.linalg.norm(given[:, 45] - given[:, 36], axis=1)
    assert found["lmd_eyes"] == pytest.approx(found["lmd"] / eyes)
    given[1] = np.nan
    assert np.isnan(distances(raised, given)["lmd"]).tolist() == [False, True, False]


def test_the_wide_crop_and_back():
    """Points found in the wide crop lie in the unit crop where the crop's matrix puts them."""
    matrices = np.array([[[0.01, 0, -0.3], [0, 0.01, -0.2]]])
    pixel = np.array([70.0, 60.0])
    wide = widened(matrices, MARGIN)[0]
    unit = matrices[0, :, :2] @ pixel + matrices[0, :, 2]
    assert in_unit_crop(wide[:, :2] @ pixel + wide[:, 2]) == pytest.approx(unit)


def test_opening_is_a_share_of_the_eye_distance():
    points = np.zeros((1, 68, 2))
    points[:, 45, 0] = 100
    points[:, 65:68, 1] = 30
    assert opening(points) == pytest.approx(0.3)


def test_jitter_of_steady_motion_is_zero():
    steady = np.arange(20.0)[:, None, None] * np.ones((1, 4, 2))
    assert jitter(steady) == pytest.approx(0)
    trembling = steady.copy()
    trembling[::2, :, 0] += 1
    assert jitter(trembling) == pytest.approx(2)
    trembling[5] = np.nan
    assert jitter(trembling) == pytest.approx(2)
    assert np.isnan(jitter(np.full((9, 2, 2), np.nan)))


class Shaking(MarkDetector):
    """Mouth corners that jump by a pixel to and fro in frames whose mouth is bright."""

    name = "shaking"

    def detect(self, frames):
        result = super().detect(frames)
        for i, faces in enumerate(result):
            for face in faces:
                x, y = face.box[:2].astype(int)
                if frames[i, y + 80, x + 60, 0] > 150:
                    face.landmarks[3:, 0] += 1 if i % 2 else -1
        return result


def test_jitter_is_what_the_result_adds():
    """Without a landmark model the detector's mouth corners tell."""
    calm, shaken = scene(np.zeros(30)), scene(np.ones(30))
    pair = Subject(FrameArray(shaken, FPS), Tools(Shaking()), reference=FrameArray(calm, FPS))
    result = metric("jitter").measure(pair)
    side = 120 * np.linalg.norm(CROP_TEMPLATE[1] - CROP_TEMPLATE[0]) / 0.3
    assert result.scores["jitter_made"] - result.scores["jitter_given"] == pytest.approx(result.scores["jitter"])
    assert result.scores["jitter"] == pytest.approx(4 * 256 / side, rel=0.15)
    assert "mouth corners of the detector shaking" in result.method


def spoken_and_silent(frames: int = 100) -> tuple[np.ndarray, int]:
    levels = np.ones(frames)
    levels[40:80] = 0
    return murmur(levels)


def test_silence_is_found():
    ((start, stop),) = silent_spans(spoken_and_silent(), 100, FPS)
    assert 43 <= start <= 47  # speech is drawn out by 125 ms on both sides, and a frame hears 200 ms
    assert 70 <= stop <= 77
    assert silent_spans(murmur(np.zeros(60)), 60, FPS) == [(0, 60)]


def test_spread_is_within_each_stretch():
    values = np.array([0.0, 2, 0, 2, 50, 51, 53, 51, 53])
    assert spread(values, [(0, 4), (5, 9)]) == pytest.approx(1)
    assert np.isnan(spread(values, []))


def test_a_mouth_that_moves_in_silence_is_told_from_one_that_rests():
    levels = np.random.default_rng(0).uniform(0, 1, 100)
    resting = levels.copy()
    resting[40:80] = 0.2
    audio, options = spoken_and_silent(), {"landmarks": BrightLandmarks()}
    moving = metric("silence").measure(subject(scene(levels), scene(resting), audio=audio, **options)).scores
    still = metric("silence").measure(subject(scene(resting), audio=audio, **options)).scores
    assert moving["silence_change"] > 3 * moving["silence_change_given"]
    assert moving["silence_opening"] > 3 * still["silence_opening"]
    assert moving["silence_opening_given"] == pytest.approx(still["silence_opening"])
    assert moving["silence_change_given"] == pytest.approx(still["silence_change"])
    assert np.isnan(still["silence_change_given"])


def test_without_silence_there_is_no_number():
    babble = murmur(np.tile([1, 0.02], 15))
    result = metric("silence").measure(Subject(video(np.ones(30)), Tools(MarkDetector()), audio=babble))
    assert np.isnan(result.scores["silence_change"])
    assert "0 of 30 frames silent" in result.notes[0]


def test_mesh_points_are_68_different_ones():
    assert len(set(MESH)) == 68
    assert max(MESH) < 478


def fake_1k3d68(path: Path) -> None:
    """An .onnx of the form of 1k3d68: 1103 points in 3-D, the last 68 of which count, all constant."""
    onnx = pytest.importorskip("onnx")
    values = np.zeros((1103, 3), np.float32)
    values[-68:, 0] = np.linspace(-0.5, 0.5, 68)
    values[-68:, 1] = 0.25
    values[-68:, 2] = np.sin(np.arange(68))
    helper, tensor = onnx.helper, onnx.numpy_helper.from_array(values.reshape(1, -1), "points")
    nodes = [
        helper.make_node("ReduceMean", ["data"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "mean"], ["zero"], name="nothing"),
        helper.make_node("Add", ["points", "zero"], ["fc1"]),
    ]
    inputs = [helper.make_tensor_value_info("data", 1, [None, 3, 192, 192])]
    outputs = [helper.make_tensor_value_info("fc1", 1, [1, 3309])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)


def test_insightface_points_come_back_to_the_crop(tmp_path: Path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("insightface")
    fake_1k3d68(tmp_path / "1k3d68.onnx")
    model = load_landmarks(tmp_path / "1k3d68.onnx")
    points = model(np.zeros((2, 384, 384, 3), np.uint8))
    assert points.shape == (2, 68, 2)
    # -1..1 spans the model's own crop, 0.95 of the unit crop's side times 1.5, round the middle.
    assert points[1, [0, 67], 0] == pytest.approx([0.5 - 0.95 / 4, 0.5 + 0.95 / 4], abs=0.004)
    assert points[1, :, 1] == pytest.approx(np.full(68, 0.5 + 0.95 / 8), abs=0.004)


def test_other_files_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no landmark model.*face_landmarker\.task.*1k3d68"):
        load_landmarks(tmp_path / "none.task")
    (tmp_path / "x.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not a readable landmark model"):
        load_landmarks(tmp_path / "x.onnx")
    (tmp_path / "x.bin").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="a .task of MediaPipe or an .onnx"):
        load_landmarks(tmp_path / "x.bin")

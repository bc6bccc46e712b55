from __future__ import annotations

import numpy as np
import pytest

from models import faces


class Scripted:
    """Finds what the test says, and remembers the sizes it was shown."""

    name, threshold = "scripted", 0.5

    def __init__(self, answer):
        self.answer, self.sizes = answer, []

    def detect(self, frames):
        self.sizes.append(frames.shape[1:3])
        return [self.answer(frame) for frame in frames]


def face(x: float, y: float, side: float, score: float = 0.9) -> faces.Detection:
    points = np.float32([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]]) * side + np.float32([x, y])
    return faces.Detection(np.float32([x, y, x + side, y + side]), score, points)


@pytest.fixture
def scrfd(tmp_path):
    """A file with SCRFD's outputs (scores, boxes, points of three strides, two anchors) that always sees one face."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("insightface")
    outputs, nodes = [], []
    for kind, channels in (("score", 1), ("box", 4), ("kps", 10)):
        for stride in (8, 16, 32):
            values = np.zeros((2 * (640 // stride) ** 2, channels), np.float32)
            if stride == 32:  # first anchor of the cell at (column 5, row 3), centre (160, 96)
                cell = 2 * (3 * 20 + 5)
                points = [-1, -1, 1, -1, 0, 0, -1, 1, 1, 1]
                values[cell] = {"score": 0.9, "box": [2, 2, 2, 3], "kps": points}[kind]
            name = f"{kind}{stride}"
            tensor = onnx.numpy_helper.from_array(values, f"{name}_value")
            # The addition of nothing ties the constant to the input, as a runtime folds free constants away.
            nodes += [
                onnx.helper.make_node("Constant", [], [f"{name}_constant"], value=tensor),
                onnx.helper.make_node("Add", [f"{name}_constant", "nothing"], [name]),
            ]
            outputs.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(values.shape)))
    zero = onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero")
    nodes = [
        onnx.helper.make_node("Constant", [], ["zero"], value=zero),
        onnx.helper.make_node("ReduceMax", ["image"], ["largest"], keepdims=0),
        onnx.helper.make_node("Mul", ["largest", "zero"], ["nothing"]),
        *nodes,
    ]
    image = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, "h", "w"])
    graph = onnx.helper.make_graph(nodes, "scrfd", [image], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    folder = tmp_path / "models" / "buffalo_x"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "det_x.onnx")
    return folder


def test_insightface_pack_is_found_and_read(scrfd, tmp_path):
    packs = faces.find_packs([tmp_path])
    assert packs == {"buffalo_x": scrfd / "det_x.onnx"}
    detector = faces.load_detector(scrfd, threshold=0.6)
    assert (detector.name, detector.threshold) == ("det_x", 0.6)
    found = detector.detect(np.zeros((2, 320, 640, 3), np.uint8))
    assert len(found) == 2
    (only,) = found[0]
    assert np.allclose(only.box, [96, 32, 224, 192], atol=0.01)
    assert np.allclose(only.landmarks[2], [160, 96], atol=0.01)
    assert only.score == pytest.approx(0.9)


def test_a_pack_that_is_a_link_to_nowhere_is_none(scrfd, tmp_path):
    broken = scrfd.parent / "broken"
    broken.mkdir()
    (broken / "det_x.onnx").symlink_to(tmp_path / "gone.onnx")
    assert faces.find_packs([tmp_path]) == {"buffalo_x": scrfd / "det_x.onnx"}


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_gpu_that_cannot_start_is_no_failure(scrfd, monkeypatch):
    import onnxruntime

    names = [*faces.GPU_PROVIDERS, faces.CPU_PROVIDER]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    assert len(faces.load_detector(scrfd, device="other:0").detect(np.zeros((1, 64, 64, 3), np.uint8))[0]) == 1


def test_a_detector_without_landmarks_is_refused(scrfd):
    import onnx

    model = onnx.load(scrfd / "det_x.onnx")
    del model.graph.output[6:]
    onnx.save(model, scrfd / "det_x.onnx")
    with pytest.raises(ValueError, match="no landmarks"):
        faces.load_detector(scrfd)


def test_threshold_reaches_insightface(scrfd):
    assert faces.load_detector(scrfd, threshold=0.95).detect(np.zeros((1, 64, 64, 3), np.uint8)) == [[]]


def test_damaged_or_absent_pack_is_explained(tmp_path):
    pytest.importorskip("insightface")
    with pytest.raises(ValueError, match="no face detector"):
        faces.load_detector(tmp_path)
    (tmp_path / "det_10g.onnx").write_bytes(b"<html>")
    with pytest.raises(ValueError, match="Fetch the pack again"):
        faces.load_detector(tmp_path / "det_10g.onnx")


@pytest.mark.parametrize("threshold", [-0.1, 2, float("nan")])
def test_a_threshold_is_a_score(threshold):
    with pytest.raises(ValueError, match="threshold is .* choose a score from 0 to 1"):
        faces.load_detector(threshold=threshold)


def test_missing_insightface_is_explained(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "insightface.model_zoo.scrfd", None)
    (tmp_path / "det_10g.onnx").write_bytes(b"x")
    with pytest.raises(RuntimeError, match="builtin"):
        faces.load_detector(tmp_path)


def test_largest_face_of_several():
    detector = Scripted(lambda frame: [face(0, 0, 10, 0.99), face(30, 30, 40, 0.6)])
    assert faces.largest_face(np.zeros((100, 100, 3), np.uint8), detector).box[0] == 30


def test_tight_portraits_are_looked_at_with_a_border():
    detector = Scripted(lambda frame: [face(60, 60, 80)] if frame.shape[0] > 100 else [])
    found = faces.largest_face(np.zeros((100, 80, 3), np.uint8), detector)
    assert detector.sizes == [(100, 80), (200, 180)]
    assert found.box.tolist() == [10, 10, 90, 90]
    assert found.landmarks[0].tolist() == pytest.approx([34, 42])


def test_no_face_says_what_was_tried():
    detector = Scripted(lambda frame: [])
    with pytest.raises(ValueError, match=r"scripted at threshold 0\.5 .* 80 x 100 px.*180 x 200 and 280 x 300 px"):
        faces.largest_face(np.zeros((100, 80, 3), np.uint8), detector)
    assert len(detector.sizes) == 3

"""Recognisers, embeddings and alignment."""

from __future__ import annotations

import csv
import logging

import cv2
import numpy as np
import pytest
import torch

from models import identity
from models.checkpoints import save_weights
from models.geometry import ARCFACE_TEMPLATE, invert, pixel_matrix, similarity_transform, warp_crops
from models.identity import (
    FaceEmbedding,
    Recogniser,
    align_faces,
    aligned_crops_torch,
    average_embeddings,
    check_embedding,
    load_recogniser,
    picture_quality,
    rgb_image,
)
from models.networks import build

# Measured by hand on the 512 px portrait: left eye, right eye, nose tip, mouth corners.
ASTRONAUT = np.array([[200.5, 108.5], [245.5, 109.5], [222.0, 137.0], [203.0, 158.0], [243.0, 159.0]])


@pytest.fixture(scope="module")
def recogniser():
    torch.manual_seed(0)
    return Recogniser("test-v1", build("iresnet18", width=0.125, dim=64), 64)


def unit(seed, near=None, spread=0.0, dim=512):
    vector = np.random.default_rng(seed).standard_normal(dim)
    vector /= np.linalg.norm(vector)
    if near is not None:
        vector = near + spread * vector
        vector /= np.linalg.norm(vector)
    return vector.astype(np.float32)


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_embedding_round_trip(tmp_path):
    embedding = FaceEmbedding(unit(1), "wavsyncswap-iresnet18q-v2", 0.75, 3)
    embedding.save(tmp_path / "face.safetensors")
    loaded = FaceEmbedding.load(tmp_path / "face.safetensors")
    assert np.array_equal(loaded.vector, embedding.vector)
    assert (loaded.recogniser, loaded.quality, loaded.count) == ("wavsyncswap-iresnet18q-v2", 0.75, 3)
    assert (tmp_path / "face.safetensors").stat().st_size < 5000


def test_recogniser_named_like_a_number_survives(tmp_path):
    FaceEmbedding(unit(1), "123").save(tmp_path / "face.safetensors")
    assert FaceEmbedding.load(tmp_path / "face.safetensors").recogniser == "123"


@pytest.mark.parametrize("vector", [np.zeros(8), np.full(8, np.nan), np.ones(8), np.ones((1, 1)), np.float32(1)])
def test_only_unit_vectors_are_embeddings(vector):
    with pytest.raises(ValueError, match="one unit vector"):
        FaceEmbedding(vector, "x")


def test_embedding_is_a_copy():
    vector = unit(1)
    embedding = FaceEmbedding(vector, "x")
    vector[:] = 0
    assert np.linalg.norm(embedding.vector) == pytest.approx(1)


def test_other_safetensors_is_no_embedding(tmp_path):
    save_weights(tmp_path / "w.safetensors", {"embedding": torch.ones(1)}, {})
    with pytest.raises(ValueError, match="w.safetensors holds no face embedding"):
        FaceEmbedding.load(tmp_path / "w.safetensors")
    metadata = {"format": "wavsyncswap-face-embedding-v1", "quality": 1.0, "count": 1}
    save_weights(tmp_path / "w.safetensors", {"embedding": torch.from_numpy(unit(1))}, metadata)
    with pytest.raises(ValueError, match="w.safetensors holds no face embedding"):
        FaceEmbedding.load(tmp_path / "w.safetensors")


def test_truncated_embedding(tmp_path):
    path = tmp_path / "face.safetensors"
    FaceEmbedding(unit(1), "x").save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="truncated or damaged"):
        FaceEmbedding.load(path)


def test_embedding_of_another_recogniser_is_refused():
    embedding = FaceEmbedding(unit(1), "insightface-w600k_r50-4c06341c")
    check_embedding(embedding, "insightface-w600k_r50-4c06341c")
    with pytest.raises(ValueError, match=r"'insightface-w600k_r50-4c06341c'.*'builtin-v1'. Embed the face again with"):
        check_embedding(embedding, "builtin-v1")


# --- averaging --------------------------------------------------------------------------------------------------------


def people(good, bad, spread=0.9):
    """`good` pictures of one person (mutual cosine about 0.55), `bad` of different others."""
    person = unit(0)
    vectors = [unit(10 + i, person, spread) for i in range(good)] + [unit(100 + i) for i in range(bad)]
    return [FaceEmbedding(vector, "x", 0.8) for vector in vectors]


@pytest.mark.parametrize(("good", "bad"), [(1, 0), (2, 0), (3, 0), (12, 0), (3, 1), (4, 2), (6, 3), (2, 1)])
def test_outliers_are_dropped_and_counted(good, bad, caplog):
    with caplog.at_level(logging.WARNING):
        mean = average_embeddings(people(good, bad))
    assert mean.count == good
    assert np.linalg.norm(mean.vector) == pytest.approx(1, abs=1e-6)
    assert bool(caplog.records) == bool(bad)
    if bad:
        assert f"{bad} of {good + bad} pictures show somebody else" in caplog.text


def test_average_is_nearer_to_the_person_than_any_picture():
    pictures = people(8, 2)
    mean = average_embeddings(pictures)
    assert mean.vector @ unit(0) > max(p.vector @ unit(0) for p in pictures)


def test_two_persons_cannot_outvote_each_other():
    mean = average_embeddings(people(1, 1))
    assert mean.count == 2


def test_quality_weighs():
    good, poor = FaceEmbedding(unit(1), "x", 0.9), FaceEmbedding(unit(2, unit(1), 1.0), "x", 0.1)
    mean = average_embeddings([good, poor])
    assert mean.vector @ good.vector > mean.vector @ poor.vector
    assert mean.quality == pytest.approx(0.82)


def test_counts_add_up():
    embeddings = [FaceEmbedding(unit(i, unit(0), 0.3), "x", 1.0, i) for i in (1, 2, 3)]
    assert average_embeddings(embeddings).count == 6


def test_impossible_averages():
    with pytest.raises(ValueError, match="at least one picture"):
        average_embeddings([])
    with pytest.raises(ValueError, match=r"'b'.*'a'"):
        average_embeddings([FaceEmbedding(unit(1), "a"), FaceEmbedding(unit(1), "b")])
    with pytest.raises(ValueError, match="nothing in common"):
        average_embeddings([FaceEmbedding(unit(1), "a"), FaceEmbedding(-unit(1), "a")])


# --- alignment --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [112, 96])
def test_torch_alignment_equals_opencv(astronaut, size):
    # two different similarities and one that leaves the picture; none shrinks, so warp_crops samples once as well
    points = np.stack([ASTRONAUT, (ASTRONAUT - 220) @ [[0.9, 0.3], [-0.3, 0.9]] + 250, ASTRONAUT * 0.5 - 40])
    matrices = similarity_transform(points, ARCFACE_TEMPLATE / 112)
    image = astronaut.astype(np.float32) / 255
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].expand(3, -1, -1, -1)
    found = aligned_crops_torch(tensor, matrices, size).permute(0, 2, 3, 1).numpy()
    for crop, matrix in zip(found, matrices, strict=True):
        expected = cv2.warpAffine(
            image, pixel_matrix(matrix, size), (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        assert np.abs(crop - expected).max() < 2e-3
    enlarging = 1 / np.hypot(matrices[:, 0, 0], matrices[:, 1, 0]) >= size
    expected = warp_crops(np.stack([image] * 3)[enlarging], matrices[enlarging], size)
    if size == 96:
        assert enlarging.any()
    assert np.abs(found[enlarging] - expected).max(initial=0) < 2e-3


def test_torch_alignment_puts_landmarks_on_the_template():
    """A dot drawn at each landmark lands on the template's point."""
    matrix = similarity_transform(ASTRONAUT[None], ARCFACE_TEMPLATE / 112)
    ys, xs = np.mgrid[:300, :300] + 0.5
    dots = np.stack([np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 18) for x, y in ASTRONAUT])
    crops = aligned_crops_torch(torch.from_numpy(dots)[:, None].expand(-1, 3, -1, -1), matrix)
    cy, cx = np.mgrid[:112, :112] + 0.5
    for crop, (x, y) in zip(crops[:, 0].numpy(), ARCFACE_TEMPLATE, strict=True):
        peak = np.array([(crop * cx).sum(), (crop * cy).sum()]) / crop.sum()
        fitted = matrix[0, :, :2] @ ASTRONAUT[np.argmin(np.hypot(*(ARCFACE_TEMPLATE - (x, y)).T))] + matrix[0, :, 2]
        assert np.abs(peak - fitted * 112).max() < 0.05
        assert np.abs(fitted * 112 - (x, y)).max() < 4  # the face is no perfect template


def test_torch_alignment_has_exact_gradients():
    images = torch.rand(2, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    points = np.stack([ARCFACE_TEMPLATE / 112 * 8, ARCFACE_TEMPLATE / 112 * 6 + 1.5])
    matrices = similarity_transform(points, ARCFACE_TEMPLATE / 112)
    assert torch.autograd.gradcheck(lambda x: aligned_crops_torch(x, matrices, 5), (images,))


def test_one_matrix_serves_all_images():
    images = torch.rand(3, 3, 40, 40)
    matrix = invert(np.array([[[40.0, 0, 0], [0, 40.0, 0]]]))
    identity_crop = invert(matrix)
    assert torch.allclose(aligned_crops_torch(images, invert(identity_crop), 40), images, atol=1e-5)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_usual_pictures_become_rgb():
    rgb = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    assert np.array_equal(rgb_image(rgb), rgb)
    assert np.array_equal(rgb_image(rgb.astype(np.float32) / 255), rgb)
    grey = rgb_image(rgb[..., 0])
    assert grey.shape == (4, 5, 3)
    assert np.array_equal(grey[..., 2], rgb[..., 0])
    assert np.array_equal(rgb_image(rgb[..., :1]), grey)
    assert np.array_equal(rgb_image(np.full((2, 2), 7.5, np.float32)), np.full((2, 2, 3), 255))


def test_transparency_becomes_grey():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[0, :, 3] = 0, 255, 51
    assert rgb_image(rgba).tolist() == [[[128, 128, 128], [200, 0, 0], [142, 102, 102]]]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((2, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int64),
        np.zeros(3, np.uint8),
    ],
)
def test_no_picture(image):
    with pytest.raises(ValueError, match="A picture is uint8 or float"):
        rgb_image(image)


def test_not_finite():
    with pytest.raises(ValueError, match="NaN"):
        rgb_image(np.full((2, 2, 3), np.nan, np.float32))


def test_quality_falls_with_size_blur_and_score(astronaut):
    def quality(scale=1.0, blur=0.0, score=0.9):
        picture = astronaut if scale == 1 else cv2.resize(astronaut, None, fx=scale, fy=scale)
        picture = cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture
        points = ASTRONAUT * scale
        return picture_quality(align_faces(picture[None], points[None])[0], points, score)

    full = quality()
    assert 0.8 < full <= 1
    assert 0 < quality(scale=0.25) < 0.8 * full
    assert 0 < quality(blur=4) < quality(blur=2) < 0.8 * full
    assert quality(score=0.3) < 0.8 * full
    flat = picture_quality(np.full((112, 112, 3), 90, np.uint8), ASTRONAUT, 1.0)
    assert flat == 0


# --- recognisers ------------------------------------------------------------------------------------------------------


def test_embed_is_normalised_differentiable_and_frozen(recogniser):
    crops = torch.rand(2, 3, 112, 112, requires_grad=True)
    vectors = recogniser.embed(crops)
    assert vectors.shape == (2, recogniser.dim)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    vectors[:, 0].sum().backward()
    assert crops.grad.abs().sum() > 0
    assert not any(p.requires_grad for p in recogniser.network.parameters())
    assert not recogniser.network.training


def test_input_ranges():
    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, x):
            self.range = x.min().item(), x.max().item()
            return x.flatten(1)[:, :4]

    crops = torch.linspace(0, 1, 3 * 112 * 112).reshape(1, 3, 112, 112)
    for raw, expected in [(False, (-1, 1)), (True, (0, 255))]:
        spy = Spy()
        Recogniser("x", spy, 4, raw).embed(crops)
        assert spy.range == pytest.approx(expected)


def test_embed_frames_is_batched_and_matches_embed(recogniser, astronaut):
    frames = np.stack([np.roll(astronaut, shift, 1) for shift in range(5)])
    points = np.stack([ASTRONAUT + np.array([shift, 0]) for shift in range(5)])
    vectors = recogniser.embed_frames(frames, points, batch=2)
    assert vectors.shape == (5, recogniser.dim)
    np.testing.assert_allclose(vectors, np.repeat(vectors[:1], 5, 0), atol=1e-3)  # the same face, moved
    crop = torch.from_numpy(align_faces(frames[:1], points[:1])).permute(0, 3, 1, 2) / 255
    np.testing.assert_allclose(recogniser.embed(crop)[0].detach(), vectors[0], atol=1e-5)
    assert recogniser.embed_frames(frames[:0], points[:0]).shape == (0, recogniser.dim)
    with pytest.raises(ValueError, match="5 frames, 4 sets"):
        recogniser.embed_frames(frames, points[:4])


class FixedDetector:
    """Finds the portrait's face where it was measured."""

    name, threshold = "fixed", 0.5

    def detect(self, frames):
        from models.faces import Detection

        box = np.array([170, 60, 275, 190], np.float32)
        return [[Detection(box, 0.9, ASTRONAUT.astype(np.float32))] for _ in frames]


def test_embed_image(recogniser, astronaut):
    pytest.importorskip("models.faces")
    embedding = recogniser.embed_image(astronaut, FixedDetector())
    assert embedding.recogniser == "test-v1"
    assert embedding.count == 1
    assert 0.7 < embedding.quality <= 1
    expected = recogniser.embed_frames(astronaut[None], ASTRONAUT.astype(np.float32)[None])[0]
    np.testing.assert_allclose(embedding.vector, expected, atol=1e-5)
    opaque = np.dstack([astronaut, np.full(astronaut.shape[:2], 255, np.uint8)])
    np.testing.assert_allclose(recogniser.embed_image(opaque, FixedDetector()).vector, embedding.vector, atol=1e-5)


@pytest.mark.parametrize("name", ["iresnet18", "iresnet34", "iresnet50", "iresnet100"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_depth_width_and_dimension_come_from_the_keys(tmp_path, name, suffix):
    state = build(name, width=0.125, dim=32).state_dict()
    path = tmp_path / f"backbone.{suffix}"
    if suffix == "pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    else:
        save_weights(path, {k: v.half() if v.is_floating_point() else v for k, v in state.items()}, {})
    recogniser = load_recogniser(path)
    assert recogniser.dim == 32
    assert recogniser.id.startswith("insightface-backbone-")
    assert len(recogniser.id) == len("insightface-backbone-") + 8
    with torch.no_grad():
        found = recogniser.embed(torch.rand(1, 3, 112, 112))
    assert found.dtype == torch.float32
    torch.testing.assert_close(recogniser.network.state_dict()["fc.weight"], state["fc.weight"], atol=1e-3, rtol=1e-3)


def test_onnx_recogniser_equals_its_source(tmp_path, recogniser):
    pytest.importorskip("onnx")
    path = tmp_path / "w600k_r18.onnx"
    with pytest.warns():
        torch.onnx.export(recogniser.network, torch.zeros(1, 3, 112, 112), str(path), dynamo=False)
    loaded = load_recogniser(str(path))
    assert loaded.id.startswith("insightface-w600k_r18-")
    assert loaded.dim == recogniser.dim
    crops = torch.rand(3, 3, 112, 112)
    torch.testing.assert_close(loaded.embed(crops), recogniser.embed(crops), atol=1e-4, rtol=0)


def test_own_file_carries_its_id(tmp_path):
    metadata = {"id": "wavsyncswap-test-v2", "network": "iresnet18", "config": {"width": 0.125}}
    save_weights(tmp_path / "any.safetensors", build("iresnet18", width=0.125).state_dict(), metadata)
    assert load_recogniser(tmp_path / "any.safetensors").id == "wavsyncswap-test-v2"


def test_an_id_is_known_without_the_network(tmp_path, monkeypatch):
    state = build("iresnet18", width=1 / 8).state_dict()
    torch.save(state, tmp_path / "backbone.pth")
    torch.save(state, tmp_path / "renamed.pth")
    save_weights(tmp_path / "own.safetensors", state, {"id": "wavsyncswap-test-v2", "network": "iresnet18"})
    save_weights(tmp_path / "nameless.safetensors", state, {"network": "iresnet18", "config": {"width": 0.125}})
    (tmp_path / "w600k.onnx").write_bytes(b"not looked into")
    names = [*tmp_path.iterdir(), "builtin"]
    ids = [identity.file_id(name) if str(name).endswith(".onnx") else load_recogniser(name).id for name in names]
    assert len(set(ids)) == len(names)
    monkeypatch.setattr(identity, "build", None)
    for name, own in zip(names, ids, strict=True):
        assert [identity.has_id(name, other) for other in ids] == [own == other for other in ids]
    (tmp_path / "backbone.pth").write_bytes(b"<html>")
    for name in ("backbone.pth", "gone.safetensors"):
        with pytest.raises(ValueError, match=name.partition(".")[0]):
            identity.has_id(tmp_path / name, ids[0])


def test_files_that_are_no_recogniser(tmp_path):
    with pytest.raises(ValueError, match="There is no recogniser file"):
        load_recogniser(tmp_path / "none.pth")
    (tmp_path / "w.txt").write_text("x")
    with pytest.raises(ValueError, match=r"an .onnx, .pth or .safetensors file; got w.txt"):
        load_recogniser(tmp_path / "w.txt")
    (tmp_path / "w.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(ValueError, match="a web page"):
        load_recogniser(tmp_path / "w.pth")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"no IResNet recogniser \(blocks found.*\(0, 0, 0, 0\).*iresnet18"):
        load_recogniser(tmp_path / "w.pth")
    save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, {"network": "wavsyncswap"})
    with pytest.raises(ValueError, match="weights of 'wavsyncswap', not of a face recogniser"):
        load_recogniser(tmp_path / "w.safetensors")


def test_a_graph_that_lacks_an_input_is_no_recogniser(tmp_path):
    onnx = pytest.importorskip("onnx")
    add = onnx.helper.make_node("Add", ["x", ""], ["y"])
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3, 112, 112]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([add], "g", values[:1], values[1:])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "torn.onnx")
    with pytest.raises(ValueError, match=r"torn\.onnx is no face recogniser"):
        load_recogniser(tmp_path / "torn.onnx")


def test_builtin_needs_its_file(monkeypatch, tmp_path):
    monkeypatch.setattr("models.checkpoints._BUNDLED", tmp_path)
    with pytest.raises(RuntimeError, match=r"recogniser.safetensors are missing"):
        load_recogniser()


# --- real faces -------------------------------------------------------------------------------------------------------


def test_builtin_tells_people_apart(shared_data):
    """Same/different pairs of labelled photos; the teacher reaches an AUC of 0.99999 here."""
    try:
        recogniser = load_recogniser("builtin")
    except RuntimeError as error:
        pytest.skip(str(error))
    folder = shared_data / "faces"
    with open(folder / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["kind"] == "photo" and r["faces"] == "1"]
    vectors = []
    for row in rows:
        picture = cv2.imread(str(folder / row["file"]))[..., ::-1]
        points = np.array(row["kps5"].split(), float).reshape(1, 5, 2)
        vectors.append(recogniser.embed_frames(picture[None], points)[0])
    cosines = np.stack(vectors) @ np.stack(vectors).T
    upper = np.triu_indices(len(rows), 1)
    same = np.array([rows[i]["identity"] == rows[j]["identity"] for i, j in zip(*upper, strict=True)])
    values = cosines[upper]
    auc = (values[same][:, None] > values[~same][None]).mean()
    assert auc > 0.98
    assert recogniser.dim == 512
    assert recogniser.id.startswith("wavsyncswap-")

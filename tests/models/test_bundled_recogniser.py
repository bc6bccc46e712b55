from __future__ import annotations

import csv

import numpy as np
import pytest

from models import geometry
from models.checkpoints import bundled_path
from models.identity import load_recogniser


def auc(same: np.ndarray, different: np.ndarray) -> float:
    order = np.argsort(np.argsort(np.concatenate([same, different])))[: len(same)] + 1
    return (order.sum() - len(same) * (len(same) + 1) / 2) / (len(same) * len(different))


@pytest.fixture(scope="module")
def vectors(shared_data):
    """Embeddings of the photographs with their people."""
    cv2 = pytest.importorskip("cv2")
    rows = list(csv.DictReader((shared_data / "faces" / "manifest.csv").open(newline="")))
    rows = [row for row in rows if row["kind"] == "photo"]
    recogniser, pictures, names = load_recogniser("builtin"), [], []
    for row in rows:
        image = cv2.imread(str(shared_data / "faces" / row["file"]))[:, :, ::-1]
        points = np.array(row["kps5"].split(), np.float64).reshape(5, 2)
        pictures.append(recogniser.embed_frames(np.ascontiguousarray(image)[None], points[None])[0])
        names.append(row["identity"])
    return np.stack(pictures), np.array(names)


def test_tells_people_apart(vectors):
    found, names = vectors
    cosine = found @ found.T
    upper = np.triu_indices(len(found), 1)
    same = (names[:, None] == names[None])[upper]
    # Measured 1.000 over all photographs, most of which it was trained on; 0.995 on the six held-out people.
    assert auc(cosine[upper][same], cosine[upper][~same]) > 0.98


def test_unit_norm_and_size(vectors):
    found, _ = vectors
    assert found.shape[1] == 512
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
    assert bundled_path("recogniser.safetensors").stat().st_size < 12e6


def test_template_of_the_crop_and_of_the_recogniser_are_one_shape():
    matrix = geometry.similarity_transform(geometry.CROP_TEMPLATE, geometry.ARCFACE_TEMPLATE)
    mapped = geometry.CROP_TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    assert np.allclose(mapped, geometry.ARCFACE_TEMPLATE, atol=1e-9)

"""SimSwap's alignment and recogniser against the specification, sections 2.2 and 3.8 to 3.10."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.identity import load_recogniser
from models.layouts import SIMSWAP_RECOGNISER
from models.simswap_identity import CROP, FRONT, POSES, SimSwapRecogniser, cut, ffhq_matrices, pose_matrices
from tests.models.public_files import random_network, save_public, save_simswap_module, simswap_module

ANCHOR = np.array([[201.3, 150.2], [262.9, 148.7], [233.4, 190.1], [207.8, 221.6], [259.2, 220.3]])


def test_anchor_picks_the_frontal_pose():
    """Numbers of the specification, 3.10."""
    matrix = pose_matrices(ANCHOR[None])[0]
    np.testing.assert_allclose(
        matrix, [[1.020023, -0.022012, -121.485539], [0.022012, 1.020023, -57.119444]], atol=2e-6
    )
    placed = ANCHOR @ matrix[:, :2].T + matrix[:, 2]
    assert np.linalg.norm(placed - 2 * POSES[FRONT], axis=1).sum() == pytest.approx(11.3598, abs=1e-4)


@pytest.mark.parametrize("pose", range(5))
def test_each_pose_finds_itself(pose):
    turn = np.array([[0.9, -0.3], [0.3, 0.9]])
    seen = POSES[pose] @ turn.T * 1.7 + (30, 40)
    matrix = pose_matrices(seen[None], 112)[0]
    np.testing.assert_allclose(seen @ matrix[:, :2].T + matrix[:, 2], POSES[pose], atol=1e-9)


def test_ffhq_crop_scales_with_its_side():
    np.testing.assert_allclose(ffhq_matrices(ANCHOR[None], 256) * 2, ffhq_matrices(ANCHOR[None]), rtol=1e-12)
    assert ffhq_matrices(ANCHOR[None]).shape == (1, 2, 3)


def test_crops_are_black_outside():
    frames = np.full((1, 40, 40, 3), 200, np.uint8)
    crop = cut(frames, np.array([[[1.0, 0, 10], [0, 1, 10]]]), 64)[0]
    assert (crop[:9] == 0).all()
    assert (crop[11:49, 11:49] == 200).all()


def test_aligned_faces_are_every_second_pixel_of_the_large_crop():
    frames = np.random.default_rng(0).integers(0, 256, (2, 300, 400, 3), dtype=np.uint8)
    points = np.stack([ANCHOR, ANCHOR + 5])
    network = random_network("simswap_arcface", width=1 / 16, dim=32)
    aligned = SimSwapRecogniser(network, 32).align(frames, points)
    assert aligned.shape == (2, 112, 112, 3)
    assert np.array_equal(aligned, cut(frames, pose_matrices(points), CROP)[:, ::2, ::2])
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(cut(frames, pose_matrices(points), CROP)).movedim(-1, 1).float(), scale_factor=0.5
    )  # torch's nearest
    assert np.array_equal(aligned, resized.movedim(1, -1).numpy().astype(np.uint8))


def test_embedding_is_normalised_as_the_network_was_trained():
    network = random_network("simswap_arcface", width=1 / 16, dim=32)
    recogniser = SimSwapRecogniser(network, 32)
    crops = torch.rand(3, 3, 112, 112)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = network((crops - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(recogniser.embed(crops), torch.nn.functional.normalize(expected, dim=1))


@pytest.mark.parametrize("container", ["arcface_checkpoint.tar", "simswap_arcface.pth"])
def test_every_published_form_is_one_recogniser(tmp_path, monkeypatch, container):
    """Embeddings must not depend on which copy of the file somebody has."""
    module = simswap_module(monkeypatch)
    path = tmp_path / container
    if container.endswith(".tar"):
        save_simswap_module(path, module)
    else:
        save_public(path, module.state_dict(), "flat")
    recogniser = load_recogniser(path)
    assert (recogniser.id, recogniser.dim) == (SIMSWAP_RECOGNISER, 32)
    frames = np.random.default_rng(0).integers(0, 256, (1, 300, 400, 3), dtype=np.uint8)
    vector = recogniser.embed_frames(frames, ANCHOR[None])[0]
    original = SimSwapRecogniser(random_network("simswap_arcface", width=1 / 16, dim=32), 32)
    np.testing.assert_allclose(vector, original.embed_frames(frames, ANCHOR[None])[0], atol=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)

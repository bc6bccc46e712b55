from __future__ import annotations

import numpy as np
import pytest
import torch

from training.second_recogniser import FILE, second_recogniser


def test_a_data_folder_without_the_file_has_none(tmp_path):
    assert second_recogniser(tmp_path) is None


def test_same_numbers_as_onnxruntime_and_gradients_for_the_faces(shared_data):
    runtime = pytest.importorskip("onnxruntime")
    faces = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    second = second_recogniser(shared_data)
    session = runtime.InferenceSession(str(shared_data / FILE), providers=["CPUExecutionProvider"])
    planes = (faces.numpy() - np.reshape([0.485, 0.456, 0.406], (3, 1, 1))) / np.reshape(
        [0.229, 0.224, 0.225], (3, 1, 1)
    )
    raw = np.concatenate(
        [session.run(None, {session.get_inputs()[0].name: p[None].astype(np.float32)})[0] for p in planes]
    )
    expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    faces.requires_grad_()
    vectors = second.embed(faces)
    assert np.abs(vectors.detach().numpy() - expected).max() < 1e-4
    vectors[:, 0].sum().backward()
    assert faces.grad.abs().max() > 0
    assert all(p.grad is None for p in second.parameters())

"""Sync models from files, and which frames and sound go into which window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from models.audio import mel_spectrogram
from models.checkpoints import save_weights
from models.geometry import GEOMETRY_ID
from models.metrics import sync_model
from models.metrics.sync_model import Expert, SyncNet, load_sync_model
from models.mfcc import mfcc
from models.networks import build


@pytest.fixture(scope="module")
def networks() -> dict[str, torch.nn.Module]:
    torch.manual_seed(0)
    return {name: build(name).eval() for name in ("syncnet_v2", "syncnet_expert")}


@pytest.fixture(scope="module")
def sound() -> torch.Tensor:
    return 0.3 * torch.randn(640 * 12, generator=torch.Generator().manual_seed(1)).clamp(-3, 3)


def faces(side: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, side, side, 3), np.uint8)


def test_syncnet_windows(networks, sound):
    model, pictures = SyncNet(networks["syncnet_v2"], "x"), faces(224)
    lips, heard = model.lips(pictures), model.sound(sound, 7)
    assert lips.shape == (3, 1024)
    assert heard.shape == (7, 1024)
    bgr = torch.from_numpy(pictures[2:7, ..., ::-1].copy()).float().permute(3, 0, 1, 2)[None]
    columns = mfcc((sound * 32768).round())[4 * 5 : 4 * 5 + 20].T[None, None]
    with torch.no_grad():
        np.testing.assert_allclose(lips[2], model.network.forward_lip(bgr)[0].numpy(), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(heard[5], model.network.forward_aud(columns)[0].numpy(), rtol=1e-4, atol=1e-4)


def test_expert_windows(networks, sound):
    model, pictures = Expert(networks["syncnet_expert"], "x", "unit"), faces(96)
    lips, heard = model.lips(pictures), model.sound(sound, 7)
    assert lips.shape == (3, 512)
    assert heard.shape == (7, 512)
    np.testing.assert_allclose(np.linalg.norm(np.concatenate([lips, heard]), axis=1), 1, rtol=1e-5)
    lower = torch.from_numpy(pictures[1:6, 48:, :, ::-1].copy()).float().permute(0, 3, 1, 2).reshape(1, 15, 48, 96)
    with torch.no_grad():
        np.testing.assert_allclose(lips[1], model.network.embed_face(lower / 255)[0].numpy(), atol=1e-5)
        window = mel_spectrogram(sound)[:, 9:25][None, None]  # frame 3 begins at column 48 / 5
        np.testing.assert_allclose(heard[3], model.network.embed_audio(window)[0].numpy(), atol=1e-5)


@pytest.mark.parametrize(
    "network, metadata, kind, geometry",
    [
        ("syncnet_v2", {"network": "syncnet_v2"}, SyncNet, "wide"),
        ("syncnet_expert", {"network": "syncnet_expert", "geometry": GEOMETRY_ID}, Expert, "unit"),
        ("syncnet_expert", {"network": "syncnet_expert"}, Expert, "box"),  # Wav2Lip's, converted
    ],
)
def test_safetensors_are_recognised_by_content(tmp_path: Path, networks, network, metadata, kind, geometry):
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in networks[network].state_dict().items()
    }
    save_weights(tmp_path / "any.safetensors", state, metadata)
    model = load_sync_model(tmp_path / "any.safetensors")
    assert isinstance(model, kind)
    assert model.geometry == geometry
    assert "any.safetensors (" in model.name


@pytest.mark.parametrize(
    "network, wrapper, geometry",
    [("syncnet_v2", None, "wide"), ("syncnet_expert", "state_dict", "box"), ("syncnet_expert", "expert", "unit")],
)
def test_pickles_are_recognised_by_content(tmp_path: Path, networks, network, wrapper, geometry):
    state = networks[network].state_dict()
    torch.save(state if wrapper is None else {wrapper: state, "step": 3}, tmp_path / "any.pth")
    assert load_sync_model(tmp_path / "any.pth").geometry == geometry


def test_another_network_is_refused(tmp_path: Path):
    save_weights(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {"network": "wavsyncswap"})
    with pytest.raises(ValueError, match="no sync model: it holds wavsyncswap.*syncnet_v2.model"):
        load_sync_model(tmp_path / "other.safetensors")


def test_none_means_the_bundled_expert_or_an_explanation(tmp_path: Path, networks, monkeypatch):
    monkeypatch.setattr("models.checkpoints._BUNDLED", tmp_path)
    with pytest.raises(RuntimeError, match=r"bundles none.*syncnet_v2\.model.*training syncnet"):
        load_sync_model()
    metadata = {"network": "syncnet_expert", "geometry": GEOMETRY_ID}
    save_weights(tmp_path / f"{sync_model.BUILTIN}.safetensors", networks["syncnet_expert"].state_dict(), metadata)
    assert load_sync_model().geometry == "unit"

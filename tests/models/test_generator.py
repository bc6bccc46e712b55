from __future__ import annotations

import numpy as np
import pytest
import torch

from models import geometry
from models.checkpoints import save_weights
from models.generator import choose_dtype, inference_form, load_generator
from models.identity import FaceEmbedding
from models.networks import build
from models.networks.wavsyncswap import mask_lower_half

METADATA = {
    "network": "wavsyncswap",
    "config": {"width": "small", "px": 96, "skips": "adain"},
    "recogniser": "r1",
    "geometry": geometry.GEOMETRY_ID,
    "mel_lag": -1,
}


def network(**config):
    """A generator with random weights and batch-norm statistics."""
    torch.manual_seed(0)
    net = build("wavsyncswap", width="small", **config).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.kaiming_normal_(module.weight)  # torch's default fades through 20 layers
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture
def weights(tmp_path):
    """A weights file of a small generator."""
    save_weights(tmp_path / "g.safetensors", network(skips="adain").state_dict(), METADATA)
    return tmp_path / "g.safetensors"


def embedding(recogniser: str = "r1") -> FaceEmbedding:
    vector = np.zeros(512, np.float32)
    vector[3] = 1
    return FaceEmbedding(vector, recogniser, 1.0, 1)


@pytest.mark.parametrize("config", [{}, {"skips": "adain"}, {"px": 128}])
def test_inference_form_equals_the_trained_network(config):
    net = network(**config)
    px = net.px
    crops, mel = torch.rand(2, 6, px, px), torch.randn(2, 1, 80, 16)
    vector = torch.nn.functional.normalize(torch.randn(2, 512), dim=1)
    with torch.inference_mode():
        expected = net(crops, mel, vector)
        folded = inference_form(net, torch.float32)
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules())
        assert (folded(crops, mel, vector) - expected).abs().max() < 1e-4


def test_count_size_and_range(weights):
    generator = load_generator(weights, precision="fp32")
    out = generator.generate(torch.rand(5, 3, 200, 200), torch.randn(5, 1, 80, 16), embedding(), batch=2)
    assert out.shape == (5, 3, 96, 96)
    assert out.dtype == torch.float32
    assert 0 <= out.min()
    assert out.max() <= 1
    assert generator.generate(torch.rand(0, 3, 96, 96), torch.randn(0, 1, 80, 16), embedding()).shape[0] == 0


def test_batching_does_not_change_the_result_and_progress_may_interrupt(weights):
    generator = load_generator(weights, precision="fp32")
    crops, mel = torch.rand(5, 3, 96, 96), torch.randn(5, 1, 80, 16)
    seen: list[tuple[int, int]] = []
    whole = generator.generate(crops, mel, embedding(), batch=5)
    parts = generator.generate(
        crops, mel, embedding(), batch=2, progress=lambda done, total: seen.append((done, total))
    )
    assert (whole - parts).abs().max() < 1e-5
    assert seen == [(2, 5), (4, 5), (5, 5)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generator.generate(crops, mel, embedding(), batch=2, progress=stop)


def test_sound_identity_and_reference_all_reach_the_picture(weights):
    generator = load_generator(weights, precision="fp32")
    crops, mel = torch.rand(1, 3, 96, 96), torch.randn(1, 1, 80, 16)
    base = generator.generate(crops, mel, embedding())
    other = embedding()
    other = FaceEmbedding(np.roll(other.vector, 7), other.recogniser, 1.0, 1)
    assert (generator.generate(crops, mel * -1, embedding()) - base).abs().max() > 1e-4
    assert (generator.generate(crops, mel, other) - base).abs().max() > 1e-4
    assert (generator.generate(crops, mel, embedding(), references=torch.rand(1, 3, 96, 96)) - base).abs().max() > 1e-4


def test_bfloat16_stays_near_float32(weights):
    crops, mel = torch.rand(3, 3, 96, 96), torch.randn(3, 1, 80, 16)
    exact, rounded = (load_generator(weights, precision=p).generate(crops, mel, embedding()) for p in ("fp32", "bf16"))
    assert (exact - rounded).abs().mean() < 4 / 255


def test_counts_that_differ_are_refused(weights):
    generator = load_generator(weights, precision="fp32")
    with pytest.raises(ValueError, match="3 crops, 2 mel windows"):
        generator.generate(torch.rand(3, 3, 96, 96), torch.randn(2, 1, 80, 16), embedding())


def test_without_identity_the_network_sees_a_zero_vector(weights, tmp_path):
    crops, mel = torch.rand(2, 3, 96, 96), torch.randn(2, 1, 80, 16)
    with pytest.raises(ValueError, match="no source identity.*cannot keep"):
        load_generator(weights, precision="fp32").generate(crops, mel, None)
    config = {"skips": "adain", "keep": True}
    metadata = METADATA | {"config": {"width": "small", **config}}
    save_weights(tmp_path / "k.safetensors", network(**config).state_dict(), metadata)
    generator = load_generator(tmp_path / "k.safetensors", precision="fp32")
    kept = generator.generate(crops, mel, None)
    pair = torch.cat([mask_lower_half(crops), crops], 1)
    with torch.inference_mode():
        assert (kept - generator.network(pair, mel, torch.zeros(2, 512))).abs().max() < 1e-5
    assert (kept - generator.generate(crops, mel, embedding())).abs().max() > 1e-4


def test_embedding_of_another_recogniser_is_refused(weights):
    generator = load_generator(weights, precision="fp32")
    with pytest.raises(ValueError, match="r1"):
        generator.generate(torch.rand(1, 3, 96, 96), torch.randn(1, 1, 80, 16), embedding("r2"))


def test_weights_of_another_network_geometry_or_size_are_refused(tmp_path):
    state = network().state_dict()
    cases = {
        "network": {**METADATA, "network": "iresnet18"},
        "geometry": {**METADATA, "geometry": "boxes"},
        "px": {**METADATA, "config": {"width": "small", "px": 128}},
    }
    for name, metadata in cases.items():
        save_weights(tmp_path / f"{name}.safetensors", state, metadata)
        with pytest.raises(ValueError, match=rf"{name}\.safetensors"):
            load_generator(tmp_path / f"{name}.safetensors")


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="fp64"):
        choose_dtype("fp64", torch.device("cpu"))

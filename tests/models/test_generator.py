from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from models import geometry, precision
from models.checkpoints import save_weights
from models.generator import load_generator
from models.identity import FaceEmbedding
from models.inference_form import inference_form
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
        assert (
            kept - generator.network(pair.contiguous(memory_format=torch.channels_last), mel, torch.zeros(1, 512))
        ).abs().max() < 1e-5
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


def test_weights_that_do_not_say_enough_or_more_than_is_known(tmp_path):
    state = network(skips="adain").state_dict()
    bare = {key: value for key, value in METADATA.items() if key not in ("geometry", "mel_lag")}
    save_weights(tmp_path / "bare.safetensors", state, bare)
    with pytest.raises(ValueError, match=r"bare\.safetensors does not say its geometry, mel_lag.*anew"):
        load_generator(tmp_path / "bare.safetensors")
    config = {**METADATA["config"], "eyes": 3}
    save_weights(tmp_path / "new.safetensors", state, {**METADATA, "config": config})
    with pytest.raises(ValueError, match="no option 'eyes'.*update of this pack"):
        load_generator(tmp_path / "new.safetensors")


def test_unknown_precision_is_refused(weights):
    with pytest.raises(ValueError, match="fp64"):
        load_generator(weights, precision="fp64")


@pytest.mark.parametrize("seconds, difference, chosen", [(1.0, 0.0, "bf16"), (1.7, 0.0, "fp32"), (1.0, 0.02, "fp32")])
def test_auto_takes_a_faster_type_only_if_pictures_stay_the_same(weights, monkeypatch, seconds, difference, chosen):
    real = precision._timed

    def timed(draw, device):
        pictures, _ = real(draw, device)
        exact = pictures.dtype == torch.float32 and not calls
        calls.append(1)
        return (pictures, 2.0) if exact else (pictures + difference, seconds)

    calls: list[int] = []
    monkeypatch.setattr(precision, "candidates", lambda device: [torch.bfloat16])
    monkeypatch.setattr(precision, "_timed", timed)
    generator = load_generator(weights)
    crops, mel = torch.rand(5, 3, 96, 96), torch.randn(5, 1, 80, 16)
    made = generator.generate(crops, mel, embedding(), batch=5)
    assert len(calls) == 2
    wanted = load_generator(weights, precision=chosen)
    dtypes = [[p.dtype for p in g.network.parameters()] for g in (generator, wanted)]
    assert dtypes[0] == dtypes[1]
    assert torch.equal(made, wanted.generate(crops, mel, embedding(), batch=5))
    generator.generate(crops, mel, embedding())
    assert len(calls) == 2  # measured once


def test_a_type_that_a_layer_lacks_is_passed_over(weights, monkeypatch):
    monkeypatch.setattr(precision, "candidates", lambda device: [torch.float8_e5m2])
    generator = load_generator(weights)
    made = generator.generate(torch.rand(2, 3, 96, 96), torch.randn(2, 1, 80, 16), embedding())
    assert made.isfinite().all()
    assert {p.dtype for p in generator.network.parameters()} == {torch.float32}


def test_out_of_memory_halves_the_batch_and_keeps_the_place(weights):
    generator = load_generator(weights, precision="fp32")
    crops, mel = torch.rand(7, 3, 96, 96), torch.randn(7, 1, 80, 16)
    expected, seen, sizes, real = generator.generate(crops, mel, embedding(), batch=5), [], [], generator.draw

    def draw(target, *rest):
        sizes.append(len(target))
        if len(target) > 2 and len(sizes) != 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(target, *rest)

    generator.draw = draw
    made = generator.generate(crops, mel, embedding(), batch=5, progress=lambda done, total: seen.append(done))
    assert torch.equal(made, expected)
    assert sizes == [5, 2]
    sizes.clear()
    sizes.append(0)
    seen.clear()
    generator.generate(crops, mel, embedding(), batch=5, progress=lambda done, total: seen.append(done))
    assert sizes[1:] == [5, 2, 2, 2, 1]
    assert seen == [2, 4, 6, 7]
    generator.draw = lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        generator.generate(crops, mel, embedding())


@pytest.mark.parametrize("broken", ["weights", "crops", "references"])
def test_what_is_no_picture_is_refused(weights, broken):
    generator = load_generator(weights, precision="bf16")
    crops, mel = torch.rand(3, 3, 96, 96), torch.randn(3, 1, 80, 16)
    given = {"crops": crops, "references": crops.clone()}
    if broken == "weights":
        next(generator.network.output_block.parameters()).data[0] = torch.nan
    else:
        given[broken][2, 0, 0, 0] = torch.inf
    reason = "precision is bf16: choose fp32" if broken == "weights" else "so do the face crops.*Check the node"
    with pytest.raises(ValueError, match=f"NaN or infinite numbers.*{reason}"):
        generator.generate(given["crops"], mel, embedding(), given["references"])


def test_bytes_are_the_crops_that_they_stand_for(weights):
    generator = load_generator(weights, precision="fp32")
    crops, mel = torch.randint(0, 256, (2, 3, 120, 120), dtype=torch.uint8), torch.randn(2, 1, 80, 16)
    both = (crops, crops.float() / 255)
    made = [generator.generate(pictures, mel, embedding(), pictures, batch=2) for pictures in both]
    assert torch.equal(*made)


def test_what_cannot_be_compiled_runs_as_it_is(weights, monkeypatch, caplog):
    def broken(fn, **options):
        def fail(*_):
            raise RuntimeError("no compiler here")

        return fail

    generator = load_generator(weights, precision="fp32")
    crops, mel = torch.rand(3, 3, 96, 96), torch.randn(3, 1, 80, 16)
    expected = generator.generate(crops, mel, embedding(), batch=3)
    filled = generator.generate(crops[[0, 1, 2, 2]], mel[[0, 1, 2, 2]], embedding(), batch=2)[:3]
    monkeypatch.setattr(torch, "compile", broken)
    generator.compile()
    assert torch.equal(generator.generate(crops, mel, embedding(), batch=3), expected)
    assert "no compiler here" in caplog.text
    monkeypatch.setattr(torch, "compile", lambda fn, **options: fn)  # what is left is the padding of the last batch
    generator.compile()
    assert torch.equal(generator.generate(crops, mel, embedding(), batch=2), filled)


def test_compiled_or_not_out_of_memory_halves_the_batch(weights, monkeypatch):
    def small(fn, **options):
        def run(pair, *rest):
            sizes.append(len(pair))
            if len(pair) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return fn(pair, *rest)

        return run

    generator, sizes = load_generator(weights, precision="fp32"), []
    crops, mel = torch.rand(9, 3, 96, 96), torch.randn(9, 1, 80, 16)
    monkeypatch.setattr(torch, "compile", small)
    generator.compile()
    assert len(generator.generate(crops, mel, embedding(), batch=8)) == 9
    assert sizes == [8, 4, 4, 4]  # the last one is filled up, the first ones no more


def test_memory_that_runs_out_while_number_types_are_measured_leaves_the_weights_exact(weights, monkeypatch):
    monkeypatch.setattr(precision, "candidates", lambda device: [torch.bfloat16])
    generator = load_generator(weights)
    exact = {name: value.clone() for name, value in generator.network.state_dict().items()}
    real, types = generator.draw, []

    def draw(*arguments):
        types.append(next(generator.network.parameters()).dtype)
        if types.count(torch.bfloat16) == 1 and types[-1] == torch.bfloat16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(*arguments)

    generator.draw = draw
    generator.generate(torch.rand(2, 3, 96, 96), torch.randn(2, 1, 80, 16), embedding())
    assert types.count(torch.float32) >= 4  # measured anew, from the exact weights
    precision.set_precision(generator.network, torch.float32)
    for name, value in generator.network.state_dict().items():
        assert (value - exact[name]).abs().max() <= exact[name].abs().max() / 128, name


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_pictures_are_the_same_and_weights_are_constants_of_the_code(caplog):
    generator = load_generator("builtin", precision="fp32")
    crops, mel = torch.rand(5, 3, 96, 96), torch.randn(5, 1, 80, 16)
    expected = generator.generate(crops, mel, None, batch=3)
    generator.compile()
    made = generator.generate(crops, mel, None, batch=3)
    assert "torch.compile does not work" not in caplog.text
    assert (made - expected).abs().max() < 1e-3
    with torch.profiler.profile() as watched:
        generator.generate(crops[:3], mel[:3], None, batch=3)
    assert not [event for event in watched.key_averages() if event.key == "aten::mkldnn_convolution"]


def test_a_cpu_draws_as_many_at_a_time_as_it_draws_in_a_moment(weights, monkeypatch):
    """So that a slow network can be interrupted, and a fast one works on large batches."""
    generator, now, sizes = load_generator(weights, precision="fp32"), [0.0], []
    monkeypatch.setattr("models.generator.time.perf_counter", lambda: now[0])

    def draw(target, *rest):
        sizes.append(len(target))
        now[0] += seconds * len(target)
        return target

    generator.draw = draw
    crops, mel = torch.rand(40, 3, 96, 96), torch.randn(40, 1, 80, 16)
    seconds = 0.01
    generator.generate(crops, mel, embedding())
    assert sizes == [4, 8, 16, 12]
    sizes.clear()
    seconds = 0.2  # another program takes the processor
    generator.generate(crops[:20], mel[:20], embedding())
    assert sizes == [16, 2, 2]

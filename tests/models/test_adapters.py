from __future__ import annotations

import pytest
import torch

from models import geometry
from models.adapters import Adapter, apply_adapter, load_adapter, merge
from models.checkpoints import read_metadata, save_weights
from models.generator import load_generator
from models.inference_form import inference_form
from models.networks import build

CONFIG = {"width": "small", "px": 96, "skips": "adain", "blend": True, "keep": True}


def network(seed: int = 0):
    """A generator with random weights, in inference form."""
    torch.manual_seed(seed)
    return inference_form(build("wavsyncswap", **CONFIG), torch.float32)


def inputs(rows: int = 2):
    random = torch.Generator().manual_seed(1)
    crops, mel = torch.rand(rows, 6, 96, 96, generator=random), torch.randn(rows, 1, 80, 16, generator=random)
    return crops, mel, torch.nn.functional.normalize(torch.randn(rows, 512, generator=random), dim=1)


def moved(adapter: Adapter) -> Adapter:
    """Terms as they might be after training."""
    random = torch.Generator().manual_seed(2)
    for parameter in adapter.parameters():
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=random)
    return adapter


@pytest.fixture
def files(tmp_path):
    """A generator's file, and an adapter to it."""
    torch.manual_seed(0)
    metadata = {"network": "wavsyncswap", "config": CONFIG, "recogniser": "r", "mel_lag": -1}
    metadata["geometry"] = geometry.GEOMETRY_ID
    save_weights(tmp_path / "g.safetensors", build("wavsyncswap", **CONFIG).state_dict(), metadata)
    base = load_generator(tmp_path / "g.safetensors", precision="fp32")
    state = moved(Adapter(network())).state()
    save_weights(tmp_path / "a.safetensors", state, {"network": "wavsyncswap_adapter", "base": base.digest})
    return tmp_path


def test_new_terms_change_nothing_and_can_be_switched_off():
    net = network()
    with torch.no_grad():
        expected = net(*inputs())
        adapter = Adapter(net, rank=4)
        assert (net(*inputs()) - expected).abs().max() < 1e-6
        moved(adapter)
        assert (net(*inputs()) - expected).abs().mean() > 1e-3
        with adapter.off():
            assert torch.equal(net(*inputs()), expected)


def test_merging_draws_what_the_terms_drew():
    net, merged = network(), network()
    adapter = moved(Adapter(net, rank=4))
    merge(merged, adapter.state(), "it")
    with torch.no_grad():
        assert (net(*inputs()) - merged(*inputs())).abs().max() < 1e-4
    assert not any("parametrizations" in name for name in merged.state_dict())


def test_only_the_terms_are_trained_and_the_file_is_small():
    net = network()
    adapter = Adapter(net)
    assert {id(p) for p in net.parameters() if p.requires_grad} == {id(p) for p in adapter.parameters()}
    assert sum(p.numel() for p in adapter.parameters()) * 4 < 2e6


def test_other_values_are_held_only_inside():
    adapter = moved(Adapter(network()))
    before = adapter.state()
    with adapter.holding([torch.ones_like(p) for p in adapter.parameters()]):
        assert all((value == 1).all() for value in adapter.state().values())
    assert all(torch.equal(value, before[name]) for name, value in adapter.state().items())


def test_a_file_is_merged_by_the_loader_as_strongly_as_asked(files):
    def load(**options):
        return load_generator(files / "g.safetensors", precision="fp32", **options)

    plain, whole, none = (
        load(),
        load(adapter=files / "a.safetensors"),
        load(adapter=files / "a.safetensors", strength=0),
    )
    with torch.no_grad():
        pictures = [generator.network(*inputs()) for generator in (plain, whole, none)]
    assert torch.equal(pictures[0], pictures[2])
    assert (pictures[0] - pictures[1]).abs().mean() > 1e-3
    assert whole.metadata["adapter"]["file"] == "a.safetensors"
    expected = network()
    merge(expected, load_adapter(files / "a.safetensors")[0], "it")
    half = load_generator(files / "g.safetensors", precision="bf16", adapter=files / "a.safetensors")
    assert next(half.network.face_encoder.parameters()).dtype == torch.bfloat16


@pytest.mark.parametrize("inference", [False, True])
def test_it_is_merged_in_whatever_mode_the_weights_are_loaded(files, inference):
    """Hosts run nodes in inference mode, commands load weights outside of it."""
    with torch.inference_mode(inference):
        generator = load_generator(files / "g.safetensors", adapter=files / "a.safetensors")
    made = generator.generate(torch.rand(2, 3, 96, 96), torch.randn(2, 1, 80, 16), None)
    assert torch.isfinite(made).all()


def test_what_does_not_belong_is_one_error(files):
    other = load_generator("builtin", precision="fp32")
    with pytest.raises(ValueError, match="made for other weights .* Load the model it was made for"):
        apply_adapter(other, files / "a.safetensors")
    with pytest.raises(ValueError, match="holds wavsyncswap, not an adapter"):
        load_generator(files / "g.safetensors", adapter=files / "g.safetensors")
    strange = {"fuse.0.conv_block.0.weight.up": torch.ones(3, 2), "fuse.0.conv_block.0.weight.down": torch.ones(2, 3)}
    with pytest.raises(ValueError, match="no place for fuse"):
        merge(network(), strange, "it")
    own = Adapter(network()).state()
    name = next(name for name in own if name.endswith(".down"))
    for down in (own[name][1:], own[name].flatten(), None):
        torn = {key: value for key, value in {**own, name: down}.items() if value is not None}
        with pytest.raises(ValueError, match=f"it has no place for {name.removesuffix('down')}up"):
            merge(network(), torn, "it")
    save_weights(files / "nameless.safetensors", own, {"network": "wavsyncswap_adapter"})
    with pytest.raises(ValueError, match=r"other weights \(unknown\)"):
        apply_adapter(other, files / "nameless.safetensors")


def test_an_empty_adapter_is_a_file_too(files):
    digest = load_generator(files / "g.safetensors", precision="fp32").digest
    save_weights(files / "e.safetensors", {}, {"network": "wavsyncswap_adapter", "base": digest})
    assert read_metadata(files / "e.safetensors")["base"] == digest
    load_generator(files / "g.safetensors", precision="fp32", adapter=files / "e.safetensors")


def test_the_digest_is_that_of_the_file():
    assert load_generator("builtin", precision="fp32").digest.startswith("9ab8415d189ed048")

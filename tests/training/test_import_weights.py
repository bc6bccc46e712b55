"""`python -m training import`: every public layout, and what it says about files that are none."""

from __future__ import annotations

import zipfile

import pytest
import torch

from models import checkpoints
from models.checkpoints import load_weights, sha256_file
from models.generator import load_generator
from models.identity import load_recogniser
from models.known_files import KNOWN_FILES, KnownFile
from models.layouts import SIMSWAP_RECOGNISER
from models.networks import build
from tests.models.public_files import (
    CONTAINERS,
    Payload,
    random_network,
    save_public,
    save_simswap_module,
    simswap_module,
)
from tests.models.swapping import embedding
from training.__main__ import main
from training.import_weights import import_weights

NETWORKS = [
    ("wav2lip", {"width": 1 / 16}),
    ("simswap_224", {"width": 1 / 16}),
    ("simswap_512", {"width": 1 / 8}),
    ("simswap_arcface", {"width": 1 / 16, "dim": 32}),
    ("iresnet18", {"width": 1 / 16, "dim": 32}),
]


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_tensors(tmp_path, container):
    state = random_network("wav2lip", width=1 / 16).state_dict()
    source = save_public(tmp_path / "w.pth", state, container)
    assert main(["import", str(source)]) == 0
    found, metadata = load_weights(tmp_path / "w.safetensors")
    assert set(found) == set(state)
    for name, tensor in state.items():
        expected = tensor.half() if container == "half" and tensor.is_floating_point() else tensor
        assert torch.equal(found[name], expected)
    assert metadata["network"] == "wav2lip"
    assert metadata["source_sha256"] == sha256_file(source)
    assert metadata["channels"] == "BGR"


@pytest.mark.parametrize(("name", "config"), NETWORKS)
def test_every_network_is_recognised_and_can_be_built_from_its_file(tmp_path, capsys, name, config):
    source = save_public(tmp_path / "any.pth", random_network(name, **config).state_dict(), "flat")
    assert main(["import", str(source), "--output", str(tmp_path / "out.safetensors")]) == 0
    state, metadata = load_weights(tmp_path / "out.safetensors")
    assert metadata["network"] == name
    build(name, **metadata["config"]).load_state_dict(state)
    out = capsys.readouterr().out
    assert "by its tensors; not one of the public files on record" in out
    assert "put it into models/wavsyncswap" in out
    assert "licence: unknown" in out


def test_large_fixed_networks_are_recognised(tmp_path):
    for name in ("syncnet_expert", "wav2lip_disc_qual", "syncnet_v2"):
        source = save_public(tmp_path / f"{name}.pth", build(name).state_dict(), "module prefix")
        layout, _ = import_weights(source, tmp_path / "out.safetensors")
        assert layout.network == name


def test_a_public_file_is_known_by_its_content_whatever_it_is_called(tmp_path, monkeypatch, capsys):
    source = save_public(tmp_path / "renamed.pth", random_network("wav2lip", width=1 / 16).state_dict(), "flat")
    entry = KnownFile("wav2lip.pth", "Wav2Lip generator", "research", source.stat().st_size, sha256_file(source))
    monkeypatch.setattr(checkpoints, "KNOWN_FILES", (*KNOWN_FILES, entry))
    assert main(["import", str(source)]) == 0
    assert "by its SHA-256 the public wav2lip.pth" in capsys.readouterr().out
    assert load_weights(tmp_path / "renamed.safetensors")[1]["licence"] == "research"


def test_the_name_of_a_public_file_with_other_content_is_pointed_out(tmp_path, capsys):
    state = random_network("wav2lip", width=1 / 16).state_dict()
    assert main(["import", str(save_public(tmp_path / "wav2lip.pth", state, "flat"))]) == 0
    assert "its content is not that of the public wav2lip.pth" in capsys.readouterr().out


def test_the_flag_of_the_2022_trainer_is_kept(tmp_path, capsys):
    state = random_network("simswap_224", width=1 / 16).state_dict()
    source = save_public(tmp_path / "latest_net_G.pth", state, "flat")
    assert main(["import", str(source), "--io-norm"]) == 0
    config = load_weights(tmp_path / "latest_net_G.safetensors")[1]["config"]
    assert config == {"width": 1 / 16, "io_norm": True, "id_dim": 512}
    other = save_public(tmp_path / "wav2lip.pth", random_network("wav2lip", width=1 / 16).state_dict(), "flat")
    assert main(["import", str(other), "--io-norm"]) == 1
    assert "--io-norm is for SimSwap generators" in capsys.readouterr().err


def test_a_recogniser_keeps_its_id(tmp_path):
    state = random_network("iresnet18", width=1 / 16, dim=32).state_dict()
    source = save_public(tmp_path / "backbone.pth", state, "flat")
    import_weights(source, tmp_path / "backbone.safetensors")
    assert load_recogniser(tmp_path / "backbone.safetensors").id == load_recogniser(source).id


@pytest.mark.parametrize(("network", "identity"), [("wav2lip", None), ("simswap_224", embedding(SIMSWAP_RECOGNISER))])
def test_an_imported_generator_draws_what_the_original_draws(tmp_path, network, identity):
    source = save_public(tmp_path / "w.pth", random_network(network, width=1 / 8).state_dict(), "with optimizer")
    import_weights(source, tmp_path / "w.safetensors")
    original, imported = (load_generator(tmp_path / f"w.{kind}", precision="fp32") for kind in ("pth", "safetensors"))
    crops, mel = torch.rand(1, 3, 100, 100), torch.randn(1, 1, 80, 16)
    assert torch.equal(original.generate(crops, mel, identity), imported.generate(crops, mel, identity))
    assert imported.metadata["source"] == "w.pth"


@pytest.mark.parametrize("generation", ["2020", "2023"])
def test_simswaps_pickled_recogniser(tmp_path, monkeypatch, generation):
    module = simswap_module(monkeypatch, generation)
    source = save_simswap_module(tmp_path / "arcface_checkpoint.tar", module, legacy=generation == "2020")
    assert main(["import", str(source)]) == 0
    state, metadata = load_weights(tmp_path / "arcface_checkpoint.safetensors")
    assert metadata["id"] == "simswap-arcface"
    assert load_recogniser(tmp_path / "arcface_checkpoint.safetensors").id == load_recogniser(source).id
    assert all(torch.equal(state[name], tensor) for name, tensor in module.state_dict().items())


def test_a_payload_does_not_run(tmp_path, monkeypatch, capsys):
    target = tmp_path / "ran"
    state = random_network("wav2lip", width=1 / 16).state_dict()
    torch.save({"state_dict": state, "hook": Payload(target)}, tmp_path / "wav2lip.pth")
    module = simswap_module(monkeypatch, extra=Payload(target))
    save_simswap_module(tmp_path / "arcface_checkpoint.tar", module)
    for name in ("wav2lip.pth", "arcface_checkpoint.tar"):
        assert main(["import", str(tmp_path / name)]) == 1
        assert "could run code" in capsys.readouterr().err
    assert not target.exists()
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"", "an empty file"),
        (b"abc" * 100, "an unknown format"),
        (b"\0" * 257 + b"ustar" + b"\0" * 300, "a tar archive (unpack it)"),
    ],
)
def test_what_is_no_checkpoint_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "wav2lip.pth"
    path.write_bytes(content)
    assert main(["import", str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert "435,807,851 bytes" in error
    assert error.count("\n") == 1


def test_an_archive_of_checkpoints_is_to_be_unpacked(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "checkpoints.zip", "w") as archive:
        archive.writestr("people/latest_net_G.pth", b"x")
    assert main(["import", str(tmp_path / "checkpoints.zip")]) == 1
    assert "a zip archive of people/latest_net_G.pth (unpack it)" in capsys.readouterr().err


@pytest.mark.parametrize("container", ["flat", "flat legacy"])
def test_truncated_files(tmp_path, capsys, container):
    path = save_public(tmp_path / "w.pth", random_network("wav2lip", width=1 / 16).state_dict(), container)
    path.write_bytes(path.read_bytes()[:-3000])
    assert main(["import", str(path)]) == 1
    assert "w.pth is truncated or damaged" in capsys.readouterr().err


def test_unknown_and_incomplete_layouts(tmp_path, monkeypatch, capsys):
    torch.save({"encoder.weight": torch.zeros(2)}, tmp_path / "w.pth")
    assert main(["import", str(tmp_path / "w.pth")]) == 1
    assert "holds 1 tensors (encoder.weight, ...) of no network that is known here" in capsys.readouterr().err
    state = random_network("wav2lip", width=1 / 16).state_dict()
    del state["output_block.1.bias"]
    assert main(["import", str(save_public(tmp_path / "w.pth", state, "flat"))]) == 1
    assert "w.pth does not fit Wav2Lip: 1 missing (output_block.1.bias)" in capsys.readouterr().err
    detector = save_public(tmp_path / "d.pth", {"conv1_1.weight": torch.zeros(4, 3, 3, 3)}, "flat")
    entry = KnownFile("s3fd.pth", "S3FD face detector", "research", detector.stat().st_size, sha256_file(detector))
    monkeypatch.setattr(checkpoints, "KNOWN_FILES", (*KNOWN_FILES, entry))
    assert main(["import", str(detector)]) == 1
    assert "d.pth is the S3FD face detector, which nothing here needs converted" in capsys.readouterr().err
    (tmp_path / "w600k_r50.onnx").write_bytes(b"\x08\x07")
    assert main(["import", str(tmp_path / "w600k_r50.onnx")]) == 1
    assert "needs no conversion" in capsys.readouterr().err


def test_own_files_need_no_conversion_and_none_is_overwritten(tmp_path, capsys):
    state = random_network("wav2lip", width=1 / 16).state_dict()
    import_weights(save_public(tmp_path / "w.pth", state, "flat"), tmp_path / "w.safetensors")
    assert main(["import", str(tmp_path / "w.safetensors"), "--output", str(tmp_path / "v.safetensors")]) == 1
    assert "says what it is (wav2lip)" in capsys.readouterr().err
    checkpoints.save_weights(tmp_path / "bare.safetensors", state, {})
    assert main(["import", str(tmp_path / "bare.safetensors")]) == 1
    assert "is the file itself" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "bare.safetensors"), "--output", str(tmp_path / "v.safetensors")]) == 0

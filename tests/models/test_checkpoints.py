"""Weights files: round trips, damage, foreign formats, hostile content."""

from __future__ import annotations

import json
import os
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from models import checkpoints
from models.checkpoints import (
    bundled_path,
    identify,
    load_into,
    load_pickle_state,
    load_weights,
    read_metadata,
    save_weights,
    sha256_file,
    tensors_sha256,
)
from models.known_files import KNOWN_FILES, KnownFile

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.half": torch.ones(3).half(), "n": torch.tensor(7)}
METADATA = {
    "id": "test-v1",
    "config": {"width": 0.25, "blocks": [2, 2]},
    "steps": 12,
    "digits": "12",  # a string that looks like JSON stays a string
    "truth": "true",
    "quoted": '"x"',
    "none": None,
}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, STATE, METADATA)
    return path


def test_round_trip(saved):
    state, metadata = load_weights(saved)
    assert set(state) == set(STATE)
    for name, tensor in STATE.items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == tensor.dtype
    assert metadata == METADATA
    assert read_metadata(saved) == METADATA


def test_strings_stay_readable_to_other_programs(saved):
    from safetensors import safe_open

    with safe_open(saved, framework="pt") as file:
        header = file.metadata()
    assert header["id"] == "test-v1"
    assert json.loads(header["config"]) == METADATA["config"]


def test_views_and_shared_tensors_are_saved(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {"transposed": base.t(), "part": base[1:], "same": base}
    save_weights(tmp_path / "w.safetensors", state, {})
    loaded, metadata = load_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(loaded[k], v) for k, v in state.items())
    assert metadata == {}


def test_failed_save_leaves_the_old_file_and_no_rest(saved, monkeypatch):
    before = sha256_file(saved)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_weights(saved, {"b": torch.zeros(1)}, {})
    assert os.listdir(saved.parent) == [saved.name]
    assert sha256_file(saved) == before


def test_the_longest_name_that_a_file_may_have(tmp_path):
    path = tmp_path / f"{'n' * 243}.safetensors"
    save_weights(path, {"a": torch.ones(2)}, {})
    assert torch.equal(load_weights(path)[0]["a"], torch.ones(2))
    assert list(tmp_path.iterdir()) == [path]


def test_digest_depends_on_every_part():
    one = {"a": torch.zeros(4), "b": torch.ones(2)}
    digest = tensors_sha256(one)
    assert digest == tensors_sha256(dict(reversed(list(one.items()))))
    others = [
        {**one, "a": torch.zeros(2, 2)},
        {**one, "a": torch.zeros(4, dtype=torch.int32)},
        {"c": one["a"], "b": one["b"]},
        {**one, "b": torch.tensor([1.0, 2.0])},
    ]
    assert digest not in map(tensors_sha256, others)


def test_flipped_byte_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged"):
        load_weights(saved)


@pytest.mark.parametrize("keep", [4, 40, -20, -1])
def test_truncated_safetensors(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"weights.safetensors is (truncated or damaged|not a safetensors file)"):
        load_weights(saved)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        (b"\n  <html lang=en>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
        (b"", "an empty file"),
        (b"\x00\x01\x02\x03" * 9, "an unknown format"),
    ],
)
def test_other_content_is_named(tmp_path, content, kind):
    for name, load in [("w.pth", load_pickle_state), ("w.safetensors", load_weights), ("w.st", read_metadata)]:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name} is not a .* but {kind}"):
            load(path)


def test_web_page_under_a_known_name_tells_the_real_size(tmp_path):
    path = tmp_path / "wav2lip.pth"
    path.write_bytes(b"<!doctype html>login")
    with pytest.raises(ValueError, match=r"the public wav2lip.pth has 435,807,851 bytes"):
        load_pickle_state(path)


def test_missing_file_and_folder(tmp_path):
    for load in (load_weights, load_pickle_state, read_metadata, identify):
        with pytest.raises(ValueError, match="does not exist"):
            load(tmp_path / "none.safetensors")
        with pytest.raises(ValueError, match="is a folder"):
            load(tmp_path)


def test_checkpoint_as_safetensors_is_named(tmp_path):
    torch.save(STATE, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="but a PyTorch checkpoint"):
        load_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "optimizer": {"lr": 1.0}, "global_step": 3},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
        lambda s: {f"module.module.{k}": v for k, v in s.items()},
    ],
)
def test_public_checkpoints_are_unwrapped(tmp_path, wrap, new_format):
    torch.save(wrap(STATE), tmp_path / "w.pth", _use_new_zipfile_serialization=new_format)
    state = load_pickle_state(tmp_path / "w.pth")
    assert set(state) == set(STATE)
    assert torch.equal(state["a.weight"], STATE["a.weight"])


def test_safetensors_named_pth_loads(saved):
    path = saved.with_suffix(".pth")
    saved.rename(path)
    assert set(load_pickle_state(path)) == set(STATE)


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.98])
def test_truncated_checkpoint(tmp_path, new_format, part):
    path = tmp_path / "w.pth"
    torch.save({f"k{i}": torch.rand(50) for i in range(20)}, path, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ValueError, match="w.pth is truncated or damaged"):
        load_pickle_state(path)


class Payload:
    """What an attacker would save: an object whose loading runs a command."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj, 2))])
def test_hostile_checkpoint_does_not_run(tmp_path, save):
    target = tmp_path / "ran"
    save({"state_dict": {"a": Payload(str(target))}}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="could run code"):
        load_pickle_state(tmp_path / "w.pth")
    assert not target.exists()


def test_pickled_module_is_refused_with_a_remedy(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="Use a plain state dict"):
        load_pickle_state(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [([torch.zeros(1)], "a list"), (torch.zeros(1), "a Tensor"), ({"epoch": 3, "lr": 0.1}, "epoch, lr")],
)
def test_checkpoint_without_weights(tmp_path, content, found):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=found):
        load_pickle_state(tmp_path / "w.pth")


def test_load_into_reports_every_kind_of_fault_and_changes_nothing():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    state = {k: torch.ones_like(v) for k, v in before.items()}
    del state["1.weight"]
    state["0.bias"] = torch.ones(4)
    state["extra"] = torch.ones(1)
    with pytest.raises(ValueError) as caught:
        load_into(module, state, "w.pth")
    message = str(caught.value)
    assert "w.pth does not fit Sequential" in message
    assert "1 missing (1.weight)" in message
    assert "1 unexpected (extra)" in message
    assert "0.bias is [4] instead of [3]" in message
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


def test_load_into_casts_and_tolerates_missing_counters():
    module = nn.BatchNorm1d(3)
    state = {k: torch.full((3,), 2.0).half() for k in ("weight", "bias", "running_mean", "running_var")}
    load_into(module, state, "old file")
    assert module.weight.dtype == torch.float32
    assert torch.equal(module.running_var, torch.full((3,), 2.0))


def test_long_lists_are_cut():
    with pytest.raises(ValueError, match=r"50 unexpected \(k0, k1, k2, k3, \.\.\.\)"):
        load_into(nn.ReLU(), {f"k{i}": torch.zeros(1) for i in range(50)}, "x")


def test_bundled_path_names_what_is_there():
    with pytest.raises(RuntimeError, match=r"bundled weights nothing.safetensors are missing.*install it again"):
        bundled_path("nothing")


def test_identify_by_content(tmp_path, monkeypatch):
    path = tmp_path / "renamed.bin"
    path.write_bytes(bytes(np.arange(100, dtype=np.uint8)))
    assert identify(path) is None
    entry = KnownFile("original.pth", "test", "free", 100, sha256_file(path))
    monkeypatch.setattr(checkpoints, "KNOWN_FILES", (*KNOWN_FILES, entry))
    assert identify(path) is entry
    path.write_bytes(bytes(100))
    assert identify(path) is None


def test_registry_is_well_formed():
    for known in KNOWN_FILES:
        assert known.what
        assert known.licence
        assert set(known.sha256) <= set("0123456789abcdef")
        assert known.size is None or len(known.sha256) == 64

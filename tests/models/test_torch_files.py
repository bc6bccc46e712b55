"""The reader that runs nothing: names and shapes of any PyTorch file, SimSwap's pickled module, hostile content."""

from __future__ import annotations

import contextlib
import pickle
import tarfile

import numpy as np
import pytest
import torch
from torch import nn

from models.checkpoints import load_pickle_state, peek
from models.layouts import network_of, recognise
from models.networks import build
from models.torch_files import Inert, StoredTensor, module_tensors, read_contents, read_simswap_recogniser
from tests.models.public_files import (
    CONTAINERS,
    Payload,
    random_network,
    save_public,
    save_simswap_module,
    simswap_module,
)


@pytest.mark.parametrize("container", CONTAINERS)
def test_shapes_are_those_of_the_tensors(tmp_path, container):
    state = random_network("wav2lip", width=1 / 16).state_dict()
    path = save_public(tmp_path / "w.pth", state, container)
    assert peek(path)[0] == {name: tuple(tensor.shape) for name, tensor in state.items()}
    assert peek(path)[0] == {name: tuple(tensor.shape) for name, tensor in load_pickle_state(path).items()}


def test_names_and_shapes_need_no_numbers(tmp_path):
    """The old format keeps its numbers at the end: what comes before is enough."""
    path = save_public(tmp_path / "w.pth", {"a": torch.zeros(1000, 1000)}, "flat legacy")
    path.write_bytes(path.read_bytes()[:5000])
    assert peek(path)[0] == {"a": (1000, 1000)}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("generation", ["2020", "2023"])
def test_simswaps_pickled_recogniser(tmp_path, monkeypatch, generation, legacy):
    module = simswap_module(monkeypatch, generation)
    path = save_simswap_module(tmp_path / "arcface_checkpoint.tar", module, legacy)
    state = load_pickle_state(path)
    expected = module.state_dict()
    assert list(state) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor)
        assert state[name].dtype == tensor.dtype
    assert peek(path)[0] == {name: tuple(tensor.shape) for name, tensor in expected.items()}
    layout = recognise(peek(path)[0])
    assert layout.network == "simswap_arcface"
    build(layout.network, **layout.config).load_state_dict(state)


def test_of_a_training_checkpoint_only_the_recogniser_is_read(tmp_path, monkeypatch):
    """Its head over 90,000 people and the optimizer are several times as large."""
    module = simswap_module(monkeypatch, "2020")
    path = save_simswap_module(tmp_path / "arcface_checkpoint.tar", module, legacy=True)
    assert {"models ArcMarginModel", "torch.optim.sgd SGD", "models ResNet"} <= read_contents(path).classes
    read: list[int] = []
    monkeypatch.setattr(StoredTensor, "filled", lambda self, content: read.append(len(content)))
    read_simswap_recogniser(path)
    assert sum(read) == sum(tensor.nbytes for tensor in module.state_dict().values())


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("generation", ["2020", "2023"])
def test_payload_in_the_recogniser_does_not_run(tmp_path, monkeypatch, generation, legacy):
    target = tmp_path / "ran"
    module = simswap_module(monkeypatch, generation, extra=Payload(target))
    path = save_simswap_module(tmp_path / "arcface_checkpoint.tar", module, legacy)
    assert {name for name in read_contents(path).classes if "mkdir" in name}
    with pytest.raises(ValueError, match="could run code"):
        load_pickle_state(path)
    with pytest.raises(ValueError, match="not SimSwap's recogniser"):
        read_simswap_recogniser(path)
    assert not target.exists()


LEGACY_HEADER = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}))
CALLS = {  # the ways in which a pickle calls something, here os.mkdir; % is its argument
    "reduce": b"cos\nmkdir\n(%tR.",
    "reduce, name from the stack": b"\x8c\x02os\x8c\x05mkdir\x93(%tR.",
    "instance": b"(%ios\nmkdir\n.",
    "object": b"(cos\nmkdir\n%o.",
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("way", CALLS)
def test_no_opcode_calls_what_a_file_names(tmp_path, way):
    def program(folder: str) -> bytes:
        name = str(tmp_path / folder).encode()
        return b"\x80\x04" + CALLS[way].replace(b"%", b"X" + len(name).to_bytes(4, "little") + name)

    pickle.loads(program("trusted"))  # it would work
    assert (tmp_path / "trusted").exists()
    path = tmp_path / "w.pth"
    path.write_bytes(LEGACY_HEADER + program("ran") + pickle.dumps([], 2))
    for read in (read_contents, read_simswap_recogniser, peek, load_pickle_state, network_of):
        with contextlib.suppress(ValueError):
            read(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_payload_beside_a_state_dict_does_not_run(tmp_path, legacy):
    target = tmp_path / "ran"
    content = {"state_dict": {"a": torch.zeros(2)}, "note": Payload(target)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert peek(tmp_path / "w.pth")[0] == {"a": (2,)}  # looking is harmless ...
    with pytest.raises(ValueError, match="could run code"):  # ... and loading refuses
        load_pickle_state(tmp_path / "w.pth")
    assert not target.exists()


def test_a_tar_archive_cannot_pass_for_a_pickle(tmp_path):
    """Its first bytes are a name of the author's choice, and old archives have no magic number."""
    path = tmp_path / "w.pth"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("?storages"))
    content = bytearray(path.read_bytes())
    content[0:1], content[257:265], content[148:156] = b"\x80", bytes(8), b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)
    assert tarfile.is_tarfile(path)
    for read in (peek, load_pickle_state):
        with pytest.raises(ValueError, match="a tar archive"):
            read(path)


def test_a_pickle_cannot_change_the_stand_ins(tmp_path):
    """BUILD would set attributes of a class that is on the stack, for all files to come."""
    path = tmp_path / "w.pth"
    for argument in (b"}X\x05\x00\x00\x00stateK\x07s", b"N}X\x05\x00\x00\x00stateK\x07s\x86"):
        path.write_bytes(LEGACY_HEADER + b"\x80\x02cos\nsystem\n" + argument + b"b.")
        with pytest.raises(ValueError, match="no PyTorch file"):
            read_contents(path)
    assert Inert.state is None


# --- what merely lies in the folder must not stop the loader from listing it, nor the host ----------------------------


def test_a_module_inside_itself_ends(tmp_path, monkeypatch):
    module = simswap_module(monkeypatch)
    names = list(module.state_dict())
    module.layer1[0]._modules["back"] = module
    path = save_simswap_module(tmp_path / "a.tar", module)
    assert list(peek(path)[0]) == names
    assert network_of(path) == "simswap_arcface"


def test_modules_nested_ever_deeper_end(tmp_path, monkeypatch):
    module = simswap_module(monkeypatch)
    path = save_simswap_module(tmp_path / "a.tar", module, legacy=True)
    contents = read_contents(path)
    inner = contents.tree
    for _ in range(5000):  # more than Python's own stack
        outer = Inert()
        outer.state = {"_modules": {"m": inner}}
        inner = outer
    names = [name for name, _ in module_tensors(inner)]
    assert names == ["m." * 5000 + name for name in module.state_dict()]


@pytest.mark.parametrize("legacy", [False, True])
def test_a_dictionary_inside_itself_ends(tmp_path, legacy):
    content: dict = {"a": torch.zeros(2)}
    content["state_dict"] = {"model": content}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert peek(tmp_path / "w.pth")[0] == {"a": (2,)}
    assert set(load_pickle_state(tmp_path / "w.pth")) == {"a"}


def test_a_number_that_would_fill_the_memory_is_refused(tmp_path):
    """One damaged byte in the number of an object would make pickle build a table of many gigabytes."""
    content = pickle.dumps({"a": 1}, 2).replace(b"q\x00", b"r\xff\xff\xff\x7f")
    assert b"r\xff" in content
    (tmp_path / "w.pth").write_bytes(LEGACY_HEADER + content + pickle.dumps([], 2))
    with pytest.raises(ValueError, match="object number 2147483647"):
        read_contents(tmp_path / "w.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(("kind", "times"), [("zip", 100), ("legacy", 100), ("checkpoint of 2020", 8)])
def test_whatever_byte_is_damaged_ends_in_a_value_error_or_not_at_all(tmp_path, monkeypatch, kind, times):
    if kind == "checkpoint of 2020":
        path = save_simswap_module(tmp_path / "w.pth", simswap_module(monkeypatch, "2020"), legacy=True)
    else:
        state = {"features.weight": torch.zeros(2), "fc.bias": torch.zeros(3).half(), "n": torch.tensor(3)}
        path = save_public(tmp_path / "w.pth", state, "nested" if kind == "zip" else "with optimizer legacy")
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(0, min(len(whole), 3000), times):
        damaged = bytearray(whole)
        damaged[place] ^= random.integers(1, 256)
        path.write_bytes(damaged)
        assert isinstance(network_of(path), str)
        with contextlib.suppress(ValueError):
            load_pickle_state(path)


@pytest.mark.parametrize("part", [0.05, 0.5, 0.99])
@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_recogniser(tmp_path, monkeypatch, legacy, part):
    path = save_simswap_module(tmp_path / "a.tar", simswap_module(monkeypatch), legacy)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ValueError, match=r"truncated or damaged|could run code"):
        load_pickle_state(path)
    if part == 0.99:
        with pytest.raises(ValueError, match="truncated or damaged"):
            load_pickle_state(path)


def test_layouts_that_leave_their_storage_are_refused():
    content = bytes(4 * 6)

    def tensor(offset, shape, stride):
        return StoredTensor("0", torch.float32, offset, shape, stride)

    assert tensor(0, (2, 3), (3, 1)).filled(content).shape == (2, 3)
    assert tensor(5, (), ()).filled(content).shape == ()
    assert tensor(0, (0, 4), (4, 1)).filled(b"").shape == (0, 4)
    for bad in [(1, (2, 3), (3, 1)), (-1, (1,), (1,)), (0, (1 << 40,), (0,)), (5, (2,), (-1,)), (0, (7,), (1,))]:
        with pytest.raises(ValueError, match="does not fit"):
            tensor(*bad).filled(content)


def test_strided_and_half_precision_tensors(tmp_path, monkeypatch):
    module = simswap_module(monkeypatch)
    module.fc.weight = nn.Parameter(module.fc.weight.t().contiguous().t())
    module.half()
    state = load_pickle_state(save_simswap_module(tmp_path / "a.tar", module))
    assert state["fc.weight"].dtype == torch.float16
    assert torch.equal(state["fc.weight"], module.fc.weight)


def test_other_files_are_no_torch_files(tmp_path):
    path = tmp_path / "w.pth"
    for content in (b"", b"\x80\x02K\x01.", b"PK\x03\x04 and no archive"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="no PyTorch file, or a damaged one"):
            read_contents(path)

"""What is in a PyTorch file, read without running anything it may carry: an unpickler that knows only inert things.

For what `torch.load(weights_only=True)` cannot do: tell names and shapes from a few kilobytes of a file, and read
SimSwap's recogniser, which is published as a pickled module (specification section 3.8).
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

SIMSWAP_CLASSES = {f"models.arcface_models {name}" for name in ("ResNet", "IRBlock", "SEBlock")}
LIBRARY_CLASSES = ("torch.nn.", "torch device")  # layers, and the device a DataParallel remembers
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
PICKLE = "/data.pkl"  # in the zip archive of the new format, beside /data/0, /data/1, ...
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose numbers were not read: in which storage they are, and how they are laid out."""

    storage: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def filled(self, content: bytes) -> Tensor:
        """The tensor, out of the bytes of its storage.

        Raises:
            ValueError: the storage is smaller than the layout says.
        """
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.dtype)
        available = len(content) // self.dtype.itemsize
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        within = 0 <= self.offset <= last < available and min(self.stride, default=0) >= 0
        if not within or math.prod(self.shape) > available:
            raise ValueError(f"a tensor of {list(self.shape)} does not fit its storage of {available} numbers")
        return torch.frombuffer(bytearray(content), dtype=self.dtype).as_strided(self.shape, self.stride, self.offset)


class Inert:
    """Stands for an object of any other class: keeps the state it is given, and does nothing."""

    state: Any = None

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, item: object) -> None:
        """As an object that is a list would; the item is dropped."""

    def part(self, kind: str) -> dict[str, Any]:
        """One dictionary of the state, such as a module's "_buffers"; empty where there is none."""
        found = self.state.get(kind) if isinstance(self.state, dict) else None
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Contents:
    """What a PyTorch file holds.

    Attributes:
        tree: dictionaries, lists and plain values; `StoredTensor` and `Inert` in place of all else.
        classes: "module name" of everything that was asked for beyond a plain state dict.
    """

    tree: Any
    classes: frozenset[str]


def read_contents(path: Path) -> Contents:
    """Everything in a PyTorch file but the numbers; old and new format.

    Raises:
        ValueError: it is no PyTorch file, or a damaged one.
    """
    return _read(path, with_numbers=False)[0]


def other_zip(path: Path) -> list[str]:
    """Names of the files in a zip archive that is no PyTorch file; none for one that is, or whose end is missing."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return []
    return [] if any(name.endswith(PICKLE) for name in names) else names


def module_tensors(module: Inert, prefix: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, StoredTensor]]:
    """Parameters and buffers of a pickled `torch.nn.Module`, under the names its state dict would give them.

    A module that is found again, be it inside itself, is passed over.
    """
    seen = set() if seen is None else seen
    seen.add(id(module))
    for kind in ("_parameters", "_buffers"):
        for name, value in module.part(kind).items():
            if isinstance(value, StoredTensor):
                yield f"{prefix}{name}", value
    for name, child in module.part("_modules").items():
        if isinstance(child, Inert) and id(child) not in seen:
            yield from module_tensors(child, f"{prefix}{name}.", seen)


def simswap_module(contents: Contents) -> Inert | None:
    """SimSwap's recogniser in either of its generations: a bare module, or a dictionary with it under "model".

    None for anything else, be it a file of the same network that also asks for one class it should not need.
    """
    root = contents.tree.get("model") if isinstance(contents.tree, dict) else contents.tree
    foreign = {name for name in contents.classes - SIMSWAP_CLASSES if not name.startswith(LIBRARY_CLASSES)}
    return root if isinstance(root, Inert) and contents.classes & SIMSWAP_CLASSES and not foreign else None


def read_simswap_recogniser(path: Path) -> dict[str, Tensor]:
    """The tensors of SimSwap's arcface_checkpoint.tar, name -> CPU tensor.

    Raises:
        ValueError: the file is another, or damaged.
    """
    contents, storages = _read(path, with_numbers=True)
    module = simswap_module(contents)
    if module is None:
        raise ValueError(f"{path.name} is not SimSwap's recogniser.")
    try:
        return {name: tensor.filled(storages[tensor.storage]) for name, tensor in module_tensors(module)}
    except KeyError as error:
        raise ValueError(f"{path.name} lacks the numbers of storage {error}.") from error


class _Reader(pickle.Unpickler):
    """Turns tensors into `StoredTensor`s and everything unknown into `Inert`; nothing of the file's choice is called.

    The functions are made anew for each file: a pickle can set attributes of what it is handed.
    """

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.classes: set[str] = set()
        self.widths: dict[str, int] = {}  # storage -> bytes a number

    def find_class(self, module: str, name: str) -> Any:
        def rebuilt(storage: tuple[str, torch.dtype], offset: int, shape: Any, stride: Any, *_: object) -> StoredTensor:
            return StoredTensor(*storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))

        plain = {
            "collections OrderedDict": OrderedDict,
            "builtins set": set,
            "__builtin__ set": set,
            "torch._utils _rebuild_tensor": rebuilt,
            "torch._utils _rebuild_tensor_v2": rebuilt,
            "torch._utils _rebuild_parameter": lambda data, *_: data,
            **{f"torch {storage}": dtype for storage, dtype in STORAGES.items()},
        }
        asked = f"{module} {name}"
        if asked in plain:
            return plain[asked]
        self.classes.add(asked)
        return Inert

    def persistent_load(self, pid: Any) -> Any:
        if pid[0] == "module":  # a class together with its source text, in the old format
            return pid[1]
        _, dtype, key, *_ = pid
        if not isinstance(dtype, torch.dtype):
            raise ValueError("numbers of an unknown type")
        self.widths[str(key)] = dtype.itemsize
        return str(key), dtype


def _read(path: Path, with_numbers: bool) -> tuple[Contents, dict[str, bytes]]:
    """Contents, and the bytes of all storages where they are wanted."""
    try:
        with open(path, "rb") as file:
            return _read_zip(file, with_numbers) if file.peek(2)[:2] == b"PK" else _read_legacy(file, with_numbers)
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        raise ValueError(f"{path.name} is no PyTorch file, or a damaged one ({error}).") from error


def _read_zip(file: BinaryIO, with_numbers: bool) -> tuple[Contents, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        inside = next(name for name in archive.namelist() if name.endswith(PICKLE))
        with archive.open(inside) as pickled:
            reader = _Reader(pickled)  # type: ignore[arg-type]  # it has read and readline, all that is needed
            contents = Contents(reader.load(), frozenset(reader.classes))
        keys = reader.widths if with_numbers else ()
        return contents, {key: archive.read(f"{inside.removesuffix(PICKLE)}/data/{key}") for key in keys}


def _read_legacy(file: BinaryIO, with_numbers: bool) -> tuple[Contents, dict[str, bytes]]:
    """Pickles of a magic number, protocol, machine, contents, names of storages; then each storage after its length."""
    if _Reader(file).load() != LEGACY_MAGIC:
        raise ValueError("it begins with another number")
    for _ in ("protocol", "machine"):
        _Reader(file).load()
    reader = _Reader(file)
    contents = Contents(reader.load(), frozenset(reader.classes))
    storages: dict[str, bytes] = {}
    for key in _Reader(file).load() if with_numbers else ():
        size = int.from_bytes(file.read(8), "little") * reader.widths[str(key)]
        storages[str(key)] = file.read(size)
    return contents, storages

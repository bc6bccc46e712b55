"""What is in a PyTorch file, read without running anything it may carry: an unpickler that knows only inert things.

For what `torch.load(weights_only=True)` cannot do: tell names and shapes from a few kilobytes of a file, and read
SimSwap's recogniser, which is published as a pickled module (specification section 3.8).
"""

from __future__ import annotations

import math
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import SEEK_CUR
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

# SimSwap's recogniser and its blocks, where they were in 2020 and where they are since 2023
SIMSWAP_CLASSES = {
    f"{module} {name}" for module in ("models", "models.arcface_models") for name in ("ResNet", "IRBlock", "SEBlock")
}
# What else is in its files: layers, the device a DataParallel remembers; in 2020 the head and optimizer of its training
LIBRARY_CLASSES = ("torch.nn.", "torch.optim.", "torch device")
HARMLESS = {"models ArcMarginModel", "collections defaultdict", "builtins dict", "__builtin__ dict"}
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


Wanted = Callable[[Contents], set[str]]  # which storages of a file are to be read


def read_contents(path: Path) -> Contents:
    """Everything in a PyTorch file but the numbers; old and new format.

    Raises:
        ValueError: it is no PyTorch file, or a damaged one.
    """
    return _read(path)[0]


def other_zip(path: Path) -> list[str]:
    """Names of the files in a zip archive that is no PyTorch file; none for one that is, or for a damaged one."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, RuntimeError, ValueError, struct.error):  # what damage in different places raises
        return []
    return [] if any(name.endswith(PICKLE) for name in names) else names


def module_tensors(module: Inert) -> Iterator[tuple[str, StoredTensor]]:
    """Parameters and buffers of a pickled `torch.nn.Module`, under the names its state dict would give them.

    A module that is found again, be it inside itself, is passed over.
    """
    waiting, seen = [("", module)], set[int]()
    while waiting:
        prefix, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        for kind in ("_parameters", "_buffers"):
            for name, value in module.part(kind).items():
                if isinstance(value, StoredTensor):
                    yield f"{prefix}{name}", value
        children = [(f"{prefix}{name}.", child) for name, child in module.part("_modules").items()]
        waiting += [(name, child) for name, child in reversed(children) if isinstance(child, Inert)]


def simswap_module(contents: Contents) -> Inert | None:
    """SimSwap's recogniser in either of its generations: a bare module, or a checkpoint with it under "model".

    None for anything else, be it a file of the same network that also asks for one class it should not need.
    """
    root = contents.tree.get("model") if isinstance(contents.tree, dict) else contents.tree
    foreign = {c for c in contents.classes - SIMSWAP_CLASSES - HARMLESS if not c.startswith(LIBRARY_CLASSES)}
    return root if isinstance(root, Inert) and contents.classes & SIMSWAP_CLASSES and not foreign else None


def read_simswap_recogniser(path: Path) -> dict[str, Tensor]:
    """The tensors of SimSwap's arcface_checkpoint.tar, name -> CPU tensor.

    Raises:
        ValueError: the file is another, or damaged.
    """
    contents, numbers = _read(path, _of_recogniser)
    module = simswap_module(contents)
    if module is None:
        raise ValueError(f"{path.name} is not SimSwap's recogniser.")
    try:
        return {name: tensor.filled(numbers[tensor.storage]) for name, tensor in module_tensors(module)}
    except KeyError as error:
        raise ValueError(f"{path.name} lacks the numbers of storage {error}.") from error


def _of_recogniser(contents: Contents) -> set[str]:
    """Storages of the recogniser alone: a checkpoint's head and optimizer are several times as large."""
    module = simswap_module(contents)
    return {tensor.storage for _, tensor in module_tensors(module)} if module else set()


class _Reader(pickle.Unpickler):
    """Turns tensors into `StoredTensor`s and everything unknown into `Inert`; nothing of the file's choice is called.

    The functions are made anew for each file: a pickle can set attributes of what it is handed.
    """

    def __init__(self, file: BinaryIO) -> None:
        _check_numbering(file)
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


def _check_numbering(file: BinaryIO) -> None:
    """Refuse a pickle that numbers an object higher than it has bytes: a table of that size would be made for it.

    Raises:
        ValueError: such a number; or what follows is no whole pickle.
    """
    start = file.tell()
    for opcode, number, position in pickletools.genops(file):
        if opcode.name in ("PUT", "LONG_BINPUT") and int(number or 0) > int(position or 0):
            raise ValueError(f"object number {number} after {position} bytes")
    file.seek(start)


def _read(path: Path, wanted: Wanted | None = None) -> tuple[Contents, dict[str, bytes]]:
    """Contents, and the bytes of those storages that are wanted."""
    try:
        with open(path, "rb") as file:
            return (_read_zip if file.peek(2)[:2] == b"PK" else _read_legacy)(file, wanted)
    except Exception as error:  # a damaged pickle fails in as many ways as there are opcodes
        raise ValueError(f"{path.name} is no PyTorch file, or a damaged one ({error}).") from error


def _read_zip(file: BinaryIO, wanted: Wanted | None) -> tuple[Contents, dict[str, bytes]]:
    with zipfile.ZipFile(file) as archive:
        inside = next(name for name in archive.namelist() if name.endswith(PICKLE))
        with archive.open(inside) as pickled:
            reader = _Reader(pickled)  # type: ignore[arg-type]  # it has read and readline, all that is needed
            contents = Contents(reader.load(), frozenset(reader.classes))
        folder = inside.removesuffix(PICKLE)
        return contents, {key: archive.read(f"{folder}/data/{key}") for key in (wanted(contents) if wanted else ())}


def _read_legacy(file: BinaryIO, wanted: Wanted | None) -> tuple[Contents, dict[str, bytes]]:
    """Pickles of a magic number, protocol, machine, contents, names of storages; then each storage after its length."""
    if _Reader(file).load() != LEGACY_MAGIC:
        raise ValueError("it begins with another number")
    for _ in ("protocol", "machine"):
        _Reader(file).load()
    reader = _Reader(file)
    contents = Contents(reader.load(), frozenset(reader.classes))
    numbers: dict[str, bytes] = {}
    left = wanted(contents) if wanted else set()
    for key in map(str, _Reader(file).load() if left else ()):
        size = int.from_bytes(file.read(8), "little") * reader.widths[key]
        if key in left:
            numbers[key] = file.read(size)
        else:
            file.seek(size, SEEK_CUR)
    return contents, numbers

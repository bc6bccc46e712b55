"""Weights in and out: safetensors with metadata, public pickles without their dangers, errors people can act on."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import secrets
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .known_files import KNOWN_FILES, KnownFile, named
from .torch_files import (
    StoredTensor,
    module_tensors,
    other_zip,
    read_contents,
    read_simswap_recogniser,
    simswap_module,
)

Metadata = dict[str, Any]
T = TypeVar("T")
DIGEST_KEY = "tensors_sha256"
_BUNDLED = Path(__file__).parent / "bundled"
_WRAPPERS = ("state_dict", "model", "net", "module", "expert")
_MOST_WRAPPERS = 8  # of one state dict; a pickle may also hold a dictionary that holds itself


def bundled_path(name: str) -> Path:
    """Path of weights that ship with the pack.

    Args:
        name: file name, with or without ".safetensors".

    Raises:
        RuntimeError: if the file is not there; the pack was copied incompletely.
    """
    path = _BUNDLED / (name if name.endswith(".safetensors") else f"{name}.safetensors")
    if not path.is_file():
        present = ", ".join(sorted(p.name for p in _BUNDLED.glob("*.safetensors"))) or "none"
        raise RuntimeError(
            f"The bundled weights {path.name} are missing from models/bundled (present: {present}). "
            "The pack is incomplete: install it again."
        )
    return path


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file as 64 lower-case hex digits, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def tensors_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, whatever order they are stored in."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def identify(path: str | os.PathLike[str]) -> KnownFile | None:
    """Recognise a public file by its content, whatever it is called.

    The file is hashed only when its size, or where none is published its name, matches a registered one.

    Returns:
        The registry's entry, or None.

    Raises:
        ValueError: if there is no such file.
    """
    path = _existing(path)
    size = path.stat().st_size
    likely = [k for k in KNOWN_FILES if k.sha256 and (k.size == size or (k.size is None and k is named(path)))]
    digest = sha256_file(path) if likely else ""
    return next((known for known in likely if digest.startswith(known.sha256)), None)


def save_weights(path: str | os.PathLike[str], state: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors as safetensors, whole or not at all.

    The file appears under its name only when complete, and carries a digest of its tensors that `load_weights` checks.

    Args:
        path: target; its folder must exist.
        state: name -> tensor of any device and layout.
        metadata: values that JSON can hold; strings stay readable in the file's header.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    header = {key: _encode(value) for key, value in {**metadata, DIGEST_KEY: tensors_sha256(tensors)}.items()}
    path = Path(path)
    partial = path.with_name(f".wavsyncswap-{secrets.token_hex(4)}.part")  # short: any name that a file may have works
    try:
        partial.write_bytes(save(tensors, header))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def load_weights(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], Metadata]:
    """Read a safetensors file.

    Returns:
        (state, metadata): CPU tensors by name; decoded metadata without the digest.

    Raises:
        ValueError: if the file is missing, truncated, damaged, or no safetensors file; says which.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = _existing(path)
    metadata, _ = _read_header(path)
    try:
        state = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(_damaged(path)) from error
    expected = metadata.pop(DIGEST_KEY, None)
    if expected is not None and expected != tensors_sha256(state):
        raise ValueError(_damaged(path))
    return state, metadata


def read_metadata(path: str | os.PathLike[str]) -> Metadata:
    """Metadata of a safetensors file; reads only its header.

    Raises:
        ValueError: as `load_weights`.
    """
    metadata, _ = _read_header(_existing(path))
    metadata.pop(DIGEST_KEY, None)
    return metadata


def load_any(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], Metadata]:
    """Tensors and metadata of a safetensors file, or the tensors of a public one and no metadata.

    Raises:
        ValueError: as `load_weights` and `load_pickle_state`.
    """
    if _kind(_existing(path)) == "safetensors":
        return load_weights(path)
    return load_pickle_state(path), {}


def peek(path: str | os.PathLike[str]) -> tuple[dict[str, tuple[int, ...]], Metadata]:
    """What `load_any` would give, with shapes in place of tensors, from a small part of the file.

    Raises:
        ValueError: as `load_any`, as far as that part shows it.
    """
    path = _existing(path)
    if (kind := _kind(path)) == "safetensors":
        metadata, shapes = _read_header(path)
        return shapes, metadata
    if kind != "pickle":
        raise ValueError(_not_a("PyTorch checkpoint", path, kind))
    contents = read_contents(path)
    module = simswap_module(contents)
    found = dict(module_tensors(module)) if module else _tensors(contents.tree, path, StoredTensor)
    return {_bare(name): tensor.shape for name, tensor in found.items()}, {}


def load_pickle_state(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read the tensors of a public .pth/.pt/.ckpt file without running any code it may carry.

    Training checkpoints are unwrapped ("state_dict", "model", ...), and every "module." of DataParallel is removed. Of
    pickled modules only SimSwap's recogniser is read, by `torch_files`.

    Returns:
        name -> CPU tensor.

    Raises:
        ValueError: if the file is missing, not a checkpoint, truncated, or holds other Python objects; says which.
    """
    path = _existing(path)
    kind = _kind(path)
    if kind == "safetensors":
        return load_weights(path)[0]
    if kind != "pickle":
        raise ValueError(_not_a("PyTorch checkpoint", path, kind))
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error).lower():
            raise ValueError(_damaged(path)) from error
        if state := _pickled_recogniser(path):
            return state
        raise ValueError(
            f"{path.name} holds Python objects besides tensors; they could run code on this machine, so it was not "
            "loaded. Use a plain state dict or a safetensors file of the same weights."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damage shows as errors of a dozen kinds
        raise ValueError(_damaged(path)) from error
    return _tensors(content, path, Tensor)


def _pickled_recogniser(path: Path) -> dict[str, Tensor]:
    """What `read_simswap_recogniser` reads; empty for another pickle."""
    try:
        contents = read_contents(path)
    except ValueError:
        return {}
    if simswap_module(contents) is None:
        return {}
    try:
        return {_bare(name): tensor for name, tensor in read_simswap_recogniser(path).items()}
    except ValueError as error:
        raise ValueError(_damaged(path)) from error


def load_into(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Copy a state into a module, all of it or nothing.

    Missing `num_batches_tracked` counters (files from before 2018) are no fault: evaluation does not use them.

    Args:
        module: receives the values, cast to its own types.
        state: name -> tensor.
        what: how to call the weights in an error, e.g. a file name.

    Raises:
        ValueError: lists missing, unexpected and differently shaped entries.
    """
    own = module.state_dict()
    counters = {key: value for key, value in own.items() if key.endswith("num_batches_tracked")}
    check_fit(module, state, what)
    module.load_state_dict({**counters, **state})


def check_fit(module: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Raise where `load_into` would; the module may be on the meta device."""
    own = module.state_dict()
    state = {**{k: v for k, v in own.items() if k.endswith("num_batches_tracked")}, **state}
    shapes = [
        f"{key} is {list(state[key].shape)} instead of {list(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    faults = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "other shape": shapes,
    }
    found = [f"{len(keys)} {kind} ({_some(keys)})" for kind, keys in faults.items() if keys]
    if found:
        raise ValueError(
            f"{what} does not fit {type(module).__name__}: {'; '.join(found)}. "
            "The file belongs to another network or to other settings."
        )


def _tensors(content: object, path: Path, kind: type[T]) -> dict[str, T]:
    """The state dict inside whatever a checkpoint's author wrapped around it."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(content, dict):
            break
        content = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), dict) and content[k]), content)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise ValueError(f"{path.name} holds a {found} instead of a state dict. Name a file that holds weights.")
    state = {_bare(str(k)): v for k, v in content.items() if isinstance(v, kind)}
    if not state:
        keys = _some([str(k) for k in content]) or "nothing"
        raise ValueError(f"{path.name} has no state dict: a dictionary of {keys}. Name one that holds weights.")
    return state


def _bare(name: str) -> str:
    """A tensor's name without what DataParallel puts before it."""
    return name.replace("module.", "")


def _existing(path: str | os.PathLike[str]) -> Path:
    path = Path(path)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {kind}; name a weights file.")
    return path


def _kind(path: Path) -> str:
    """What the first bytes say a file is."""
    with open(path, "rb") as file:
        head = file.read(512)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return "an empty file"
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "a web page (an error or login page saved by a failed download)"
    if text.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer (the real file was not downloaded)"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        return "safetensors"
    if head.startswith(b"PK\x03\x04") and (inside := other_zip(path)):
        return f"a zip archive of {_some(inside)} (unpack it)"
    # Before PyTorch 2.6 `torch.load(weights_only=True)` ran code out of tar archives, so none may pass for a pickle.
    if head[257:262] == b"ustar" or tarfile.is_tarfile(path):
        return "a tar archive (unpack it)"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "pickle"
    return "an unknown format"


def _read_header(path: Path) -> tuple[Metadata, dict[str, tuple[int, ...]]]:
    """Metadata, and the shapes of the tensors by name."""
    from safetensors import SafetensorError, safe_open

    if (kind := _kind(path)) != "safetensors":
        raise ValueError(_not_a("safetensors file", path, kind))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = {key: _decode(value) for key, value in (file.metadata() or {}).items()}
            names = file.keys()
            return metadata, {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise ValueError(_damaged(path)) from error


def _not_a(expected: str, path: Path, kind: str) -> str:
    kind = "a PyTorch checkpoint" if kind == "pickle" else kind
    return f"{path.name} is not a {expected} but {kind}. {_remedy(path)}"


def _damaged(path: Path) -> str:
    return f"{path.name} is truncated or damaged ({path.stat().st_size:,} bytes). {_remedy(path)}"


def _remedy(path: Path) -> str:
    known = named(path)
    if known is None or known.size is None or known.size == path.stat().st_size:
        return "Copy or download it again."
    return f"Copy or download it again: the public {path.name} has {known.size:,} bytes."


def _encode(value: object) -> str:
    """JSON, except that strings which JSON would read back as strings anyway stay bare."""
    return value if isinstance(value, str) and _decode(value) == value else json.dumps(value)


def _decode(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _some(names: Iterable[str], most: int = 4) -> str:
    names = list(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

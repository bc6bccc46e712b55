"""Files of `models/wavsyncswap`: which there are, what is in them, where new ones go. Lists are drawn up for widgets.

What lists files never raises: an error while the host draws up a node's widgets takes the node away.
"""

from __future__ import annotations

import functools
import logging
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

import folder_paths

log = logging.getLogger(__name__)

FOLDER = "wavsyncswap"
BUILTIN_MODEL = "builtin (small 96)"
# .tar is what SimSwap calls its pickled recogniser, .model what SyncNet is called
WEIGHTS = {".safetensors", ".onnx", ".pth", ".pt", ".tar", ".model"}
RESERVED = {"embeddings", "recognisers", "adapters"}  # subfolders

State = tuple[str, int, int]  # path, bytes and time of the last change of a file


def register_folder() -> None:
    """Make `models/wavsyncswap` known, keeping the places that the user's extra paths file gave it."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    try:
        os.makedirs(default, exist_ok=True)
    except OSError as error:
        log.warning("WavSyncSwap cannot make %s (%s); what ships with the pack works without it.", default, error)
    folder_paths.add_model_folder_path(FOLDER, default)
    # A folder known by its path only would list every file in it as a model.
    folder_paths.folder_names_and_paths[FOLDER] = (folder_paths.folder_names_and_paths[FOLDER][0], set(WEIGHTS))


def _listed() -> list[str]:
    """Names of all files, as the host lists them."""
    for _ in range(2):
        try:
            return folder_paths.get_filename_list(FOLDER)
        except OSError:  # the host remembers a folder that is gone, and would trip over it for ever
            folder_paths.filename_list_cache.pop(FOLDER, None)
    return []


def _paths(subfolder: str | None) -> dict[str, Path]:
    """Files by name, see `model_files`; links that lead nowhere are left out."""
    found = {}
    for name in _listed():
        parts = Path(name).parts
        first = parts[0] if len(parts) > 1 else None
        if first == subfolder or (subfolder is None and first not in RESERVED):
            found[name] = folder_paths.get_full_path(FOLDER, name)
    return {name: Path(path) for name, path in found.items() if path is not None}


def model_files(subfolder: str | None) -> list[str]:
    """Files of `models/wavsyncswap`, either of one subfolder or (None) those in none of the reserved subfolders."""
    return list(_paths(subfolder))


@functools.lru_cache(maxsize=512)
def _network_at(state: State) -> str:
    """`layouts.network_of`, once for each state of a file: widgets are drawn up again and again."""
    from ..models.layouts import network_of

    return network_of(state[0])


def files_of(networks: Collection[str]) -> list[str]:
    """Files of `models/wavsyncswap`, outside reserved subfolders, that hold one of these networks ("" = unknown)."""
    states = {name: file_state(path) for name, path in _paths(None).items()}
    return [name for name, state in states.items() if state is not None and _network_at(state) in networks]


def file_state(path: Path) -> State | None:
    """What changes whenever a file is replaced; None where there is no file."""
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_size, found.st_mtime_ns


def generator_choices() -> dict[str, tuple[str, ...]]:
    """Generators by shown name: the files of each; a Wav2Lip and a SimSwap file are also offered one after the other.

    A file of which nothing is known is offered, too: choosing it tells what is wrong with it.
    """
    talk, swap = files_of(["wav2lip"]), files_of(["simswap_224", "simswap_512"])
    rest = [name for name in files_of(["wavsyncswap", ""]) if not name.endswith(".onnx")]
    pairs = {f"{first} + {second}": (first, second) for first in talk for second in swap}
    return {BUILTIN_MODEL: (), **{name: (name,) for name in sorted([*rest, *talk, *swap])}, **pairs}


def generator_files(choice: str) -> list[Path]:
    """Paths of a choice of `generator_choices`, none for the built-in one.

    Raises:
        ValueError: a file is gone.
    """
    return [model_path(name) for name in generator_choices().get(choice, (choice,))]


def model_path(name: str) -> Path:
    """Full path of a file of `models/wavsyncswap`.

    Raises:
        ValueError: the file is gone.
    """
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        places = ", ".join(folder_paths.get_folder_paths(FOLDER))
        raise ValueError(
            f"'{name}' was not found in {places}. Put the file there, press R in the page and choose it again."
        )
    return Path(path)


def adapter_names() -> list[str]:
    """Choices of the adapter widget: files of `models/wavsyncswap/adapters`."""
    return model_files("adapters")


def adapter_folders() -> list[Path]:
    """Where adapters lie; new ones go into the first that can be written."""
    return [Path(place, "adapters") for place in folder_paths.get_folder_paths(FOLDER)]


def new_adapter_folder() -> Path:
    """The first of `adapter_folders` that can be written; it is made where it is not there.

    Raises:
        ValueError: none of them can.
    """
    refused = []
    for folder in adapter_folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):  # what permissions say is not the whole truth
                return folder
        except OSError as error:
            refused.append(f"{folder} ({error.strerror or error})")
    raise ValueError(
        f"There is no place for a new adapter; none of these folders can be written: {', '.join(refused)}. Make one of "
        "them writable, or name another place for wavsyncswap in the host's extra_model_paths.yaml."
    )

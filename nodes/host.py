"""What the nodes share of the host: socket types, schema, progress and interrupt, devices, folders."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io

CATEGORY = "WavSyncSwap"
FOLDER = "wavsyncswap"
BUILTIN = "builtin"
BUILTIN_MODEL = "builtin (small 96)"
# .tar is what SimSwap calls its pickled recogniser, .model what SyncNet is called
WEIGHTS = {".safetensors", ".onnx", ".pth", ".pt", ".tar", ".model"}

ModelSocket = io.Custom("WAVSYNCSWAP_MODEL")
MelSocket = io.Custom("MEL")
TrackSocket = io.Custom("FACE_TRACK")
EmbeddingSocket = io.Custom("FACE_EMBEDDING")

PREVIEW_SIDE = 512  # px of a preview's longer side

Progress = Callable[[int, int], None]


def schema(**keywords: Any) -> io.Schema:
    """`io.Schema` of this pack; keywords that the running host does not know yet are left out."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in {"category": CATEGORY, **keywords}.items() if name in known})


def advanced(widget: Any) -> Any:
    """Mark a widget as advanced: newer hosts fold it away, older ones show it."""
    widget.extra_dict["advanced"] = True
    return widget


def progress(share: tuple[float, float] = (0.0, 1.0)) -> Progress:
    """A `progress(done, total)` callable: moves the node's bar and raises when the user has pressed Cancel.

    Args:
        share: part of the bar that this piece of work fills.
    """
    bar = comfy.utils.ProgressBar(1000)
    low, high = share

    def step(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(round(1000 * (low + (high - low) * min(1.0, done / max(1, total)))), 1000)

    return step


def progress_with_pictures(share: tuple[float, float] = (0.0, 1.0)) -> Callable[[int, int, Any], None]:
    """As `progress`, for work that shows a picture now and then: uint8 [H, W, 3] RGB or None."""
    from PIL import Image

    bar = comfy.utils.ProgressBar(1000)
    low, high = share

    def step(done: int, total: int, picture: Any = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        shown = None if picture is None else ("JPEG", Image.fromarray(picture), PREVIEW_SIDE)
        bar.update_absolute(round(1000 * (low + (high - low) * min(1.0, done / max(1, total)))), 1000, shown)

    return step


def device() -> torch.device:
    """The device on which the host computes."""
    return comfy.model_management.get_torch_device()


def result(tensor: torch.Tensor) -> torch.Tensor:
    """Where and how the host wants tensors handed on."""
    management = comfy.model_management
    dtype = management.intermediate_dtype() if hasattr(management, "intermediate_dtype") else torch.float32
    return tensor.to(management.intermediate_device(), dtype)


def make_room(needed: int) -> None:
    """Ask the host to move models away until so many bytes of the computing device's memory are free."""
    comfy.model_management.free_memory(needed, device())


def adapter_names() -> list[str]:
    """Choices of the adapter widget: files of `models/wavsyncswap/adapters`."""
    return model_files("adapters")


def adapter_folders() -> list[Path]:
    """Where adapters lie; new ones go into the first."""
    return [Path(place, "adapters") for place in folder_paths.get_folder_paths(FOLDER)]


def free_memory() -> int:
    """Bytes of main memory free now."""
    return int(comfy.model_management.get_free_memory(torch.device("cpu")))


def register_folder() -> None:
    """Make `models/wavsyncswap` known, keeping the places that the user's extra paths file gave it."""
    default = os.path.join(folder_paths.models_dir, FOLDER)
    os.makedirs(default, exist_ok=True)
    folder_paths.add_model_folder_path(FOLDER, default)
    # A folder known by its path only would list every file in it as a model.
    folder_paths.folder_names_and_paths[FOLDER] = (folder_paths.folder_names_and_paths[FOLDER][0], set(WEIGHTS))


def model_files(subfolder: str | None) -> list[str]:
    """Files of `models/wavsyncswap`, either of one subfolder or (None) those in none of the reserved subfolders."""
    reserved = {"embeddings", "recognisers", "adapters"}
    files = []
    for name in folder_paths.get_filename_list(FOLDER):
        first = Path(name).parts[0] if len(Path(name).parts) > 1 else None
        if first == subfolder or (subfolder is None and first not in reserved):
            files.append(name)
    return files


@functools.lru_cache(maxsize=512)
def _network_at(path: Path, changed: int) -> str:
    """`layouts.network_of`, once for each state of a file: widgets are drawn up again and again."""
    from ..models.layouts import network_of

    return network_of(path)


def files_of(networks: Collection[str]) -> list[str]:
    """Files of `models/wavsyncswap`, outside reserved subfolders, that hold one of these networks ("" = unknown)."""
    paths = {name: folder_paths.get_full_path(FOLDER, name) for name in model_files(None)}
    here = {name: Path(path) for name, path in paths.items() if path is not None}
    return [name for name, path in here.items() if _network_at(path, path.stat().st_mtime_ns) in networks]


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


def insightface_roots() -> list[Path]:
    """Folders that may hold insightface packs: the host's `models/insightface` and the user's own."""
    if "insightface" in folder_paths.folder_names_and_paths:
        places = [Path(path) for path in folder_paths.get_folder_paths("insightface")]
    else:
        places = [Path(folder_paths.models_dir, "insightface")]
    return [*places, Path.home() / ".insightface"]


def packs() -> dict[str, Path]:
    """Insightface packs by name, in the order of `insightface_roots`."""
    from ..models.faces import find_packs

    return find_packs(insightface_roots())


def detector_names() -> list[str]:
    """Choices of every detector widget."""
    return [BUILTIN, *packs()]


def load_detector(name: str, threshold: float) -> Any:
    """The chosen face detector on the host's device.

    Raises:
        ValueError: no such detector.
    """
    from ..models import faces

    if name == BUILTIN:
        return faces.load_detector(BUILTIN, device=str(device()), threshold=threshold)
    found = packs()
    if name not in found:
        known = ", ".join([BUILTIN, *found])
        raise ValueError(
            f"There is no face detector '{name}'. Available: {known}. Put packs in models/insightface/models."
        )
    return faces.load_detector(str(found[name]), device=str(device()), threshold=threshold)


def recogniser_files() -> dict[str, Path]:
    """Recognition weights by shown name: those of `models/wavsyncswap`, then each insightface pack's recogniser."""
    from ..models.networks.arcface import DEPTHS

    names = [*model_files("recognisers"), *files_of([*DEPTHS, "simswap_arcface"])]
    files = {name: model_path(name) for name in names}
    for pack, detector in packs().items():
        for path in sorted(detector.parent.glob("*.onnx")):
            if path.stem.startswith(("w600k", "glint", "ms1m")):
                files[f"{pack}/{path.name}"] = path
    return files


def recogniser_names() -> list[str]:
    """Choices of every recogniser widget."""
    return [BUILTIN, *recogniser_files()]


def load_recogniser(name: str) -> Any:
    """The chosen recogniser on the host's device.

    Raises:
        ValueError: no such recogniser.
    """
    from ..models import identity

    if name == BUILTIN:
        return identity.load_recogniser(BUILTIN, device=str(device()))
    found = recogniser_files()
    if name not in found:
        known = ", ".join([BUILTIN, *found])
        raise ValueError(f"There is no recogniser '{name}'. Available: {known}. Put files in models/wavsyncswap.")
    return identity.load_recogniser(str(found[name]), device=str(device()))


def find_recogniser(identifier: str) -> Any:
    """The recogniser of an id, None where it is not here."""
    for name in recogniser_names():
        recogniser = load_recogniser(name)
        if recogniser.id == identifier:
            return recogniser
    return None


def recogniser_of(embedding: Any) -> Any:
    """The recogniser that an embedding (or None) was made with, else the built-in one.

    Raises:
        ValueError: the embedding's recogniser is not available.
    """
    if embedding is None:
        return load_recogniser(BUILTIN)
    if (recogniser := find_recogniser(embedding.recogniser)) is not None:
        return recogniser
    raise ValueError(
        f"The face embedding was made by recogniser '{embedding.recogniser}', which is not available here "
        f"(found: {', '.join(recogniser_names())}). Make the embedding again with ArcFace Embed."
    )

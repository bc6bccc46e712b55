"""Face detectors and recognisers to choose from: their names, the files behind them, and loading them."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import folder_paths

from . import folders, host

log = logging.getLogger(__name__)

BUILTIN = "builtin"


def insightface_roots() -> list[Path]:
    """Folders that may hold insightface packs: the host's `models/insightface` and the user's own."""
    if "insightface" in folder_paths.folder_names_and_paths:
        places = [Path(path) for path in folder_paths.get_folder_paths("insightface")]
    else:
        places = [Path(folder_paths.models_dir, "insightface")]
    return [*places, Path(os.path.expanduser("~"), ".insightface")]  # `Path.home` raises for a user without one


def packs() -> dict[str, Path]:
    """Insightface packs by name, in the order of `insightface_roots`."""
    from ..models.faces import find_packs

    return find_packs(insightface_roots())


def detector_names() -> list[str]:
    """Choices of every detector widget."""
    return [BUILTIN, *packs()]


def detector_state(name: str) -> folders.State | None:
    """What changes when a detector's file is replaced; None for the built-in one."""
    return None if name == BUILTIN or (path := packs().get(name)) is None else folders.file_state(path)


def detector_id(name: str) -> str:
    """A detector's name, and what is in its file; the built-in one's name alone.

    Raises:
        ValueError: its file cannot be read.
    """
    from ..models.checkpoints import sha256_file

    if (state := detector_state(name)) is None:
        return name
    try:
        return f"{name} {sha256_file(state[0])}"
    except OSError as error:
        raise ValueError(f"The face detector '{name}' cannot be read ({error}). Choose another.") from error


def load_detector(name: str, threshold: float) -> Any:
    """The chosen face detector on the host's device.

    Raises:
        ValueError: no such detector.
    """
    from ..models import faces

    if name == BUILTIN:
        return faces.load_detector(BUILTIN, device=str(host.device()), threshold=threshold)
    found = packs()
    if name not in found:
        known = ", ".join([BUILTIN, *found])
        raise ValueError(
            f"There is no face detector '{name}'. Available: {known}. Put packs in models/insightface/models."
        )
    return faces.load_detector(str(found[name]), device=str(host.device()), threshold=threshold)


def recogniser_files() -> dict[str, Path]:
    """Recognition weights by shown name: those of `models/wavsyncswap`, then each insightface pack's recogniser."""
    from ..models.networks.arcface import DEPTHS

    names = [*folders.model_files("recognisers"), *folders.files_of([*DEPTHS, "simswap_arcface"])]
    found = {name: folder_paths.get_full_path(folders.FOLDER, name) for name in names}
    files = {name: Path(path) for name, path in found.items() if path is not None}
    for pack, detector in packs().items():
        for path in sorted(detector.parent.glob("*.onnx")):
            if path.stem.startswith(("w600k", "glint", "ms1m")) and os.path.isfile(path):
                files[f"{pack}/{path.name}"] = path
    return files


def recogniser_names() -> list[str]:
    """Choices of every recogniser widget."""
    return [BUILTIN, *recogniser_files()]


def recogniser_state(name: str) -> folders.State | None:
    """What changes when a recogniser's file is replaced; None for the built-in one."""
    return None if name == BUILTIN or (path := recogniser_files().get(name)) is None else folders.file_state(path)


def load_recogniser(name: str) -> Any:
    """The chosen recogniser on the host's device.

    Raises:
        ValueError: no such recogniser.
    """
    from ..models import identity

    if name == BUILTIN:
        return identity.load_recogniser(BUILTIN, device=str(host.device()))
    found = recogniser_files()
    if name not in found:
        known = ", ".join([BUILTIN, *found])
        raise ValueError(f"There is no recogniser '{name}'. Available: {known}. Put files in models/wavsyncswap.")
    return identity.load_recogniser(str(found[name]), device=str(host.device()))


def find_recogniser(identifier: str) -> tuple[Any, list[str]]:
    """The recogniser of an id, None where it is not here; and which files could not be read on the way, and why.

    Only files that say they have this id are loaded.
    """
    from ..models import identity

    broken: list[str] = []
    for name, path in {BUILTIN: Path(BUILTIN), **recogniser_files()}.items():
        try:
            if identity.has_id(path, identifier):
                return load_recogniser(name), broken
        except (ValueError, RuntimeError, OSError) as error:  # another file may be the one
            log.warning("The recogniser %s is passed over: %s", name, error)
            broken.append(f"{name}: {error}")
    return None, broken


def recogniser_of(embedding: Any) -> Any:
    """The recogniser that an embedding (or None) was made with, else the built-in one.

    Raises:
        ValueError: the embedding's recogniser is not available.
    """
    if embedding is None:
        return load_recogniser(BUILTIN)
    recogniser, broken = find_recogniser(embedding.recogniser)
    if recogniser is not None:
        return recogniser
    unread = f" These could not be read: {'; '.join(broken)}" if broken else ""
    raise ValueError(
        f"The face embedding was made by recogniser '{embedding.recogniser}', which is not available here "
        f"(found: {', '.join(recogniser_names())}). Make the embedding again with ArcFace Embed.{unread}"
    )

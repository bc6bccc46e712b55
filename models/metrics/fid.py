"""FID as pytorch-fid computes it, and a distance of recogniser features that is not called so (spec section 6.3).

FID is FID with the Inception weights of 2015 only, which the user brings (pt_inception-2015-12-05-6726825d.pth).
Without them `recogniser_distance` is the same formula on face embeddings: it tells sets of faces apart, and compares
with no published number.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ..checkpoints import load_into, load_pickle_state, sha256_file
from ..networks import build
from ..networks.inception import FEATURES, FIDInception
from . import frechet
from .results import Collected, Result, arrays_of
from .subject import Chunk, Subject

SIDE = 299  # px
BATCH = 32


class InceptionFeatures:
    """The pooled 2048 numbers of FID's Inception.

    Args:
        network: with weights.
        name: see `PictureFeatures`.
    """

    dim = FEATURES

    def __init__(self, network: FIDInception, name: str) -> None:
        self.network, self.name = network.eval().requires_grad_(False), name

    @torch.inference_mode()
    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `PictureFeatures`; bilinear to 299 px without antialiasing, then to -1..1."""
        device = next(self.network.parameters()).device
        parts = []
        for part in torch.from_numpy(pictures).split(BATCH):
            levels = part.to(device).permute(0, 3, 1, 2).float() / 255
            resized = functional.interpolate(levels, (SIDE, SIDE), mode="bilinear", align_corners=False)
            parts.append(self.network(2 * resized - 1).cpu())
        return torch.cat(parts).numpy()


def load_inception(path: Path, device: str | torch.device = "cpu") -> InceptionFeatures:
    """Load FID's Inception from the public file or a safetensors file of the same keys.

    Raises:
        ValueError: the file is missing or damaged, or holds another network.
    """
    state = load_pickle_state(path)
    network = build("fid_inception")
    assert isinstance(network, FIDInception)
    load_into(network, state, path.name)
    return InceptionFeatures(network.to(device), f"FID-Inception {path.name} ({sha256_file(path)[:8]})")


def collect(subject: Subject) -> Collected:
    """Features of the face squares of result and reference, at each of the tools' sides."""
    inception = subject.tools.inception
    assert inception is not None
    none = np.empty((0, inception.dim), np.float32)
    parts = {f"{which}_{side}": [none] for which in ("made", "given") for side in subject.tools.sides}
    for chunk in subject.chunks():
        for which, frames in (("made", chunk.made), ("given", chunk.given)):
            assert frames is not None
            squares = list(subject.squares(frames, chunk))
            for side in subject.tools.sides if squares else ():
                parts[f"{which}_{side}"].append(inception(np.stack([subject.fitted(one, side) for one in squares])))
    arrays = {name: np.concatenate(features) for name, features in parts.items()}
    return Collected(arrays, f"{inception.name}, face square as PNG would hold it")


def combine(collected: Sequence[Collected]) -> Result:
    """FID over all pictures of all videos."""
    names = [name.removeprefix("made_") for name in collected[0].arrays if name.startswith("made_")]
    scores, notes = {}, []
    for side in names:
        made, given = arrays_of(collected, f"made_{side}"), arrays_of(collected, f"given_{side}")
        scores[f"fid_{side}"] = frechet.distance(frechet.normal(made), frechet.normal(given))
        notes.append(_count(f"at {side} px: {len(made)} generated and {len(given)} true pictures", made))
    return Result(scores, collected[0].method, tuple(notes))


def collect_recognised(subject: Subject) -> Collected:
    """Embeddings of the faces of result and reference, where both show one."""
    recogniser = subject.tools.recogniser
    assert recogniser is not None
    made, given = [np.empty((0, recogniser.dim), np.float32)], [np.empty((0, recogniser.dim), np.float32)]
    for chunk in subject.chunks():
        assert chunk.given is not None
        rows = np.flatnonzero(_seen(subject, chunk))
        if len(rows):
            made.append(recogniser.embed_frames(chunk.made[rows], subject.track.landmarks[chunk.start + rows]))
            given.append(recogniser.embed_frames(chunk.given[rows], subject.place.landmarks[chunk.start + rows]))
    return Collected({"made": np.concatenate(made), "given": np.concatenate(given)}, f"recogniser {recogniser.id}")


def combine_recognised(collected: Sequence[Collected]) -> Result:
    """The Frechet distance of the embeddings of all videos; not an FID."""
    made, given = arrays_of(collected, "made"), arrays_of(collected, "given")
    value = frechet.distance(frechet.normal(made), frechet.normal(given))
    note = _count(f"{len(made)} faces each", made)
    return Result({"recogniser_distance": value}, collected[0].method, (note,))


def _seen(subject: Subject, chunk: Chunk) -> NDArray[np.bool_]:
    return subject.seen[chunk.start : chunk.start + len(chunk.made)]


def _count(found: str, features: NDArray) -> str:
    """The count, with a warning where it is too small for the covariance to have full rank."""
    least = features.shape[1]
    few = (
        f"; with {least} or fewer the number is far too high, and grows as they get fewer"
        if len(features) <= least
        else ""
    )
    return found + few

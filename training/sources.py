"""Source identities to train with: the people of the clips and the labelled stills."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import av
import numpy as np
import torch
from torch import Tensor

from models import geometry

from .batches import SourceBank, aligned_faces, arcface_matrix
from .clips import MARGIN, Clip, ClipSet
from .user_tables import read_table

FRAMES_PER_CLIP = 12


class Embedder(Protocol):
    """Whatever turns aligned faces [B, 3, 112, 112] RGB in [0, 1] into unit vectors [B, D]."""

    def embed(self, faces: Tensor, /) -> Tensor:
        """Differentiable with respect to the faces."""
        ...


def clip_vectors(data: ClipSet, clip: Clip, recogniser: Embedder, count: int = FRAMES_PER_CLIP) -> Tensor:
    """Identity vectors of evenly spaced frames of a clip, float32 [count, D] unit norm."""
    known = data.vectors.get((getattr(recogniser, "id", ""), clip.name))
    if known is not None and len(known) == count:
        return torch.from_numpy(known)
    rows = clip.start + np.linspace(0, clip.frames - 1, count).astype(int)
    pictures = torch.from_numpy(data.crops[rows]).permute(0, 3, 1, 2).float() / 255
    theta = torch.from_numpy(arcface_matrix()[:2] / (1 + 2 * MARGIN)).float().expand(count, 2, 3)
    with torch.inference_mode():
        return recogniser.embed(aligned_faces(pictures, theta))


def still_rows(folder: Path) -> list[dict[str, str]]:
    """The photographed and AI-made stills that a folder's manifest lists, paintings left out; none without a manifest.

    Raises:
        ValueError: the manifest cannot be read.
    """
    manifest = folder / "manifest.csv"
    rows = read_table(manifest, ("file", "kind", "kps5", "identity")) if manifest.is_file() else []
    return [row for row in rows if row["kind"] != "painting"]


def still_vectors(folder: Path, recogniser: Embedder) -> tuple[Tensor, list[str]]:
    """Identity vectors of `still_rows`, with their labels; none without stills: the clips' people are then all."""
    crops: list[np.ndarray] = []
    labels: list[str] = []
    for row in still_rows(folder):
        with av.open(str(folder / row["file"])) as container:
            picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
        points = np.array(row["kps5"].split(), np.float64).reshape(5, 2) + 0.5
        matrix = geometry.similarity_transform(points, geometry.ARCFACE_TEMPLATE / 112)
        crops.append(geometry.warp_crops(picture[None], matrix[None], 112)[0])
        labels.append(row["identity"])
    if not crops:
        return torch.empty(0), labels
    batch = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return torch.cat([recogniser.embed(part) for part in batch.split(32)]), labels


def source_bank(data: ClipSet, faces: Path, recogniser: Embedder, second: Embedder | None = None) -> SourceBank:
    """Identity vectors of all training clips and all stills, by one recogniser or two.

    Raises:
        ValueError: there are not two people to swap.
    """
    clips = data.training()

    def vectors(embedder: Embedder) -> tuple[Tensor, list[str]]:
        stills, labels = still_vectors(faces, embedder)
        known = [stills] if labels else []
        return torch.cat([*known, *(clip_vectors(data, clip, embedder) for clip in clips)]), labels

    first, labels = vectors(recogniser)
    labels += [clip.identity for clip in clips for _ in range(FRAMES_PER_CLIP)]
    if len(set(labels)) < 2:
        raise ValueError(
            f"There is only one person to train with ({', '.join(set(labels)) or 'nobody'}); swapping faces needs at "
            "least two. Add videos of other people, or stills of them in faces/."
        )
    return SourceBank(first, labels, None if second is None else vectors(second)[0])

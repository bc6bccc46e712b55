"""Who is it: recognisers, face embeddings, and the check that an embedding meets the model it was made for."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from . import warp
from .checkpoints import bundled_path, load_any, load_into, load_weights, peek, save_weights, sha256_file
from .geometry import ARCFACE_TEMPLATE, invert, similarity_transform, warp_crops
from .layouts import iresnet_blocks, recognise, shapes_of
from .networks import build
from .networks.arcface import DEPTHS, INPUT_SIZE

if TYPE_CHECKING:
    from .faces import Detector

log = logging.getLogger(__name__)

BUILTIN = "recogniser.safetensors"
UNIT_TEMPLATE = ARCFACE_TEMPLATE / INPUT_SIZE
_EMBEDDING_FORMAT = "wavsyncswap-face-embedding-v1"


@dataclass(frozen=True, eq=False)
class FaceEmbedding:
    """One person's identity, as one recogniser sees it.

    Attributes:
        vector: float32 [D], unit norm.
        recogniser: id of the network that made it; another network's vectors mean something else.
        quality: 0 (useless) to 1 (large, sharp, surely a face), see `picture_quality`.
        count: pictures averaged.

    Raises:
        ValueError: if the vector is no finite unit vector.
    """

    vector: NDArray[np.float32]
    recogniser: str
    quality: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        vector = np.array(self.vector, np.float32)
        norm = float(np.linalg.norm(vector)) if vector.ndim == 1 else float("nan")
        if not abs(norm - 1) < 1e-2:  # also true for NaN
            raise ValueError(
                f"An embedding is one unit vector [D]; got shape {list(vector.shape)} with norm {norm:.3g}."
            )
        object.__setattr__(self, "vector", vector)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file of a few kB."""
        metadata = {
            "format": _EMBEDDING_FORMAT,
            "recogniser": self.recogniser,
            "quality": float(self.quality),
            "count": int(self.count),
        }
        save_weights(path, {"embedding": torch.from_numpy(self.vector.copy())}, metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FaceEmbedding:
        """Read what `save` wrote.

        Raises:
            ValueError: if the file is missing, damaged, or holds something else.
        """
        state, metadata = load_weights(path)
        known = {"recogniser", "quality", "count"} <= metadata.keys()
        if metadata.get("format") != _EMBEDDING_FORMAT or set(state) != {"embedding"} or not known:
            raise ValueError(
                f"{Path(path).name} holds no face embedding of this pack. Choose one that was saved by it."
            )
        vector = state["embedding"].float().numpy()
        return cls(vector, str(metadata["recogniser"]), float(metadata["quality"]), int(metadata["count"]))


def check_embedding(embedding: FaceEmbedding, expected_id: str) -> None:
    """Refuse the embedding of another recogniser.

    Raises:
        ValueError: names both recognisers and the remedy.
    """
    if embedding.recogniser != expected_id:
        raise ValueError(
            f"The face embedding comes from recogniser '{embedding.recogniser}', but this model understands "
            f"'{expected_id}'. Embed the face again with '{expected_id}', or load a model trained with "
            f"'{embedding.recogniser}'."
        )


def average_embeddings(embeddings: Sequence[FaceEmbedding]) -> FaceEmbedding:
    """One identity from several pictures of a person; pictures of somebody else are left out.

    Again and again the picture least like the mean of all others is dropped, as long as its cosine to that mean lies
    far below the median of these cosines: by three (normalised) median deviations, at least 0.2 and at most 0.4. Two
    pictures cannot outvote each other, so three are needed, and more than half always remain. The rest is averaged by
    quality.

    Args:
        embeddings: at least one, all of one recogniser.

    Returns:
        The average; its `count` is the number of pictures that went in, so fewer than were given tells of outliers.

    Raises:
        ValueError: if there is none, recognisers differ, or vectors cancel out.
    """
    if not embeddings:
        raise ValueError("No face embedding to average; give at least one picture with a face.")
    for other in embeddings[1:]:
        check_embedding(other, embeddings[0].recogniser)
    vectors = np.stack([e.vector for e in embeddings]).astype(np.float64)
    kept = _inliers(vectors)
    if len(kept) < len(embeddings):
        dropped = sorted(set(range(len(embeddings))) - set(kept))
        log.warning("%d of %d pictures show somebody else, left out: %s", len(dropped), len(embeddings), dropped)
    weights = np.array([max(embeddings[i].quality, 0.05) * embeddings[i].count for i in kept])
    mean = (vectors[kept] * weights[:, None]).sum(0) / weights.sum()
    norm = np.linalg.norm(mean)
    if norm < 0.05:
        raise ValueError("These face embeddings have nothing in common; give pictures of one person.")
    quality = float(np.average([embeddings[i].quality for i in kept], weights=weights))
    vector = (mean / norm).astype(np.float32)
    return FaceEmbedding(vector, embeddings[0].recogniser, quality, sum(embeddings[i].count for i in kept))


def _inliers(vectors: NDArray[np.float64]) -> list[int]:
    kept = list(range(len(vectors)))
    while len(kept) > 2 and 2 * (len(kept) - 1) > len(vectors):
        others = vectors[kept].sum(0) - vectors[kept]
        cosines = (others * vectors[kept]).sum(1) / np.maximum(np.linalg.norm(others, axis=1), 1e-9)
        centre = np.median(cosines)
        spread = 1.4826 * np.median(np.abs(cosines - centre))
        worst = int(cosines.argmin())
        if centre - cosines[worst] < np.clip(3 * spread, 0.2, 0.4):
            break
        del kept[worst]
    return kept


class Recogniser:
    """A face recognition network and the way its input is prepared.

    Attributes:
        id: names the embedding space.
        network: aligned faces -> [B,D], not normalised; frozen, in evaluation mode.
        dim: D.
    """

    def __init__(self, identifier: str, network: nn.Module, dim: int, raw_input: bool = False) -> None:
        """Wrap a network.

        Args:
            identifier: see `id`.
            network: takes [B,3,112,112] RGB.
            dim: length of its output.
            raw_input: it expects 0..255 instead of [-1,1].
        """
        self.id, self.dim = identifier, dim
        self.network = network.eval().requires_grad_(False)
        self._scale, self._offset = (255.0, 0.0) if raw_input else (2.0, -1.0)

    @property
    def device(self) -> torch.device:
        """Where the network is now."""
        return next(self.network.parameters()).device

    def align(self, frames: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Faces as this recogniser wants them: frames [N,H,W,3], landmarks [N,5,2] pixels -> uint8 [N,112,112,3]."""
        return align_faces(frames, landmarks)

    def embed(self, crops112: Tensor) -> Tensor:
        """Embed aligned faces; differentiable with respect to them.

        Args:
            crops112: float [B,3,112,112] RGB in [0,1] on the network's device, see `align` and `aligned_crops_torch`.

        Returns:
            float32 [B,D], unit norm.
        """
        return functional.normalize(self.network(crops112 * self._scale + self._offset).float(), dim=1)

    def embed_frames(
        self, frames: NDArray[np.uint8], landmarks: NDArray[np.floating], batch: int = 32
    ) -> NDArray[np.float32]:
        """Embed one face in each frame.

        Args:
            frames: uint8 [N,H,W,3] RGB.
            landmarks: [N,5,2] frame pixels, order of `ARCFACE_TEMPLATE`.
            batch: faces in one forward pass.

        Returns:
            float32 [N,D], unit norm.

        Raises:
            ValueError: if the counts differ.
        """
        if len(frames) != len(landmarks):
            raise ValueError(f"Each frame needs its own landmarks; got {len(frames)} frames, {len(landmarks)} sets.")
        vectors = np.empty((len(frames), self.dim), np.float32)
        for start in range(0, len(frames), batch):
            part = slice(start, start + batch)
            vectors[part] = self._embed_aligned(self.align(frames[part], landmarks[part]))
        return vectors

    def embed_image(self, image: NDArray[Any], detector: Detector) -> FaceEmbedding:
        """Embed the largest face of a picture.

        Args:
            image: uint8, or float in [0,1]; [H,W], [H,W,1], [H,W,3] RGB or [H,W,4] RGBA.
            detector: finds the face.

        Raises:
            ValueError: if there is no face, or the array is no picture.
        """
        from .faces import largest_face

        picture = rgb_image(image)
        face = largest_face(picture, detector)
        crop = self.align(picture[None], face.landmarks[None])
        quality = picture_quality(crop[0], face.landmarks, face.score)
        return FaceEmbedding(self._embed_aligned(crop)[0], self.id, quality)

    @torch.inference_mode()
    def _embed_aligned(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2)
        return self.embed(pixels.to(next(self.network.parameters()).dtype) / 255).cpu().numpy()


def align_faces(frames: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Faces as most recognisers want them: frames [N,H,W,3], landmarks [N,5,2] pixels -> uint8 [N,112,112,3]."""
    return warp_crops(frames, similarity_transform(landmarks, UNIT_TEMPLATE), INPUT_SIZE)


def aligned_crops_torch(images: Tensor, matrices: NDArray[np.floating], size: int = INPUT_SIZE) -> Tensor:
    """Crops of float pictures, differentiable, on their device; bilinear, border repeated.

    Nothing is averaged when the crop shrinks, so faces far larger than `size` alias; `warp.crops` averages.

    Args:
        images: float [B,3,H,W], e.g. RGB in [0,1].
        matrices: [B,2,3] (or [1,2,3] for all) image pixels -> unit crop, as `similarity_transform` to a unit template.
        size: side of the crop in pixels.

    Returns:
        [B,3,size,size], type of the images.
    """
    where = warp.places(invert(np.asarray(matrices, np.float64)), (size, size), images.shape[-2:], images.device)
    return warp.sampled(images, where.to(images.dtype).expand(len(images), -1, -1, -1), "bilinear")


def rgb_image(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Any usual picture as uint8 [H,W,3] RGB; transparent parts become mid grey.

    Args:
        image: uint8, or float in [0,1] (clipped); [H,W], [H,W,1], [H,W,3] or [H,W,4].

    Raises:
        ValueError: if shape or type is another, or values are not finite.
    """
    image = np.asarray(image)
    shape = list(image.shape)
    image = image[..., None] if image.ndim == 2 else image
    usual = image.ndim == 3 and image.shape[2] in (1, 3, 4) and image.size > 0
    if not usual or not (image.dtype == np.uint8 or np.issubdtype(image.dtype, np.floating)):
        raise ValueError(
            f"A picture is uint8 or float [height, width] with 1, 3 or 4 channels; got {image.dtype} {shape}. "
            "Give one picture at a time."
        )
    if image.dtype != np.uint8:
        if not np.isfinite(image).all():
            raise ValueError("The picture holds values that are not finite numbers (NaN or infinity).")
        image = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    if image.shape[2] == 4:
        alpha = image[..., 3:].astype(np.float32) / 255
        image = np.rint(image[..., :3] * alpha + 128 * (1 - alpha)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))


def picture_quality(crop: NDArray[np.uint8], landmarks: NDArray[np.floating], score: float) -> float:
    """How much an embedding of this face can be trusted.

    Geometric mean of three numbers in [0,1]: the detection score; the face's size, as eye distance over the 35.2 px it
    has in the aligned crop; its sharpness, sqrt(v / 0.06), where v is the variance of the Laplacian over the variance
    of the grey crop (stills: v mostly above 0.06; blurred by 1 px: 0.02, by 2 px: 0.006).

    Args:
        crop: uint8 [112,112,3] aligned face.
        landmarks: [5,2] pixels of the picture it was cut from.
        score: of the detection, 0..1.
    """
    grey = crop.astype(np.float64) @ (0.299, 0.587, 0.114)
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * grey[1:-1, 1:-1]
    sharpness = np.sqrt(laplacian.var() / max(grey.var(), 25.0) / 0.06)
    size = np.linalg.norm(landmarks[1] - landmarks[0]) / np.linalg.norm(ARCFACE_TEMPLATE[1] - ARCFACE_TEMPLATE[0])
    return float(np.prod(np.clip([score, size, sharpness], 0, 1)) ** (1 / 3))


def load_recogniser(name: str | os.PathLike[str] = "builtin", device: str | torch.device = "cpu") -> Recogniser:
    """Load a recogniser, frozen and in evaluation mode.

    Args:
        name: "builtin", or the path of an IResNet as .pth or .safetensors (depth, width and dimension are read from its
            keys), of an insightface recogniser as .onnx, or of SimSwap's recogniser (arcface_checkpoint.tar too).
        device: where to put it.

    Raises:
        ValueError: if the file is missing, damaged, or no recogniser.
        RuntimeError: if the built-in weights, or the package that reads .onnx, are missing.
    """
    path = _path(name)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise ValueError(f"There is no recogniser file {path}.")
    if suffix == ".onnx":
        recogniser = _from_onnx(path)
    elif suffix in (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar"):
        recogniser = _from_state(path, *load_any(path))
    else:
        raise ValueError(f"A recogniser is an .onnx, .pth or .safetensors file; got {path.name}.")
    recogniser.network.to(device)
    return recogniser


def has_id(name: str | os.PathLike[str], identifier: str) -> bool:
    """Whether `load_recogniser` would give a recogniser of this id; the network is not loaded for it.

    Args:
        name: see `load_recogniser`.
        identifier: see `Recogniser`.

    Raises:
        ValueError: if the file is missing or damaged, as far as a small part of it shows.
        OSError: if it cannot be read.
    """
    path = _path(name)
    if path.suffix.lower() != ".onnx":
        shapes, metadata = peek(path)
        layout = recognise(shapes)
        if named := metadata.get("id") or (layout and layout.facts.get("id")):
            return str(named) == identifier
    # Hashing takes a while: only a file of the right name can have the id.
    return identifier.startswith(_file_prefix(path)) and file_id(path) == identifier


def _path(name: str | os.PathLike[str]) -> Path:
    return bundled_path(BUILTIN) if str(name) == "builtin" else Path(name)


def _from_onnx(path: Path) -> Recogniser:
    from .onnx_convert import load_onnx

    network = load_onnx(path)
    try:
        with torch.inference_mode():
            dim = network(torch.zeros(1, 3, INPUT_SIZE, INPUT_SIZE)).shape[1]
    except (RuntimeError, ValueError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"{path.name} is no face recogniser: its graph does not run on one aligned face.") from error
    return Recogniser(file_id(path), network, dim, network.raw_input)


def _from_state(path: Path, state: dict[str, Tensor], metadata: dict[str, Any]) -> Recogniser:
    layout = recognise(shapes_of(state))
    known = (*DEPTHS, "simswap_arcface")
    if "network" in metadata and metadata["network"] not in known:
        raise ValueError(f"{path.name} holds weights of '{metadata['network']}', not of a face recogniser.")
    if layout is None or layout.network not in known:
        depths = ", ".join(f"{name} {depths}" for name, depths in DEPTHS.items())
        raise ValueError(
            f"{path.name} is no IResNet recogniser (blocks found in its four stages: {iresnet_blocks(state)}; known: "
            f"{depths}). Use a backbone of insightface's arcface_torch, an .onnx file, or SimSwap's recogniser."
        )
    network, dim = build(layout.network, **layout.config), layout.config["dim"]
    load_into(network, state, path.name)
    if layout.network == "simswap_arcface":
        from .simswap_identity import SimSwapRecogniser

        return SimSwapRecogniser(network, dim, str(metadata.get("id") or layout.facts["id"]))
    return Recogniser(str(metadata.get("id") or file_id(path)), network, dim)


def file_id(path: Path) -> str:
    """Id of a recogniser that does not name itself."""
    return _file_prefix(path) + sha256_file(path)[:8]


def _file_prefix(path: Path) -> str:
    return f"insightface-{path.stem}-"

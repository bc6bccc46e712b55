"""Wav2Lip, SimSwap and the cascade of both behind the interface of `generator`, in the geometry of this pack.

Crop and paste are those of the pack's own network, so that a comparison shows the networks alone; the ways of the
original programs are in `upstream`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .checkpoints import load_into
from .generator import FaceGenerator
from .identity import FaceEmbedding
from .layouts import SIMSWAP_RECOGNISER
from .networks import build
from .networks.simswap import SimSwap
from .networks.wav2lip import SIDE as WAV2LIP_SIDE
from .networks.wav2lip import Wav2Lip
from .networks.wavsyncswap import mask_lower_half
from .regions import Region, Whole, region

MOST_PIXELS = 16 * 224 * 224  # of SimSwap's pictures at a time: its activations take some 1.5 GB for these


@dataclass
class Wav2LipSystem(FaceGenerator):
    """Lip sync alone: the target keeps its face. Its own frame is the reference, as in public use."""

    network: Wav2Lip
    region: Region | Whole

    @property
    def px(self) -> int:
        """See `FaceGenerator`; as many as leave the network's 96 in the face box."""
        return self.region.side_here(WAV2LIP_SIDE)

    @property
    def keeps_identity(self) -> bool:
        """It cannot do otherwise."""
        return True

    def check_identity(self, embedding: FaceEmbedding | None) -> None:
        """See `FaceGenerator.check_identity`."""
        if embedding is not None:
            raise ValueError(
                "Wav2Lip moves the lips and keeps the target's own face; it has no use for a source identity. Leave "
                "the face picture and the embedding out, or load Wav2Lip together with SimSwap."
            )

    def prepare(self, embedding: FaceEmbedding | None) -> None:
        """Nothing."""

    def draw(self, target: Tensor, reference: Tensor, windows: Tensor, prepared: None) -> Tensor:
        """See `FaceGenerator.draw`; `target` may have any size, `reference` is not looked at."""
        faces = in_order(self.region.cut(target, WAV2LIP_SIDE), self.metadata)
        made = self.network(*typed(self.network, windows, torch.cat([mask_lower_half(faces), faces], 1)))
        return self.region.put(in_order(made, self.metadata), target)


@dataclass
class SimSwapSystem(FaceGenerator):
    """Another identity; the lips stay the target's, whatever the sound.

    Attributes:
        side: px of the square that the network sees, 224 as published; divisible by 8 (16 for the 512 px layout).
    """

    network: SimSwap
    region: Region | Whole
    side: int

    @property
    def px(self) -> int:
        """See `FaceGenerator`."""
        return self.region.side_here(self.side)

    @property
    def keeps_identity(self) -> bool:
        """Swapping is all it does."""
        return False

    @property
    def hears(self) -> bool:
        """See `FaceGenerator`."""
        return False

    def check_identity(self, embedding: FaceEmbedding | None) -> None:
        """See `FaceGenerator.check_identity`."""
        if embedding is None:
            raise ValueError(
                "SimSwap puts in another identity and there is none. Give a picture of the source face or an "
                "embedding, or load Wav2Lip alone to move the lips only."
            )
        if self.recogniser == SIMSWAP_RECOGNISER and embedding.recogniser != self.recogniser:
            raise ValueError(
                f"The face embedding comes from recogniser '{embedding.recogniser}', but SimSwap understands its own "
                "alone. Choose arcface_checkpoint.tar (or simswap_arcface.pth) as the recogniser and embed again."
            )
        super().check_identity(embedding)

    def prepare(self, embedding: FaceEmbedding | None) -> list[Tensor]:
        """Styles of the identity."""
        assert embedding is not None  # `check_identity` came first
        vector = torch.as_tensor(embedding.vector, dtype=torch.float32)
        return self.network.styles(vector[None].to(self.device))

    def draw(self, target: Tensor, reference: Tensor, windows: Tensor, prepared: list[Tensor]) -> Tensor:
        """See `FaceGenerator.draw`; `target` may have any size, the others are not looked at."""
        faces = in_order(self.region.cut(target, self.side), self.metadata)
        parts = faces.split(max(1, MOST_PIXELS // self.side**2))
        made = torch.cat([self.network.modulated(part, prepared).clamp(0, 1) for part in parts])
        return self.region.put(in_order(made, self.metadata), target)


@dataclass
class Cascade(FaceGenerator):
    """One system after the other: first the lips, then the identity.

    Attributes:
        talk: draws the lips.
        swap: puts in the identity; sees what `talk` drew.
    """

    talk: Wav2LipSystem = field(repr=False)
    swap: SimSwapSystem = field(repr=False)

    @classmethod
    def of(cls, parts: Sequence[FaceGenerator]) -> Cascade:
        """Join two loaded systems, in either order.

        Raises:
            ValueError: they are not one Wav2Lip and one SimSwap.
        """
        talk, swap = (next((p for p in parts if isinstance(p, kind)), None) for kind in (Wav2LipSystem, SimSwapSystem))
        if len(parts) != 2 or not isinstance(talk, Wav2LipSystem) or not isinstance(swap, SimSwapSystem):
            found = " + ".join(str(part.metadata.get("network")) for part in parts)
            raise ValueError(f"Two files make a cascade if one is Wav2Lip and the other SimSwap; got {found}.")
        metadata = {"network": "cascade", "talk": talk.metadata, "swap": swap.metadata}
        both = nn.ModuleList([talk.network, swap.network])
        return cls(both, swap.recogniser, talk.mel_lag, metadata, talk, swap)

    @property
    def px(self) -> int:
        """See `FaceGenerator`."""
        return max(self.talk.px, self.swap.px)

    @property
    def keeps_identity(self) -> bool:
        """See `FaceGenerator`."""
        return False

    def check_identity(self, embedding: FaceEmbedding | None) -> None:
        """See `FaceGenerator.check_identity`."""
        self.swap.check_identity(embedding)

    def prepare(self, embedding: FaceEmbedding | None) -> list[Tensor]:
        """See `FaceGenerator.prepare`."""
        return self.swap.prepare(embedding)

    def draw(self, target: Tensor, reference: Tensor, windows: Tensor, prepared: list[Tensor]) -> Tensor:
        """See `FaceGenerator.draw`."""
        talking = self.talk.draw(target, reference, windows, None)
        return self.swap.draw(talking, reference, windows, prepared)


def in_order(pictures: Tensor, metadata: dict[str, Any]) -> Tensor:
    """RGB -> the channel order of a network, and back: the same flip."""
    return pictures.flip(1) if metadata.get("channels") == "BGR" else pictures


def typed(network: nn.Module, *tensors: Tensor) -> list[Tensor]:
    """Tensors in the number type of a network's weights."""
    dtype = next(network.parameters()).dtype
    return [tensor.to(dtype) for tensor in tensors]


def _wav2lip(name: str, state: dict[str, Tensor], metadata: dict[str, Any]) -> Wav2LipSystem:
    network = build("wav2lip", **metadata["config"])
    load_into(network, state, name)
    assert isinstance(network, Wav2Lip)
    return Wav2LipSystem(network, "", int(metadata["mel_lag"]), metadata, region(metadata["geometry"]))


def _simswap(name: str, state: dict[str, Tensor], metadata: dict[str, Any]) -> SimSwapSystem:
    network = build(metadata["network"], **metadata["config"])
    load_into(network, state, name)
    assert isinstance(network, SimSwap)
    place, side = region(metadata["geometry"]), int(metadata["px"])
    return SimSwapSystem(network, metadata["recogniser"], int(metadata["mel_lag"]), metadata, place, side)


SYSTEMS: dict[str, Callable[[str, dict[str, Tensor], dict[str, Any]], FaceGenerator]] = {
    "wav2lip": _wav2lip,
    "simswap_224": _simswap,
    "simswap_512": _simswap,
}

"""The systems that `benchmark inference` compares, with random weights: speed does not depend on what they say.

Each is made in the form in which it runs: those of this pack folded and in channels-last order, the cascade of the
public programs in float32, unfolded, one face at a time, with the styles computed for every face.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from models.generator import FaceGenerator, Generator
from models.geometry import GEOMETRY_ID
from models.identity import FaceEmbedding
from models.inference_form import inference_form
from models.layouts import SIMSWAP_FIVE, SIMSWAP_RECOGNISER, WAV2LIP_BOX
from models.networks.simswap import SimSwap
from models.networks.wav2lip import Wav2Lip
from models.networks.wavsyncswap import WavSyncSwap, mask_lower_half
from models.regions import region
from models.systems import Cascade, SimSwapSystem, Wav2LipSystem

from .config import load_recipe
from .evaluation.stand_ins import random_network
from .plan import multiply_adds

UPSTREAM, OURS, ALL_96 = "cascade upstream", "cascade ours", "cascade 96"
RECIPES = ("base-96", "small-96", "base-256", "small-256")
SYSTEMS = (UPSTREAM, OURS, ALL_96, "wav2lip", *RECIPES)
SIMSWAP_SIDE, DIM = 224, 512


@dataclass
class System:
    """One system in one number type on one device.

    Attributes:
        name: one of `SYSTEMS`.
        generator: the system behind the pack's interface.
        parameters: of its networks.
        macs: multiply-adds of one face, of the networks alone.
        embedding: a source identity that it takes, None for lips alone.
        upstream: it runs as the public programs run it.
    """

    name: str
    generator: FaceGenerator
    parameters: int
    macs: int
    embedding: FaceEmbedding | None
    upstream: bool = False

    def crops(self, count: int) -> Tensor:
        """Faces of noise as the pipeline has them, uint8 [count, 3, px, px]."""
        return torch.randint(0, 256, (count, 3, self.generator.px, self.generator.px), dtype=torch.uint8)

    def run(self, crops: Tensor, windows: Tensor, batch: int) -> Tensor:
        """New faces for crops: copies to and from the device included."""
        if not self.upstream:
            return self.generator.generate(crops, windows, self.embedding, crops, batch=batch)
        return torch.cat([self.resident(crops[i, None], windows[i, None])() for i in range(len(crops))])

    @torch.inference_mode()
    def resident(self, crops: Tensor, windows: Tensor) -> Callable[[], Tensor]:
        """One batch with everything on the device already: what is left is the network."""
        generator, device = self.generator, self.generator.device
        target, sound = generator.fit(crops.to(device)), windows.to(device)
        if not self.upstream:
            prepared = generator.prepare(self.embedding)

            def drawn() -> Tensor:
                with torch.inference_mode(), generator.tuned():
                    return generator.draw(target, target, sound, prepared)

            return drawn
        assert isinstance(generator, Cascade)
        talk, swap = generator.talk.network, generator.swap.network
        face = nn.functional.interpolate(target, (96, 96), mode="bilinear")
        large = nn.functional.interpolate(target, (SIMSWAP_SIDE, SIMSWAP_SIDE), mode="bilinear")
        assert self.embedding is not None
        identity = torch.from_numpy(self.embedding.vector)[None].to(device)

        def both() -> Tensor:
            with torch.inference_mode():
                talk(sound, torch.cat([mask_lower_half(face), face], 1))
                return swap(large, identity).float().cpu()

        return both


def system(name: str, dtype: torch.dtype, device: torch.device, compiled: bool = False) -> System:
    """Make one of `SYSTEMS`.

    Raises:
        ValueError: the name is unknown.
    """
    if name not in SYSTEMS:
        raise ValueError(f"The system {name!r} is unknown; choose among: {', '.join(SYSTEMS)}.")
    if name in RECIPES:
        made = _own(name)
    elif name == "wav2lip":
        made = _of_wav2lip(name)
    else:
        made = _cascade(name)
    generator = made.generator
    if made.upstream:
        generator.network.eval().requires_grad_(False).to(device)
        return made
    inference_form(generator.network, dtype)
    generator.network.to(device)
    if compiled:
        generator.compile()
    return made


def _own(name: str) -> System:
    width, px = name.split("-")
    recipe = load_recipe(f"{width}-96" if width == "small" else name, [])
    network = random_network("wavsyncswap", recipe.system.config(replace(recipe.model, px=int(px)), DIM))
    assert isinstance(network, WavSyncSwap)
    pair, mel = torch.rand(1, 6, network.px, network.px), torch.randn(1, 1, 80, 16)
    macs = multiply_adds(network, pair, mel, torch.randn(1, DIM))
    return System(name, Generator(network, "any", 0, {}), _count(network), macs, _identity("any"))


def _of_wav2lip(name: str) -> System:
    network = random_network("wav2lip", {})
    assert isinstance(network, Wav2Lip)
    macs = multiply_adds(network, torch.randn(1, 1, 80, 16), torch.rand(1, 6, 96, 96))
    return System(name, _talk(network, WAV2LIP_BOX), _count(network), macs, None)


def _cascade(name: str) -> System:
    first, second = random_network("wav2lip", {}), random_network("simswap_224", {})
    assert isinstance(first, Wav2Lip) and isinstance(second, SimSwap)
    side = 96 if name == ALL_96 else SIMSWAP_SIDE
    macs = multiply_adds(first, torch.randn(1, 1, 80, 16), torch.rand(1, 6, 96, 96))
    macs += multiply_adds(second, torch.rand(1, 3, side, side), torch.randn(1, DIM))
    geometry = GEOMETRY_ID if name == ALL_96 else SIMSWAP_FIVE
    swap = SimSwapSystem(second, SIMSWAP_RECOGNISER, 0, {"geometry": geometry}, region(geometry), side)
    talk = _talk(first, GEOMETRY_ID if name == ALL_96 else WAV2LIP_BOX)
    both = Cascade.of([talk, swap])
    identity = _identity(SIMSWAP_RECOGNISER)
    return System(name, both, _count(first) + _count(second), macs, identity, name == UPSTREAM)


def _talk(network: Wav2Lip, geometry: str) -> Wav2LipSystem:
    return Wav2LipSystem(network, "", 0, {"geometry": geometry}, region(geometry))


def _identity(recogniser: str) -> FaceEmbedding:
    vector = np.random.default_rng(0).standard_normal(DIM).astype(np.float32)
    return FaceEmbedding(vector / np.linalg.norm(vector), recogniser, 1.0, 1)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())

"""Random weights in place of files that cannot be had: they draw nonsense at exactly the real networks' cost.

In nonsense no detector finds the face again, and the second half of a cascade would have nothing to do. So random
Wav2Lip weights are run, and the face that went in is handed on.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from models import geometry
from models.checkpoints import save_weights
from models.generator import FaceGenerator
from models.identity import load_recogniser
from models.layouts import recognise, shapes_of
from models.networks import build
from models.systems import Cascade, Wav2LipSystem

from ..networks import MEL_LAG

SEED = 0


@dataclass(frozen=True)
class Kind:
    """A network of which there may be a stand-in: its name for `build`, and options."""

    network: str
    config: dict[str, Any] = field(default_factory=dict)


STAND_INS = {
    "wav2lip": Kind("wav2lip"),
    "simswap": Kind("simswap_224"),
    "simswap_arcface": Kind("simswap_arcface"),
    "base-96": Kind("wavsyncswap", {"width": "base", "px": 96}),
    "small-96": Kind("wavsyncswap", {"width": "small", "px": 96}),
    "base-256": Kind("wavsyncswap", {"width": "base", "px": 256}),
}


def stand_in(kind: str, folder: Path) -> Path:
    """A file of random weights, always the same ones; made when it is not there.

    Args:
        kind: one of `STAND_INS`.
        folder: made if need be.

    Raises:
        ValueError: another kind.
    """
    if kind not in STAND_INS:
        raise ValueError(f"There are no random weights of {kind!r}; choose random:{', random:'.join(STAND_INS)}.")
    path = folder / f"random-{kind}.safetensors"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    chosen = STAND_INS[kind]
    config, facts = dict(chosen.config), {}
    if chosen.network == "wavsyncswap":
        recogniser = load_recogniser("builtin")
        config["id_dim"] = recogniser.dim
        facts = {"geometry": geometry.GEOMETRY_ID, "recogniser": recogniser.id, "mel_lag": MEL_LAG}
    network = random_network(chosen.network, config)
    layout = recognise(shapes_of(network.state_dict()))
    known = {} if layout is None or layout.network == "wavsyncswap" else layout.metadata
    about = {**known, "network": chosen.network, **({"config": config} if facts else {}), **facts}
    save_weights(path, network.state_dict(), {**about, "weights": "random, for measuring speed"})
    return path


def random_network(name: str, config: dict[str, Any]) -> nn.Module:
    """Weights that keep the size of what passes: numbers near zero would be slower than real ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = build(name, **config)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
    return network.eval()


class HandedOn(nn.Module):
    """A Wav2Lip that is run, and the unmasked face of its input in place of what it draws."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor, pair: Tensor) -> Tensor:
        """As the network: [n, 1, 80, 16] and [n, 6, 96, 96] -> [n, 3, 96, 96]."""
        made: Tensor = self.network(windows, pair)
        return pair[:, 3:].to(made)


def face_handed_on(system: FaceGenerator) -> FaceGenerator:
    """A system whose random Wav2Lip, if it has one, hands the face on."""
    if isinstance(system, Cascade):
        talk = face_handed_on(system.talk)
        assert isinstance(talk, Wav2LipSystem)
        return replace(system, talk=talk)
    if isinstance(system, Wav2LipSystem):
        return replace(system, network=HandedOn(system.network))  # type: ignore[arg-type]  # is called alike
    return system

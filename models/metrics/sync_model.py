"""The networks that tell how well lips and sound go together: SyncNet v2, or a sync expert in its place.

Both turn 200 ms of lips and 200 ms of sound into vectors of one space. SyncNet v2's are not normalised and its
distances are the published LSE-D and LSE-C; an expert's are unit vectors, so its distances lie between 0 and 1.41 and
compare only with those of the same expert.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .. import geometry
from ..audio import mel_spectrogram, mel_windows
from ..checkpoints import bundled_path, load_any, load_into, sha256_file
from ..layouts import recognise, shapes_of
from ..mfcc import FULL_SCALE, mfcc
from ..networks import build
from ..networks.syncnet import WIDTH, SyncNetExpert, frames_to_expert
from ..networks.syncnet_v2 import FRAMES, MFCC_SHAPE, SIDE, SyncNetV2
from ..torch_files import read_contents

FPS = Fraction(25)
SAMPLES = 640  # of a frame, at 16 kHz
BUILTIN = "sync_expert"
BATCH = 16  # windows
GEOMETRIES = ("wide", "unit", "box")


class SyncModel(Protocol):
    """A pair of towers behind the metric.

    Attributes:
        name: of the network and its file, for reports.
        side: of the face pictures it takes, px.
        geometry: how faces are cut out of whole frames: "wide" = 2.8 half boxes (SyncNet), "unit" = this pack's upright
            crop, "box" = the detector's box (Wav2Lip).
    """

    name: str
    side: int
    geometry: str

    def lips(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces of consecutive frames at 25 fps, uint8 [n, side, side, 3] RGB -> one vector a window, [n - 4, D]."""
        ...

    def sound(self, samples: Tensor, windows: int) -> NDArray[np.float32]:
        """Mono sound at 16 kHz in [-1, 1], [T] -> vectors of the windows that begin at frames 0 .. n - 1, [n, D]."""
        ...


class SyncNet:
    """SyncNet v2 (spec 1.3, 3.7).

    Args:
        network: with weights.
        name: see `SyncModel`.
    """

    side, geometry = SIDE, "wide"

    def __init__(self, network: SyncNetV2, name: str) -> None:
        self.network, self.name = network.eval().requires_grad_(False), name

    @torch.inference_mode()
    def lips(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `SyncModel.lips`."""
        device = next(self.network.parameters()).device
        # Windows are views, [n - 4, 3, 5, H, W] BGR: only a batch of them is ever made into numbers.
        windows = torch.from_numpy(faces[..., ::-1].copy()).unfold(0, FRAMES, 1).permute(0, 3, 4, 1, 2)
        parts = [self.network.forward_lip(part.to(device).float()) for part in windows.split(BATCH)]
        return torch.cat(parts).cpu().numpy()

    @torch.inference_mode()
    def sound(self, samples: Tensor, windows: int) -> NDArray[np.float32]:
        """See `SyncModel.sound`."""
        device = next(self.network.parameters()).device
        levels = (samples * FULL_SCALE).round().clamp(-FULL_SCALE, FULL_SCALE - 1)  # as the 16 bit file it comes from
        columns = mfcc(levels).unfold(0, MFCC_SHAPE[1], 4)[:windows, None]
        return torch.cat([self.network.forward_aud(part.to(device)) for part in columns.split(256)]).cpu().numpy()


class Expert:
    """A sync expert of Wav2Lip's layout as a stand-in (spec 3.3).

    Args:
        network: with weights.
        name: see `SyncModel`.
        geometry: what its training faces were cut out like, "unit" or "box".
    """

    side = WIDTH

    def __init__(self, network: SyncNetExpert, name: str, geometry: str) -> None:
        self.network, self.name, self.geometry = network.eval().requires_grad_(False), name, geometry

    @torch.inference_mode()
    def lips(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See `SyncModel.lips`."""
        device = next(self.network.parameters()).device
        windows = torch.from_numpy(faces).unfold(0, FRAMES, 1).permute(0, 4, 3, 1, 2)
        parts = [
            self.network.embed_face(frames_to_expert(part.to(device).float() / 255)) for part in windows.split(BATCH)
        ]
        return torch.cat(parts).cpu().numpy()

    @torch.inference_mode()
    def sound(self, samples: Tensor, windows: int) -> NDArray[np.float32]:
        """See `SyncModel.sound`."""
        device = next(self.network.parameters()).device
        mel = mel_windows(mel_spectrogram(samples), windows, FPS)
        return torch.cat([self.network.embed_audio(part.to(device)) for part in mel.split(256)]).cpu().numpy()


def load_sync_model(path: Path | None = None, device: str | torch.device = "cpu") -> SyncModel:
    """Load a sync model, recognised by what the file holds.

    Args:
        path: SyncNet v2 (the public syncnet_v2.model), a sync expert of this project (exported, or a training run's
            .pt), Wav2Lip's lipsync_expert.pth, or a safetensors file of any of them; None = the bundled expert.
        device: where to put it.

    Raises:
        ValueError: the file is missing or damaged, or holds another network.
        RuntimeError: None was given and no expert is bundled.
    """
    path = path or bundled_expert()
    if path is None:
        raise RuntimeError(
            "No sync model was given and this version of the pack bundles none. Give the public syncnet_v2.model, or "
            "an expert of your own (python -m training syncnet, then export)."
        )
    state, metadata = load_any(path)
    layout = recognise(shapes_of(state))
    kind = layout.network if layout else ""
    name = f"{path.name} ({sha256_file(path)[:8]})"
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    if kind == "syncnet_v2":
        network = _filled("syncnet_v2", state, path).to(device)
        assert isinstance(network, SyncNetV2)
        return SyncNet(network, f"SyncNet v2 {name}")
    if kind == "syncnet_expert":
        assert layout is not None
        network = _filled("syncnet_expert", state, path, layout.config).to(device)
        assert isinstance(network, SyncNetExpert)
        ours = metadata.get("geometry") == geometry.GEOMETRY_ID or _from_our_trainer(path)
        return Expert(network, f"sync expert {name}", "unit" if ours else "box")
    found = layout.what if layout else metadata.get("network") or ", ".join(sorted(state)[:2])
    raise ValueError(
        f"{path.name} is no sync model: it holds {found}. Give the public syncnet_v2.model, or a sync expert exported "
        "by `python -m training export`."
    )


def bundled_expert() -> Path | None:
    """The expert that ships with the pack; None for versions without one."""
    try:
        return bundled_path(BUILTIN)
    except RuntimeError:
        return None


def _filled(
    network: str, state: Mapping[str, Tensor], path: Path, config: Mapping[str, Any] | None = None
) -> nn.Module:
    module = build(network, **(config or {}))
    load_into(module, state, path.name)
    return module


def _from_our_trainer(path: Path) -> bool:
    """Whether a pickle is a checkpoint of `training.syncnet`, which keeps it beside what trains it."""
    if path.suffix.lower() == ".safetensors":
        return False
    tree = read_contents(path).tree
    return isinstance(tree, dict) and "expert" in tree

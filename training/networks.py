"""The systems that can be trained: the pack's own network, and the two that it is compared with on equal footing.

All that they differ in is said here: what their networks are made with, what of a batch these are given, which losses
mean something to them, and what an exported file says about itself, so that `models.generator` opens it as it opens
the public ones. The trainer asks, and never looks which one it has.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from models import geometry
from models.networks import build
from models.networks.blocks import audio_tower
from models.networks.wav2lip import SIDE as WAV2LIP_SIDE
from models.networks.wavsyncswap import PRESETS, mask_lower_half

if TYPE_CHECKING:
    from models.identity import Recogniser

    from .config import ModelConfig, Recipe

MEL_LAG = -1  # the loader of `clips` cuts windows one frame early (spec A13)


class System(ABC):
    """One kind of generator, as the trainer sees it.

    Attributes:
        name: of it in a recipe, `model.system`.
        network: its name for `models.networks.build`.
        hears: sound goes in, through an audio tower that is taught beforehand and then frozen.
        swaps: an identity goes in.
        starts: can start from a weights file, see `warm_start`.
    """

    name: ClassVar[str]
    network: ClassVar[str]
    hears: ClassVar[bool] = True
    swaps: ClassVar[bool] = True
    starts: ClassVar[bool] = False

    @abstractmethod
    def config(self, model: ModelConfig, id_dim: int) -> dict[str, Any]:
        """Options of the network, for vectors of `id_dim` numbers."""

    @abstractmethod
    def tower(self, model: ModelConfig) -> nn.Sequential | None:
        """A fresh audio tower of the network's layout, mel [B, 1, 80, 16] -> [B, C, 1, 1]; None = it is deaf."""

    @abstractmethod
    def called(self, net: nn.Module) -> nn.Module:
        """The network behind the call of `WavSyncSwap`: (crops [B, 6, px, px], mel, identity) -> [B, 3, px, px]."""

    @abstractmethod
    def facts(self, model: ModelConfig, recogniser: Recogniser) -> dict[str, Any]:
        """What the metadata of its weights say beside network and options."""

    @abstractmethod
    def rules(self, recipe: Recipe) -> dict[str, bool]:
        """What a recipe has to keep to, each with whether it does."""

    def build(self, model: ModelConfig, id_dim: int) -> nn.Module:
        """The network with fresh weights."""
        return build(self.network, **self.config(model, id_dim))

    def seen(self, targets: Tensor) -> Tensor:
        """What it may see of targets [B, 3, px, px]: the upper half, the rest zero, as a copy."""
        return mask_lower_half(targets)

    def check_start(self) -> None:
        """Refuse to start from a file where nothing is known to fit.

        Raises:
            ValueError: says so.
        """
        if not self.starts:
            raise ValueError(
                f"--init starts the pack's own network only; with model.system={self.name} a run starts from noise. "
                "Leave --init out."
            )

    def metadata(self, model: ModelConfig, recogniser: Recogniser) -> dict[str, Any]:
        """What its weights say about themselves."""
        return {
            "network": self.network,
            "config": self.config(model, recogniser.dim),
            "geometry": geometry.GEOMETRY_ID,
            "mel_lag": MEL_LAG,
            **self.facts(model, recogniser),
        }


class Proposed(System):
    """Speech and identity in one pass."""

    name = network = "wavsyncswap"
    starts = True

    def config(self, model: ModelConfig, id_dim: int) -> dict[str, Any]:
        """See `System.config`."""
        return {key: value for key, value in asdict(model).items() if key != "system"} | {"id_dim": id_dim}

    def tower(self, model: ModelConfig) -> nn.Sequential:
        """See `System.tower`."""
        return audio_tower(PRESETS[model.width].audio_width)

    def called(self, net: nn.Module) -> nn.Module:
        """See `System.called`: itself."""
        return net

    def facts(self, model: ModelConfig, recogniser: Recogniser) -> dict[str, Any]:
        """See `System.facts`."""
        return {"recogniser": recogniser.id}

    def rules(self, recipe: Recipe) -> dict[str, bool]:
        """See `System.rules`."""
        return {"schedule.swapped is at least 1": recipe.schedule.swapped >= 1}


class Compared(System):
    """A public layout at the width of one of the pack's presets."""

    widths: ClassVar[dict[str, float]]

    def rules(self, recipe: Recipe) -> dict[str, bool]:
        """See `System.rules`."""
        model = recipe.model
        return {
            f"model.skips is none, model.blend and keep are false with model.system={self.name}, which has no such "
            f"options (the recipe {self.name}-mini is made for it)": (
                model.skips == "none" and not model.blend and not model.keep
            )
        }


class LipsAlone(Compared):
    """Wav2Lip: the target keeps its face, so nothing of an identity is given or judged."""

    name = network = "wav2lip"
    swaps = False
    widths: ClassVar = {"small": 0.5, "base": 1.0, "large": 1.5}

    def config(self, model: ModelConfig, id_dim: int) -> dict[str, Any]:
        """See `System.config`."""
        return {"width": self.widths[model.width]}

    def tower(self, model: ModelConfig) -> nn.Sequential:
        """See `System.tower`: Wav2Lip's has one block less, and as many channels at its end as the faces have."""
        width = self.widths[model.width]
        return audio_tower(width, round(512 * width), last_residuals=1)

    def called(self, net: nn.Module) -> nn.Module:
        """See `System.called`."""
        return _WithoutIdentity(net)

    def facts(self, model: ModelConfig, recogniser: Recogniser) -> dict[str, Any]:
        """See `System.facts`; the public files see BGR."""
        return {"channels": "RGB"}

    def rules(self, recipe: Recipe) -> dict[str, bool]:
        """See `System.rules`."""
        schedule, loss = recipe.schedule, recipe.loss
        return {
            **super().rules(recipe),
            f"model.px is {WAV2LIP_SIDE} with model.system=wav2lip": recipe.model.px == WAV2LIP_SIDE,
            "schedule.swapped, loss.identity, second_identity and low are 0 with model.system=wav2lip, which takes no "
            "identity": not any((schedule.swapped, loss.identity, loss.second_identity, loss.low)),
        }


class IdentityAlone(Compared):
    """SimSwap: it sees the whole target and hears nothing, so lips are neither hidden nor judged."""

    name, network = "simswap", "simswap_224"
    hears = False
    widths: ClassVar = {"small": 0.375, "base": 1.0, "large": 1.5}  # bottlenecks of 192, 512 and 768, as the presets

    def config(self, model: ModelConfig, id_dim: int) -> dict[str, Any]:
        """See `System.config`."""
        return {"width": self.widths[model.width], "io_norm": False, "id_dim": id_dim}

    def tower(self, model: ModelConfig) -> None:
        """See `System.tower`."""
        return None

    def called(self, net: nn.Module) -> nn.Module:
        """See `System.called`."""
        return _WithoutSound(net)

    def seen(self, targets: Tensor) -> Tensor:
        """See `System.seen`: all of them."""
        return targets

    def facts(self, model: ModelConfig, recogniser: Recogniser) -> dict[str, Any]:
        """See `System.facts`."""
        return {"channels": "RGB", "px": model.px, "recogniser": recogniser.id}

    def rules(self, recipe: Recipe) -> dict[str, bool]:
        """See `System.rules`."""
        return {
            **super().rules(recipe),
            "schedule.swapped is at least 1": recipe.schedule.swapped >= 1,
            "loss.lips and loss.sync are 0 with model.system=simswap, which hears nothing": (
                not recipe.loss.lips and not recipe.loss.sync
            ),
        }


SYSTEMS: dict[str, System] = {system.name: system for system in (Proposed(), LipsAlone(), IdentityAlone())}


class _WithoutIdentity(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, crops: Tensor, mel: Tensor, embedding: Tensor) -> Tensor:
        return self.net(mel, crops)


class _WithoutSound(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, crops: Tensor, mel: Tensor, embedding: Tensor) -> Tensor:
        return self.net(crops[:, :3], embedding)

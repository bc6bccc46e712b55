"""A loaded generator: weights, what they were trained with, and batched generation in inference form.

Every system sits behind one interface, `FaceGenerator`: the pack's own network here, the public ones in `systems`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from . import geometry
from .checkpoints import bundled_path, load_any, load_into
from .identity import FaceEmbedding, check_embedding
from .layouts import recognise, shapes_of
from .networks.blocks import Style
from .networks.wavsyncswap import WavSyncSwap, mask_lower_half

Net = TypeVar("Net", bound=nn.Module)
Name = str | Path

BUILTIN = "generator_small_96.safetensors"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class FaceGenerator(ABC):
    """A system ready to run on crops: any of speech, identity or both in, new faces out.

    Attributes:
        network: in inference form; the owner may move it between devices.
        recogniser: id of the recogniser whose embeddings it understands, "" where it takes none.
        mel_lag: frames by which mel windows are moved (spec A13).
        metadata: everything its file says about itself.
    """

    network: nn.Module
    recogniser: str
    mel_lag: int
    metadata: dict[str, Any]

    @property
    @abstractmethod
    def px(self) -> int:
        """Side of the generated crop in pixels."""

    @property
    @abstractmethod
    def keeps_identity(self) -> bool:
        """Whether it can keep the target's own face, given no identity."""

    @property
    def takes_identity(self) -> bool:
        """Whether it can put in another identity."""
        return bool(self.recogniser)

    @property
    def hears(self) -> bool:
        """Whether sound moves the lips."""
        return True

    @property
    def device(self) -> torch.device:
        """Where the network is now."""
        return next(self.network.parameters()).device

    def check_identity(self, embedding: FaceEmbedding | None) -> None:
        """Refuse what the weights were not trained for, before any work.

        Raises:
            ValueError: an embedding of another recogniser or where none is taken, or none for weights that cannot do
                without.
        """
        if embedding is not None:
            check_embedding(embedding, self.recogniser)
        elif not self.keeps_identity:
            raise ValueError(
                "There is no source identity, and this model cannot keep the target's own face. Give a "
                "picture of the source face or an embedding, or choose the built-in model."
            )

    @abstractmethod
    def prepare(self, embedding: FaceEmbedding | None) -> Any:
        """What an identity amounts to, computed once and not per frame; handed on to `draw`."""

    @abstractmethod
    def draw(self, target: Tensor, reference: Tensor, windows: Tensor, prepared: Any) -> Tensor:
        """One batch, everything on the network's device.

        Args:
            target: float32 [n, 3, px, px] RGB in [0, 1].
            reference: the same face, same shape.
            windows: float32 [n, 1, 80, 16] mel windows.
            prepared: what `prepare` returned.

        Returns:
            [n, 3, px, px] RGB in [0, 1].
        """

    @torch.inference_mode()
    def generate(
        self,
        crops: Tensor,
        windows: Tensor,
        embedding: FaceEmbedding | None,
        references: Tensor | None = None,
        batch: int = 16,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Generate new crops; N in = N out.

        Args:
            crops: float [N, 3, S, S] RGB in [0, 1], any S; brought to `px` by area averaging or bicubic interpolation.
            windows: float32 [N, 1, 80, 16] mel windows, one a crop.
            embedding: source identity; None = the target keeps its own face and only the lips are new.
            references: float [N or 1, 3, S', S'] pictures of the same face; None = each crop itself (spec A10).
            batch: crops a forward pass.
            progress: called with (done, N) after every batch; may raise to interrupt.

        Returns:
            float32 [N, 3, px, px] RGB in [0, 1] on the CPU.

        Raises:
            ValueError: counts differ, or the weights do not fit the identity, see `check_identity`.
        """
        if len(windows) != len(crops) or (references is not None and len(references) not in (1, len(crops))):
            found = f"{len(crops)} crops, {len(windows)} mel windows"
            raise ValueError(f"Each crop needs its own mel window and reference; got {found}. Cut them from one clip.")
        self.check_identity(embedding)
        device, prepared = self.device, self.prepare(embedding)
        result = torch.empty(len(crops), 3, self.px, self.px)
        for start in range(0, len(crops), batch):
            part = slice(start, start + batch)
            target = self.fit(crops[part].to(device))
            reference = target
            if references is not None:
                chosen = references if len(references) == 1 else references[part]
                reference = self.fit(chosen.to(device)).expand_as(target)
            result[part] = self.draw(target, reference, windows[part].to(device), prepared).float().cpu()
            if progress:
                progress(min(start + batch, len(crops)), len(crops))
        return result

    def fit(self, crops: Tensor) -> Tensor:
        """Crops [N, 3, S, S] brought to `px`, float32; area averaging or bicubic interpolation."""
        return resized(crops, self.px)


@dataclass
class Generator(FaceGenerator):
    """The pack's own network: speech and identity in one pass."""

    network: WavSyncSwap

    @property
    def px(self) -> int:
        """See `FaceGenerator`."""
        return self.network.px

    @property
    def keeps_identity(self) -> bool:
        """See `FaceGenerator`."""
        return self.network.keep

    def prepare(self, embedding: FaceEmbedding | None) -> list[Tensor]:
        """Styles of the identity, or those that keep the target's own."""
        if embedding is None:
            vector = torch.zeros(self.network.config["id_dim"])
        else:
            vector = torch.as_tensor(embedding.vector, dtype=torch.float32)
        return self.network.styles(vector[None].to(self.device))

    def draw(self, target: Tensor, reference: Tensor, windows: Tensor, prepared: list[Tensor]) -> Tensor:
        """See `FaceGenerator.draw`."""
        pair = torch.cat([mask_lower_half(target), reference], 1).contiguous(memory_format=torch.channels_last)
        dtype = next(self.network.face_encoder.parameters()).dtype
        return self.network.modulated(pair, windows.to(dtype), prepared)


def resized(crops: Tensor, side: int) -> Tensor:
    """Crops [N, 3, S, S] brought to `side`, float32; area averaging or bicubic interpolation."""
    if crops.shape[-1] == side and crops.shape[-2] == side:
        return crops.float()
    mode = "bilinear" if crops.shape[-1] > side else "bicubic"
    return nn.functional.interpolate(crops.float(), (side, side), mode=mode, antialias=True).clamp(0, 1)


def inference_form(network: Net, dtype: torch.dtype) -> Net:
    """Fold batch norms into their convolutions, freeze, convert; the styles' linear layers stay float32.

    Changes the network it is given and returns it; its state dict no longer has the training layout.
    """
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_norms(module)
    network.to(dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    for module in network.modules():
        if isinstance(module, Style):
            module.float()
    if isinstance(network, WavSyncSwap):
        network.style_projection.float()
    return network.requires_grad_(False)


def _fold_norms(layers: nn.Sequential) -> None:
    """Each batch norm becomes part of the convolution before it; numbers of layers stay."""
    for i, (conv, norm) in enumerate(pairwise(list(layers))):
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            transposed = isinstance(conv, nn.ConvTranspose2d)
            layers[i] = nn.utils.fusion.fuse_conv_bn_eval(conv, norm, transpose=transposed)
            layers[i + 1] = nn.Identity()


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Number type for a precision name; "auto" takes the fastest type the device computes in hardware.

    Raises:
        ValueError: the name is unknown.
    """
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        fast = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    if precision not in PRECISIONS:
        raise ValueError(f"Precision {precision!r} is unknown; choose auto, {', '.join(PRECISIONS)}.")
    return PRECISIONS[precision]


def load_generator(
    name: Name | Sequence[Name] = "builtin", device: str | torch.device = "cpu", precision: str = "auto"
) -> FaceGenerator:
    """Load a generator.

    Args:
        name: "builtin" (small, 96 px, shipped with the pack), or the path of a weights file: one of this project, or a
            Wav2Lip or SimSwap generator as it is published or imported. Two of these, a Wav2Lip and a SimSwap file,
            are the cascade of both.
        device: where to put it.
        precision: "auto", "fp32", "bf16" or "fp16".

    Raises:
        ValueError: the file is missing, damaged, no generator, or was trained with another crop geometry; or two files
            are no pair.
    """
    from .systems import SYSTEMS, Cascade

    device = torch.device(device)
    if not isinstance(name, str | Path):
        parts = [load_generator(part, device, precision) for part in name]
        return parts[0] if len(parts) == 1 else Cascade.of(parts)
    path = bundled_path(BUILTIN) if name == "builtin" else Path(name)
    state, metadata = load_any(path)
    layout = recognise(shapes_of(state))
    if layout and layout.network in SYSTEMS:
        metadata = layout.metadata | metadata
    make = {"wavsyncswap": _own, **SYSTEMS}.get(metadata.get("network", ""))
    if make is None:
        other = layout.what if layout and layout.network != "wavsyncswap" else "weights without metadata"
        raise ValueError(
            f"{path.name} holds {metadata.get('network', other)}, not a generator. Choose a file made by `python -m "
            "training`, wav2lip.pth or a SimSwap generator."
        )
    generator = make(path.name, {key: value.float() for key, value in state.items()}, metadata)
    generator.network = inference_form(generator.network, choose_dtype(precision, device)).to(device)
    return generator


def _own(name: str, state: dict[str, Tensor], metadata: dict[str, Any]) -> Generator:
    if metadata["geometry"] != geometry.GEOMETRY_ID:
        raise ValueError(
            f"{name} was trained on crops of geometry {metadata['geometry']!r}; this version cuts "
            f"{geometry.GEOMETRY_ID!r}. Update the pack or the weights."
        )
    network = WavSyncSwap(**metadata["config"])
    load_into(network, state, name)
    return Generator(network, metadata["recogniser"], int(metadata["mel_lag"]), metadata)

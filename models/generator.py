"""A loaded generator: weights, what they were trained with, and batched generation in inference form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import geometry
from .checkpoints import bundled_path, load_into, load_weights
from .identity import FaceEmbedding, check_embedding
from .networks.blocks import ConvBlock, Style, TransposedBlock
from .networks.wavsyncswap import WavSyncSwap, mask_lower_half

BUILTIN = "generator_small_96.safetensors"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Generator:
    """A generator ready to run.

    Attributes:
        network: WavSyncSwap in inference form; the owner may move it between devices.
        recogniser: id of the recogniser whose embeddings it understands.
        mel_lag: frames by which mel windows are moved (spec A13).
        metadata: everything its file says about itself.
    """

    network: WavSyncSwap
    recogniser: str
    mel_lag: int
    metadata: dict[str, Any]

    @property
    def px(self) -> int:
        """Side of the generated crop in pixels."""
        return self.network.px

    @property
    def device(self) -> torch.device:
        """Where the network is now."""
        return next(self.network.parameters()).device

    @property
    def keeps_identity(self) -> bool:
        """Whether it can keep the target's own face, given no identity."""
        return self.network.keep

    def check_identity(self, embedding: FaceEmbedding | None) -> None:
        """Refuse what the weights were not trained for, before any work.

        Raises:
            ValueError: an embedding of another recogniser, or none for weights that cannot do without.
        """
        if embedding is not None:
            check_embedding(embedding, self.recogniser)
        elif not self.keeps_identity:
            raise ValueError(
                "There is no source identity, and this model cannot keep the target's own face. Give a "
                "picture of the source face or an embedding, or choose the built-in model."
            )

    def _styles(self, embedding: FaceEmbedding | None) -> list[Tensor]:
        if embedding is None:
            vector = torch.zeros(self.network.config["id_dim"])
        else:
            vector = torch.as_tensor(embedding.vector, dtype=torch.float32)
        return self.network.styles(vector[None].to(self.device))

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
        """Generate talking, swapped crops; N in = N out.

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
        device, dtype = self.device, next(self.network.face_encoder.parameters()).dtype
        styles = self._styles(embedding)  # once per identity, not per frame
        result = torch.empty(len(crops), 3, self.px, self.px)
        for start in range(0, len(crops), batch):
            part = slice(start, start + batch)
            target = self.fit(crops[part].to(device))
            reference = target
            if references is not None:
                chosen = references if len(references) == 1 else references[part]
                reference = self.fit(chosen.to(device)).expand_as(target)
            pair = torch.cat([mask_lower_half(target), reference], 1).contiguous(memory_format=torch.channels_last)
            result[part] = self.network.modulated(pair, windows[part].to(device, dtype), styles).float().cpu()
            if progress:
                progress(min(start + batch, len(crops)), len(crops))
        return result

    def fit(self, crops: Tensor) -> Tensor:
        """Crops [N, 3, S, S] brought to `px`, float32; area averaging or bicubic interpolation."""
        if crops.shape[-1] == self.px and crops.shape[-2] == self.px:
            return crops.float()
        smaller = crops.shape[-1] > self.px
        size = (self.px, self.px)
        resized = nn.functional.interpolate(
            crops.float(), size, mode="bilinear" if smaller else "bicubic", antialias=True
        )
        return resized.clamp(0, 1)


def inference_form(network: WavSyncSwap, dtype: torch.dtype) -> WavSyncSwap:
    """Fold batch norms into their convolutions, freeze, convert; the styles' linear layers stay float32.

    Changes the network it is given and returns it; its state dict no longer has the training layout.
    """
    network.eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, ConvBlock | TransposedBlock):
            conv, norm = module.conv_block
            assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d)
            fused = nn.utils.fusion.fuse_conv_bn_eval(conv, norm, transpose=isinstance(module, TransposedBlock))
            module.conv_block = nn.Sequential(fused)
    network.to(dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    for module in network.modules():
        if isinstance(module, Style):
            module.float()
    network.style_projection.float()
    return network.requires_grad_(False)


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
    name: str | Path = "builtin", device: str | torch.device = "cpu", precision: str = "auto"
) -> Generator:
    """Load a generator.

    Args:
        name: "builtin" (small, 96 px, shipped with the pack) or the path of a safetensors file with our metadata.
        device: where to put it.
        precision: "auto", "fp32", "bf16" or "fp16".

    Raises:
        ValueError: the file is no WavSyncSwap generator, is damaged, or was trained with another crop geometry.
        FileNotFoundError: there is no such file.
    """
    path = bundled_path(BUILTIN) if name == "builtin" else Path(name)
    state, metadata = load_weights(path)
    if metadata.get("network") != "wavsyncswap":
        raise ValueError(
            f"{path.name} holds {metadata.get('network', 'weights without metadata')}, not a WavSyncSwap generator. "
            "Choose a file made by `python -m training`."
        )
    if metadata["geometry"] != geometry.GEOMETRY_ID:
        raise ValueError(
            f"{path.name} was trained on crops of geometry {metadata['geometry']!r}; this version cuts "
            f"{geometry.GEOMETRY_ID!r}. Update the pack or the weights."
        )
    network = WavSyncSwap(**metadata["config"])
    load_into(network, {key: value.float() for key, value in state.items()}, path.name)
    device = torch.device(device)
    network = inference_form(network, choose_dtype(precision, device)).to(device)
    return Generator(network, metadata["recogniser"], int(metadata["mel_lag"]), metadata)

"""Load WavSyncSwap Model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.model_patcher
from comfy_api.latest import io

from . import folders, host


@dataclass(frozen=True)
class LoadedModel:
    """What travels on a WAVSYNCSWAP_MODEL wire: a generator, the host's handle on its weights, and their files."""

    generator: Any
    patcher: comfy.model_patcher.ModelPatcher
    files: tuple[Path, ...]  # none = the built-in one
    precision: str

    def ready(self) -> Any:
        """The generator with its weights on the computing device; the host may move them away again afterwards."""
        # Whole or not at all: the layers are plain ones, which the host cannot stream piece by piece.
        comfy.model_management.load_models_gpu([self.patcher], force_full_load=True)
        return self.generator


def load(files: Sequence[Path], precision: str, adapter: Path | None = None, strength: float = 1.0) -> LoadedModel:
    """Read weights, merge an adapter into them, give them to the host's memory management.

    Args:
        files: a generator's, none for the built-in one.
        precision: a choice of the precision widget.
        adapter: adapter file.
        strength: of the adapter.

    Raises:
        ValueError: as `load_generator`.
    """
    from ..models.generator import load_generator

    management, device, chosen = comfy.model_management, host.device(), precision
    if precision == "auto" and device.type != "cpu":  # the host knows its user's wishes; on a CPU the engine measures
        half = "bf16" if management.should_use_bf16(device) else "fp32"
        chosen = "fp16" if management.should_use_fp16(device) else half
    offload = management.unet_offload_device()
    generator = load_generator(list(files) or "builtin", offload, chosen, adapter, strength)
    patcher = comfy.model_patcher.ModelPatcher(generator.network, load_device=device, offload_device=offload)
    return LoadedModel(generator, patcher, tuple(files), precision)


class LoadModel(io.ComfyNode):
    """A generator from the pack itself or from `models/wavsyncswap`."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_LoadModel",
            display_name="Load WavSyncSwap Model",
            description=(
                "Loads the network that draws the talking, swapped face. The built-in one needs no download; Wav2Lip"
                " and SimSwap weights in models/wavsyncswap work as they are."
            ),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=list(folders.generator_choices()),
                    default=folders.BUILTIN_MODEL,
                    tooltip=(
                        "Default: the built-in small network, 96 px faces. Further choices are the weights of"
                        " models/wavsyncswap, the public wav2lip.pth (lips alone) and SimSwap files among them; 'A + B'"
                        " runs Wav2Lip, then SimSwap. Press R after adding a file. More pixels give a sharper face and"
                        " take longer."
                    ),
                ),
                io.Combo.Input(
                    "precision",
                    options=["auto", "fp32", "bf16", "fp16"],
                    default="auto",
                    tooltip=(
                        "Number format of the computation. Default auto: fp16 or bf16 where the device is good at it, "
                        "otherwise fp32. fp32 is the reference; the half formats need half the memory."
                    ),
                ),
            ],
            outputs=[
                host.ModelSocket.Output(
                    display_name="model",
                    tooltip=(
                        "The network, for WavSyncSwap Generate and Talking Swap Video. The host offloads it when it"
                        " needs the memory."
                    ),
                )
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, precision: str) -> Any:
        """Load again when the file has changed."""
        return precision, model, [folders.file_state(path) for path in folders.generator_files(model)]

    @classmethod
    def execute(cls, model: str, precision: str) -> io.NodeOutput:
        """Read the weights and give them to the host's memory management."""
        return io.NodeOutput(load(folders.generator_files(model), precision))

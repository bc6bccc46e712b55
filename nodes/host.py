"""What the nodes share of the host: socket types, schema, progress and interrupt, devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import io

CATEGORY = "WavSyncSwap"

ModelSocket = io.Custom("WAVSYNCSWAP_MODEL")
MelSocket = io.Custom("MEL")
TrackSocket = io.Custom("FACE_TRACK")
EmbeddingSocket = io.Custom("FACE_EMBEDDING")

PREVIEW_SIDE = 512  # px of a preview's longer side

Progress = Callable[[int, int], None]


def schema(**keywords: Any) -> io.Schema:
    """`io.Schema` of this pack; keywords that the running host does not know yet are left out."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    return io.Schema(**{name: value for name, value in {"category": CATEGORY, **keywords}.items() if name in known})


def advanced(widget: Any) -> Any:
    """Mark a widget as advanced: newer hosts fold it away, older ones show it."""
    widget.extra_dict["advanced"] = True
    return widget


def progress(share: tuple[float, float] = (0.0, 1.0)) -> Progress:
    """A `progress(done, total)` callable: moves the node's bar and raises when the user has pressed Cancel.

    Args:
        share: part of the bar that this piece of work fills.
    """
    bar = comfy.utils.ProgressBar(1000)
    low, high = share

    def step(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(round(1000 * (low + (high - low) * min(1.0, done / max(1, total)))), 1000)

    return step


def progress_with_pictures(share: tuple[float, float] = (0.0, 1.0)) -> Callable[[int, int, Any], None]:
    """As `progress`, for work that shows a picture now and then: uint8 [H, W, 3] RGB or None."""
    from PIL import Image

    bar = comfy.utils.ProgressBar(1000)
    low, high = share

    def step(done: int, total: int, picture: Any = None) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        shown = None if picture is None else ("JPEG", Image.fromarray(picture), PREVIEW_SIDE)
        bar.update_absolute(round(1000 * (low + (high - low) * min(1.0, done / max(1, total)))), 1000, shown)

    return step


def device() -> torch.device:
    """The device on which the host computes."""
    return comfy.model_management.get_torch_device()


def result(tensor: torch.Tensor) -> torch.Tensor:
    """Where and how the host wants tensors handed on."""
    management = comfy.model_management
    dtype = management.intermediate_dtype() if hasattr(management, "intermediate_dtype") else torch.float32
    return tensor.to(management.intermediate_device(), dtype)


def make_room(needed: int) -> None:
    """Ask the host to move models away until so many bytes of the computing device's memory are free."""
    comfy.model_management.free_memory(needed, device())


def free_memory() -> int:
    """Bytes of main memory free now."""
    return int(comfy.model_management.get_free_memory(torch.device("cpu")))

"""Cutting a chunk's faces out and laying new ones in: with OpenCV, or on a graphics card in a few calls for all frames.

On a card frames go up once and come back once; crops and what the network makes of them stay there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import blend, blend_torch, geometry, warp
from .face_track import FaceTrack
from .memory import out_of_memory, parts, release, wait_for

T = TypeVar("T")

log = logging.getLogger(__name__)


class FaceWork:
    """The frames of a chunk on their way to new faces; those that do not show the face stay as they are.

    Attributes:
        there: int [m], which frames show the face.
    """

    def __init__(self, frames: NDArray[np.uint8], track: FaceTrack, device: torch.device) -> None:
        """Take a chunk.

        Args:
            frames: uint8 [n, H, W, 3] RGB; written to where they are nobody else's.
            track: the same n frames.
            device: the network's.
        """
        self.there = np.flatnonzero(track.present)
        self._frames, self._track, self._device = frames, track, device
        self._held: Tensor | None = None  # what shows the face, uint8 [m, 3, H, W] on the card

    def crops(self, size: int) -> Tensor:
        """The faces, uint8 [m, 3, size, size]; on the card where that goes on with them."""
        if in_torch(self._device):
            cut = self._tried(lambda: self._cut(size))
            if cut is not None:
                return cut
        crops = geometry.warp_crops(self._showing(), self._track.matrices[self.there], size)
        return as_pictures(crops)

    @property
    def device(self) -> torch.device:
        """Where new faces are wanted, once crops are made."""
        return torch.device("cpu") if self._held is None else self._held.device

    def pasted(self, faces: Tensor, feather: float, colour_match: str) -> NDArray[np.uint8]:
        """All frames with new faces, uint8 [n, H, W, 3].

        Args:
            faces: float32 [m, 3, S, S] RGB 0..1.
            feather: see `blend.paste_faces`.
            colour_match: see there.
        """
        if self._held is not None:
            new = self._tried(lambda: self._laid_in(faces, feather, colour_match))
            if new is not None:
                return new
        drawn = np.zeros((len(self._frames), *faces.shape[2:], 3), np.float32)
        drawn[self.there] = as_arrays(faces)
        result = self._own()
        blend.paste_into(result, drawn, self._track, feather, colour_match)
        return result

    def _tried(self, work: Callable[[], T]) -> T | None:
        """What the card makes, or None: its memory is too small, and from now on the chunk is OpenCV's."""
        try:
            with torch.inference_mode():
                return work()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            log.warning("Out of memory on %s: these %d frames are done without it.", self._device, len(self.there))
        self._held = None
        release(self._device)  # not while the failure holds on to its tensors
        return None

    def _own(self) -> NDArray[np.uint8]:
        flags = self._frames.flags
        return self._frames if flags.owndata and flags.writeable else self._frames.copy()

    def _showing(self) -> NDArray[np.uint8]:
        everywhere = len(self.there) == len(self._frames)  # then nothing is copied
        return self._frames if everywhere else self._frames[self.there]

    def _cut(self, size: int) -> Tensor:
        matrices = self._track.matrices[self.there]
        self._held = held = _uploaded(self._showing(), self._device)
        steps = parts(len(held), held.shape[2] * held.shape[3])
        return torch.cat([warp.crops(held[part], matrices[part], size).to(torch.uint8) for part in steps])

    def _laid_in(self, faces: Tensor, feather: float, colour_match: str) -> NDArray[np.uint8]:
        assert self._held is not None
        matrices = self._track.matrices[self.there]
        new = _downloaded(blend_torch.paste(self._held, faces, matrices, feather, colour_match=colour_match))
        if len(new) == len(self._frames):
            return new
        result = self._own()
        result[self.there] = new
        return result


def in_torch(device: torch.device) -> bool:
    """Whether a device cuts and pastes; on others (CPUs, and cards of which torch knows less) OpenCV does."""
    return device.type == "cuda"


def as_pictures(crops: NDArray[np.uint8]) -> Tensor:
    """uint8 [n, S, S, 3] -> uint8 [n, 3, S, S]: a quarter of what floats would take on the way to a device."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2)


def as_arrays(pictures: Tensor) -> NDArray:
    """[n, 3, S, S] on any device -> [n, S, S, 3] of the same numbers."""
    array: NDArray = pictures.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return array


def _uploaded(frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """uint8 [m, H, W, 3] -> uint8 [m, 3, H, W] on the device, in the order in memory that it had."""
    waiting = torch.empty(frames.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.copyto(waiting.numpy(), frames)
    return waiting.to(device, non_blocking=True).permute(0, 3, 1, 2)


def _downloaded(frames: Tensor) -> NDArray[np.uint8]:
    """uint8 [m, 3, H, W] -> uint8 [m, H, W, 3]; through pinned memory, several times as fast."""
    ordered = frames.permute(0, 2, 3, 1)
    result = torch.empty(ordered.shape, dtype=torch.uint8, pin_memory=frames.device.type == "cuda")
    result.copy_(ordered, non_blocking=True)
    wait_for(frames.device)
    array: NDArray[np.uint8] = result.numpy()
    return array

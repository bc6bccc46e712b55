"""Paste Back."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from . import host, values
from .widgets import blend_inputs


class PasteBack(io.ComfyNode):
    """Crops of any resolution laid back into their frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_PasteBack",
            display_name="Paste Back",
            description=(
                "Lays the faces back where they were cut out. Absent frames and every pixel outside the mask stay"
                " exactly as they were."
            ),
            inputs=[
                io.Image.Input("frames", tooltip="The frames that went into Face Crop."),
                io.Image.Input(
                    "crops", tooltip="One face per frame, any resolution: straight from Generate, or upscaled."
                ),
                host.TrackSocket.Input("track", tooltip="From Face Crop."),
                *blend_inputs(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Most that may be drawn at each pixel, 0 to 1: black protects a hand or hair. One for all"
                        " frames or one per frame, at the frames' size. It limits the automatic mask and cannot widen"
                        " it. An empty 64x64 mask (a picture without alpha) is ignored."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The finished frames, as many as came in."),
                io.Mask.Output(display_name="mask", tooltip="What was drawn, one mask per frame, 0 (untouched) to 1."),
            ],
        )

    @classmethod
    def execute(
        cls,
        frames: torch.Tensor,
        crops: torch.Tensor,
        track: Any,
        feather: float,
        colour_match: str,
        mask: torch.Tensor | None = None,
    ) -> io.NodeOutput:
        """Paste chunk by chunk into a new batch."""
        from ..models.blend import paste_faces

        pictures, faces = values.rgb(frames, "frames"), values.rgb(crops, "crops")
        count, height, width = pictures.shape[:3]
        _check_counts(count, len(faces), track, (width, height))
        user_mask = values.pasting_mask(mask, count, height, width)
        values.require_memory(
            16 * count * height * width, host.free_memory(), f"Pasting {count} frames of {width}x{height}"
        )
        images, masks = torch.empty(count, height, width, 3), torch.empty(count, height, width)
        step = host.progress()
        for start, stop in values.chunks(count):
            part = user_mask if user_mask is None or len(user_mask) == 1 else user_mask[start:stop]
            pasted, drawn = paste_faces(
                np.ascontiguousarray(pictures[start:stop].cpu().numpy()),
                np.ascontiguousarray(faces[start:stop].cpu().numpy()),
                track.slice(start, stop),
                None if part is None else part.cpu().numpy(),
                feather=feather,
                colour_match=colour_match,
            )
            images[start:stop], masks[start:stop] = torch.as_tensor(pasted), torch.as_tensor(drawn)
            step(stop, count)
        return io.NodeOutput(host.result(images), host.result(masks))


def _check_counts(frames: int, crops: int, track: Any, size: tuple[int, int]) -> None:
    if not frames == crops == len(track):
        raise ValueError(
            f"'frames' holds {frames}, 'crops' {crops} and 'track' {len(track)} frames; they must be equal. Connect the"
            " frames that went into Face Crop, and crops from the same Face Crop without nodes that drop or repeat"
            " frames."
        )
    if tuple(track.frame_size) != size:
        raise ValueError(
            f"'frames' are {size[0]}x{size[1]} pixels, but the faces were tracked in frames of"
            f" {track.frame_size[0]}x{track.frame_size[1]}. Connect the frames that went into Face Crop; crops may be"
            " resized, frames not."
        )

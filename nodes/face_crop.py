"""Face Crop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from . import host, recognition, values
from .widgets import make_selection, selection_inputs


class FaceCrop(io.ComfyNode):
    """One face followed through the clip and cut out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_FaceCrop",
            display_name="Face Crop",
            description=(
                "Finds one face in every frame, follows it through time and cuts it out upright. Frames without it are "
                "marked absent and pass through Paste Back untouched."
            ),
            inputs=[
                io.Image.Input("images", tooltip="The video's frames, for example from Get Video Components."),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.001,
                    tooltip=(
                        "Frames per second of the video. Default 25. Connect the fps output of Get Video Components: a"
                        " wrong value makes the lips drift. 23.976, 29.97 and 59.94 are understood as the exact NTSC"
                        " fractions."
                    ),
                ),
                io.Int.Input(
                    "size",
                    default=256,
                    min=64,
                    max=1024,
                    step=8,
                    tooltip=(
                        "Side of the cut-out in pixels. Default 256. The generator works at its own size whatever this"
                        " is; larger crops show more detail to other nodes."
                    ),
                ),
                *selection_inputs(),
                host.EmbeddingSocket.Input(
                    "reference",
                    optional=True,
                    tooltip="Embedding of the person to follow, from ArcFace Embed; wins over point and order.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="crops",
                    tooltip="One upright face per frame; absent frames hold the nearest present one.",
                ),
                host.TrackSocket.Output(
                    display_name="track",
                    tooltip="Where the face is in every frame, at which rate, and where shots begin.",
                ),
                io.Mask.Output(
                    display_name="mask",
                    tooltip=(
                        "Where Paste Back will draw with its default settings, one mask per frame, 0 to 1. Edit it and"
                        " connect it to Paste Back to protect hands or hair."
                    ),
                ),
                io.Image.Output(
                    display_name="overlay",
                    tooltip="Small preview of the frames with crop, landmarks and absent frames marked.",
                ),
                io.String.Output(
                    display_name="report", tooltip="Frames, shots, absent ranges, size of the face, advice."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, detector: str, **_: Any) -> Any:
        """Track again when the detector's file has changed."""
        return recognition.detector_state(detector)

    @classmethod
    def execute(
        cls,
        images: torch.Tensor,
        fps: float,
        size: int,
        detector: str,
        threshold: float,
        smoothing: float,
        face_order: str,
        face_index: int,
        select_frame: int,
        point_x: int,
        point_y: int,
        reference: Any = None,
    ) -> io.NodeOutput:
        """Track, then cut chunk by chunk."""
        from ..models.geometry import warp_crops
        from ..models.overlay import draw_track, preview_size
        from ..models.tracks import track_faces

        frames = values.rgb(images)
        count, height, width = frames.shape[:3]
        preview = preview_size(width, height)
        pixels = size * size * 3 + height * width + preview[0] * preview[1] * 3
        values.require_memory(
            4 * count * pixels, host.free_memory(), f"Face Crop of {count} frames of {width}x{height}"
        )
        track = track_faces(
            _uint8_chunks(frames),
            recognition.load_detector(detector, threshold),
            values.exact_rate(fps),
            make_selection(face_order, face_index, select_frame, point_x, point_y, reference),
            smoothing=smoothing,
            embed=recognition.recogniser_of(reference).embed_frames,
            progress=_of_total(host.progress((0.0, 0.7)), count),
        )
        crops = torch.empty(count, size, size, 3)
        masks = torch.empty(count, height, width)
        overlay = torch.empty(count, preview[1], preview[0], 3)
        step = host.progress((0.7, 1.0))
        for start, stop in values.chunks(count):
            part, chunk = track.slice(start, stop), frames[start:stop].cpu().numpy()
            crops[start:stop] = torch.from_numpy(warp_crops(np.ascontiguousarray(chunk), part.matrices, size)).clamp(
                0, 1
            )
            masks[start:stop] = paste_mask(part)
            drawn = draw_track(values.to_uint8(frames[start:stop]), part, preview, start)
            overlay[start:stop] = torch.from_numpy(drawn).float() / 255
            step(stop, count)
        return io.NodeOutput(host.result(crops), track, host.result(masks), host.result(overlay), track.report())


def paste_mask(track: Any) -> torch.Tensor:
    """Where Paste Back draws with its default settings, float32 [N, H, W]."""
    from ..models.blend import paste_faces

    width, height = track.frame_size
    blank = np.zeros((len(track), height, width, 3), np.uint8)
    _, masks = paste_faces(blank, np.zeros((len(track), 8, 8, 3), np.float32), track, colour_match="off")
    return torch.as_tensor(masks)


def _uint8_chunks(frames: torch.Tensor) -> Iterator[np.ndarray]:
    for start, stop in values.chunks(len(frames)):
        yield values.to_uint8(frames[start:stop])


def _of_total(step: host.Progress, total: int) -> host.Progress:
    """The engine sees a stream of chunks and cannot know how many frames will come."""
    return lambda done, _: step(done, total)

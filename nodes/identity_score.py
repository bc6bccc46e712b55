"""Identity Score."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from . import host, recognition
from .sources import open_either
from .widgets import choice_inputs, detector_inputs, frame_rate_input, make_selection


class IdentityScore(io.ComfyNode):
    """Whose face a video shows, over time."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_IdentityScore",
            display_name="Identity Score",
            description=(
                "Measures in every frame how much a face is the source's and, against the original video or a second "
                "embedding, how much of the target is left: cosines from -1 to 1."
            ),
            inputs=[
                host.EmbeddingSocket.Input(
                    "source",
                    tooltip=(
                        "Who it should be, from ArcFace Embed. Its recogniser judges: another one than the model was"
                        " trained with is the stricter judge."
                    ),
                ),
                *detector_inputs(),
                *choice_inputs(),
                frame_rate_input(),
                io.Video.Input("video", optional=True, tooltip="Video to judge. Connect this or images."),
                io.Image.Input("images", optional=True, tooltip="The video's frames instead, with their fps."),
                io.Video.Input(
                    "original",
                    optional=True,
                    tooltip=(
                        "Target video before the swap, same size and rate; compared frame by frame. Odd sides grow by"
                        " one pixel in the result, which is allowed for."
                    ),
                ),
                io.Image.Input("original_images", optional=True, tooltip="The original's frames instead."),
                host.EmbeddingSocket.Input(
                    "target", optional=True, tooltip="Target person as an embedding; wins over the original's frames."
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="to source", tooltip="Mean cosine to the source; higher is better, 1 is the same."
                ),
                io.Float.Output(
                    display_name="to target",
                    tooltip="Mean cosine to the target; lower is better. Not a number (nan) without either input.",
                ),
                io.Image.Output(
                    display_name="plot", tooltip="Both cosines over time; gaps are frames without the face."
                ),
                io.String.Output(
                    display_name="report", tooltip="Means, lowest and highest, frames with the face, recogniser."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, detector: str, **_: Any) -> Any:
        """Measure again when the detector's file has changed."""
        return recognition.detector_state(detector)

    @classmethod
    def execute(
        cls,
        source: Any,
        detector: str,
        threshold: float,
        face_order: str,
        face_index: int,
        select_frame: int,
        point_x: int,
        point_y: int,
        fps: float,
        video: Any = None,
        images: torch.Tensor | None = None,
        original: Any = None,
        original_images: torch.Tensor | None = None,
        target: Any = None,
    ) -> io.NodeOutput:
        """Find the face, embed it frame by frame, compare."""
        from ..models.metrics import identity, plots
        from ..models.metrics.subject import Subject, Tools

        made, _ = open_either(video, images, fps, ("video", "images"))
        given = None
        if target is None and (original is not None or original_images is not None):
            names = ("original", "original_images")
            given, _ = open_either(original, original_images, float(made.info.fps), names)
        subject = Subject(
            made,
            Tools(recognition.load_detector(detector, threshold), recognition.recogniser_of(source)),
            reference=given,
            source=source,
            selection=make_selection(face_order, face_index, select_frame, point_x, point_y, None),
            progress=host.progress(),
            passes=2 if given is None else 3,
        )
        result = identity.measure(subject, target)
        drawn = plots.identity_plot(result, float(made.info.fps))
        plot = host.result(torch.from_numpy(drawn)[None].float() / 255)
        scores = (result.scores["to_source"], result.scores["to_target"])
        return io.NodeOutput(*scores, plot, identity.describe(result), ui=ui.PreviewImage(plot, cls=cls))

"""Sync Score."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io, ui

from . import folders, host, recognition
from .sources import UNWIRED, open_with_audio
from .widgets import detector_inputs, frame_rate_input

AUTO = "auto"
MODES = ["video", "crops"]


def _bundled() -> list[str]:
    from ..models.metrics.sync_model import bundled_expert

    return [recognition.BUILTIN] if bundled_expert() is not None else []


def _file(model: str) -> Any:
    """Path of the chosen sync model, None for the built-in one.

    Raises:
        ValueError: auto, and there is none at all.
    """
    if model == recognition.BUILTIN:
        return None
    if model != AUTO:
        return folders.model_path(model)
    published, experts = folders.files_of(["syncnet_v2"]), folders.files_of(["syncnet_expert"])
    if not published and _bundled():
        return None
    if published or experts:
        return folders.model_path((published or experts)[0])
    raise ValueError(
        "There is no sync model. Put the public syncnet_v2.model, or a sync expert exported by `python -m training "
        "export`, into models/wavsyncswap, press R in the page and run again."
    )


class SyncScore(io.ComfyNode):
    """How well lips and sound go together."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_SyncScore",
            display_name="Sync Score",
            description=(
                "Measures whether lips follow the sound: LSE-D, LSE-C and how far the sound is early or late. Works on "
                "any talking video, whoever made it. Compare only numbers of one model and one mode."
            ),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[AUTO, *_bundled(), *folders.files_of(["syncnet_v2", "syncnet_expert"])],
                    default=AUTO,
                    tooltip=(
                        "Network that judges. Default auto: SyncNet v2 (whose numbers papers report) where"
                        " syncnet_v2.model lies in models/wavsyncswap, else the pack's own sync expert."
                    ),
                ),
                io.Combo.Input(
                    "mode",
                    options=MODES,
                    default="video",
                    tooltip=(
                        "Default video: faces are found, followed and each scored. crops: every frame is one face"
                        " already, such as the crops of Generate. The two do not compare."
                    ),
                ),
                io.Int.Input(
                    "min_frames",
                    default=50,
                    min=16,
                    max=100_000,
                    tooltip=(
                        "Mode video: a face must be seen in more frames (at 25 fps) than this. Default 50, 2 seconds."
                        " The original script asks for 100."
                    ),
                ),
                host.advanced(
                    io.Int.Input(
                        "min_face",
                        default=100,
                        min=16,
                        max=4096,
                        tooltip="Mode video: a face must be larger than this, in pixels. Default 100, as originally.",
                    )
                ),
                host.advanced(
                    io.Boolean.Input(
                        "valid_only",
                        default=False,
                        tooltip=(
                            "Default off: at the clip's ends sound is padded with zeros, as published. On: only windows"
                            " that have a partner count, which is better for clips under 4 seconds."
                        ),
                    )
                ),
                *detector_inputs(),
                frame_rate_input(),
                io.Video.Input("video", optional=True, tooltip="Talking video. Connect this or images."),
                io.Image.Input("images", optional=True, tooltip="The video's frames instead, with their fps."),
                io.Audio.Input("audio", optional=True, tooltip="Speech. Nothing connected: the video's own sound."),
            ],
            outputs=[
                io.Float.Output(display_name="LSE-D", tooltip="Distance of lips and sound; lower is better."),
                io.Float.Output(display_name="LSE-C", tooltip="How far the best offset stands out; higher is better."),
                io.Int.Output(
                    display_name="offset",
                    tooltip="Frames at 25 fps by which the sound is early (+) or late (-); 0 is in sync.",
                ),
                io.Float.Output(display_name="offset ms", tooltip="The same in milliseconds."),
                io.Image.Output(
                    display_name="plot", tooltip="Both scores second by second, and the distance at every offset."
                ),
                io.String.Output(display_name="report", tooltip="Scores of each face, the model and the mode."),
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, model: str, detector: str, **_: Any) -> Any:
        """Score again when the model's or the detector's file has changed."""
        path = _file(model)
        return model, None if path is None else folders.file_state(path), recognition.detector_state(detector)

    @classmethod
    def execute(
        cls,
        model: str,
        mode: str,
        min_frames: int,
        min_face: int,
        valid_only: bool,
        detector: str,
        threshold: float,
        fps: float,
        video: Any = None,
        images: torch.Tensor | None = None,
        audio: Any = UNWIRED,
    ) -> io.NodeOutput:
        """Stream the frames through detector and sync model."""
        from ..models.metrics import plots, sync
        from ..models.metrics.sync_model import load_sync_model

        if mode not in MODES:
            raise ValueError(f"There is no mode '{mode}'; choose one of {', '.join(MODES)}.")
        source, sound = open_with_audio(video, images, fps, audio)
        judge = load_sync_model(_file(model), host.device())
        if mode == "crops":
            report = sync.score_crops(source, sound, judge, valid_only=valid_only, progress=host.progress())
        else:
            report = sync.score_video(
                source,
                sound,
                judge,
                recognition.load_detector(detector, threshold),
                min_track=min_frames,
                min_face=min_face,
                valid_only=valid_only,
                progress=host.progress(),
            )
        plot = host.result(torch.from_numpy(plots.sync_plot(report))[None].float() / 255)
        scores = (report.distance, report.confidence, report.offset, report.offset_ms)
        return io.NodeOutput(*scores, plot, str(report), ui=ui.PreviewImage(plot, cls=cls))

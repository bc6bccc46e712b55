"""Talking Swap Video."""

from __future__ import annotations

import uuid
from fractions import Fraction
from pathlib import Path
from typing import Any

import folder_paths
import torch
from comfy_api.latest import InputImpl, io

from . import host, recognition, values
from .arcface_embed import embed_source
from .load_model import LoadedModel
from .sources import UNWIRED, engine_sound, open_video
from .widgets import (
    POLICIES,
    audio_offset_input,
    blend_inputs,
    make_selection,
    selection_inputs,
    speech_gate_input,
)


class TalkingSwapVideo(io.ComfyNode):
    """The whole job, from file to file, in memory that does not grow with the clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_TalkingSwapVideo",
            display_name="Talking Swap Video",
            description=(
                "A video (or one portrait), a source face and speech in; the same video with the source's identity and"
                " lips in sync with the speech out. Streams from file to file: memory does not grow with length."
            ),
            inputs=[
                host.ModelSocket.Input("model", tooltip="From Load WavSyncSwap Model."),
                io.Combo.Input(
                    "length",
                    options=POLICIES,
                    default="pad",
                    tooltip=(
                        "When sound and video differ in length. Default pad: the video keeps its length, the sound is"
                        " padded with silence or cut. cut: both end with the shorter. loop, bounce, hold: the video"
                        " follows the sound by starting over, by running back and forth, or by its last frame."
                    ),
                ),
                io.Float.Input(
                    "still_fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.001,
                    tooltip=(
                        "Frames per second made from a still portrait. Default 25. A video keeps its own rate; this"
                        " does nothing to it."
                    ),
                ),
                *selection_inputs(),
                *blend_inputs(),
                speech_gate_input(),
                audio_offset_input(),
                host.advanced(
                    io.Combo.Input(
                        "recogniser",
                        options=recognition.recogniser_names(),
                        default=recognition.BUILTIN,
                        tooltip=(
                            "Recogniser for the face picture. Default builtin; SimSwap needs its own,"
                            " arcface_checkpoint.tar. No effect when an embedding is connected."
                        ),
                    )
                ),
                io.Video.Input("video", optional=True, tooltip="Target video. Connect this or a portrait."),
                io.Image.Input(
                    "portrait", optional=True, tooltip="One still picture to bring to life instead of a video."
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip=(
                        "Speech. Nothing connected: the video's own sound. Connected to a video without sound: the"
                        " lips rest. A portrait needs speech."
                    ),
                ),
                io.Image.Input(
                    "face",
                    optional=True,
                    tooltip=(
                        "Source face, one or several pictures. Neither this nor an embedding connected: lip sync alone,"
                        " the face stays the target's own. Wav2Lip takes none; SimSwap cannot do without."
                    ),
                ),
                host.EmbeddingSocket.Input(
                    "embedding", optional=True, tooltip="Source identity; wins over the face picture."
                ),
                host.EmbeddingSocket.Input(
                    "reference", optional=True, tooltip="Person in the video to replace; wins over point and order."
                ),
            ],
            outputs=[
                io.Video.Output(
                    display_name="video",
                    tooltip=(
                        "H.264 and AAC, same size and rate as the input (odd sides grow by one pixel), for Save Video."
                    ),
                ),
                io.String.Output(display_name="report", tooltip="Frames, absent ranges, length policy, advice."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, detector: str, recogniser: str, **connected: Any) -> Any:
        """Make it again when the detector's file has changed, or that of the recogniser if there is a face for it."""
        used = "face" in connected and "embedding" not in connected
        return recognition.detector_state(detector), recognition.recogniser_state(recogniser) if used else None

    @classmethod
    def execute(
        cls,
        model: LoadedModel,
        length: str,
        still_fps: float,
        detector: str,
        threshold: float,
        smoothing: float,
        face_order: str,
        face_index: int,
        select_frame: int,
        point_x: int,
        point_y: int,
        feather: float,
        colour_match: str,
        speech_gate: float,
        audio_offset: float,
        recogniser: str,
        video: Any = None,
        portrait: torch.Tensor | None = None,
        audio: Any = UNWIRED,
        face: torch.Tensor | None = None,
        embedding: Any = None,
        reference: Any = None,
    ) -> io.NodeOutput:
        """Collect the inputs, then hand over to the engine's pipeline."""
        from ..models.pipeline import SwapOptions, talking_swap

        source, sound = _open(video, portrait, still_fps, audio)
        if embedding is None and face is not None:
            embedding, _, _ = embed_source(face, recogniser, detector, threshold, host.progress((0.0, 0.02)))
        options = SwapOptions(
            selection=make_selection(face_order, face_index, select_frame, point_x, point_y, reference),
            smoothing=smoothing,
            feather=feather,
            colour_match=colour_match,
            length=length,
            speech_gate=speech_gate,
            audio_offset=audio_offset,
        )
        folder = Path(folder_paths.get_temp_directory())
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"wavsyncswap_{uuid.uuid4().hex}.mp4"
        report = talking_swap(
            source,
            sound,
            embedding,
            target,
            generator=model.ready(),
            detector=recognition.load_detector(detector, threshold),
            options=options,
            embed=recognition.recogniser_of(reference).embed_frames,
            progress=host.progress((0.02, 1.0)),
        )
        return io.NodeOutput(InputImpl.VideoFromFile(str(target)), str(report))


def _open(video: Any, portrait: torch.Tensor | None, still_fps: float, audio: Any) -> tuple[Any, Any]:
    """The engine's frame source, and the sound: the connected one (None is silence), else the video's own."""
    from ..models.frames import StillImage

    if (video is None) == (portrait is None):
        found = "neither is" if video is None else "both are"
        raise ValueError(f"Connect either 'video' or 'portrait'; {found} connected.")
    sound = None if audio is UNWIRED else engine_sound(audio)
    if portrait is not None:
        if sound is None:
            raise ValueError(
                "A still portrait needs speech to say how long the video becomes. Connect 'audio', not empty."
            )
        rate, seconds = values.exact_rate(still_fps), Fraction(sound[0].shape[1], sound[1])
        picture = values.rgb(portrait, "portrait")[0]
        return StillImage(picture, max(1, round(seconds * rate)), rate), sound
    source, own = open_video(video, sound=audio is UNWIRED)
    return source, own if audio is UNWIRED else sound

"""WavSyncSwap Generate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from comfy_api.latest import io

from . import host, values
from .load_model import LoadedModel
from .widgets import audio_offset_input, speech_gate_input


class Generate(io.ComfyNode):
    """The forward pass: crops, speech and identity in, talking swapped crops out."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_Generate",
            display_name="WavSyncSwap Generate",
            description=(
                "Draws every cropped face anew: the source's identity, the target's pose and expression, the audio's "
                "lips. As many faces out as in."
            ),
            inputs=[
                host.ModelSocket.Input("model", tooltip="From Load WavSyncSwap Model."),
                io.Image.Input("crops", tooltip="From Face Crop, any size."),
                host.TrackSocket.Input("track", tooltip="From the same Face Crop; gives the frame rate and the cuts."),
                host.MelSocket.Input(
                    "mel", tooltip="Speech, from Load Audio Mel. Frames after its end keep a closed mouth."
                ),
                speech_gate_input(),
                audio_offset_input(),
                host.EmbeddingSocket.Input(
                    "embedding",
                    optional=True,
                    tooltip=(
                        "Identity to put in, from ArcFace Embed or Load Embedding; its recogniser must fit the model."
                        " Nothing connected: lip sync alone, the face stays the target's own."
                    ),
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="crops",
                    tooltip="The new faces at the model's size, one per frame, for an upscaler or Paste Back.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: LoadedModel,
        crops: torch.Tensor,
        track: Any,
        mel: Any,
        speech_gate: float,
        audio_offset: float,
        embedding: Any = None,
    ) -> io.NodeOutput:
        """Windows of the gated mel, references out of other frames, then the network in batches."""
        from ..models.audio import driving_windows
        from ..models.references import references_within, shot_numbers

        faces = values.rgb(crops, "crops")
        if len(faces) != len(track):
            raise ValueError(
                f"'crops' holds {len(faces)} faces and 'track' {len(track)} frames; they must be equal. Connect both to"
                " the same Face Crop, without nodes in between that drop or repeat frames."
            )
        generator = model.ready()
        windows = driving_windows(
            mel, len(track), track.fps, speech_gate=speech_gate, offset=audio_offset, lag=generator.mel_lag
        )
        pictures = torch.cat([generator.fit(part.movedim(-1, 1)) for part in faces.split(64)])
        levels = (pictures * 255).round().byte().movedim(1, -1).contiguous().numpy()
        shots = shot_numbers(track.cuts, np.arange(len(track)))
        shown = torch.from_numpy(references_within(levels, track.present, shots))
        out = generator.generate(
            pictures, windows, embedding, shown.movedim(-1, 1).float() / 255, progress=host.progress()
        )
        return io.NodeOutput(host.result(out.movedim(1, -1).contiguous().clamp(0, 1)))

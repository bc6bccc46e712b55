"""WavSyncSwap Adapt and Load Adapter."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from comfy_api.latest import io

from . import folders, host, recognition
from .load_model import LoadedModel, load
from .sources import UNWIRED, open_with_audio
from .widgets import choice_inputs, detector_inputs, frame_rate_input, make_selection

log = logging.getLogger(__name__)

KEY_DIGITS = 12  # of what an adapter was made of, in its file's name
NAME_BYTES = 64  # of the name that the user gives; file systems allow 255 for all of it, some 143
BYTES_A_PIXEL = 100_000  # of a crop's pixels, while a step of adaptation runs


class Adapt(io.ComfyNode):
    """Fine-tuning to the user's own clip, once per clip: the result is kept as a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_Adapt",
            display_name="WavSyncSwap Adapt",
            description=(
                "Trains the model a little on the target clip itself, so that it draws this face and its mouth more"
                " faithfully. Done once: the result is kept in models/wavsyncswap/adapters and found again."
            ),
            inputs=[
                host.ModelSocket.Input("model", tooltip="From Load WavSyncSwap Model; the pack's own network only."),
                io.Int.Input(
                    "steps",
                    default=300,
                    min=1,
                    max=20_000,
                    tooltip=(
                        "How long to train. Default 300: a minute on a GPU, some minutes on a CPU. It ends earlier when"
                        " the last part of the clip, which is held out, no longer gains."
                    ),
                ),
                io.String.Input(
                    "name",
                    default="adapter",
                    tooltip="How the file's name begins. Default adapter: models/wavsyncswap/adapters/adapter_....",
                ),
                *detector_inputs(),
                *choice_inputs(),
                frame_rate_input(),
                io.Video.Input(
                    "video", optional=True, tooltip="Target clip, 10 s or more of the face. Connect this or images."
                ),
                io.Image.Input("images", optional=True, tooltip="The clip's frames instead, with their fps."),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip=(
                        "What is said in the clip, in sync. Nothing connected: the video's own sound. Without speech"
                        " the looks are learnt and the mouth is left as it is."
                    ),
                ),
            ],
            outputs=[
                host.ModelSocket.Output(
                    display_name="model", tooltip="The adapted model, for Generate and Talking Swap Video."
                ),
                io.String.Output(
                    display_name="report", tooltip="The held-out part before and after, steps, and the file's name."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, detector: str, **_: Any) -> Any:
        """Look for faces again when the detector's file has changed."""
        return recognition.detector_state(detector)

    @classmethod
    def execute(
        cls,
        model: LoadedModel,
        steps: int,
        name: str,
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
        audio: Any = UNWIRED,
    ) -> io.NodeOutput:
        """Take the file of an earlier run, or train and write it; then load the weights with it."""
        from ..models.footage import content_digest

        source, sound = open_with_audio(video, images, fps, audio)
        face = (recognition.detector_id(detector), threshold, face_order, face_index, select_frame, point_x, point_y)
        made_of = json.dumps([model.generator.digest, content_digest(source, sound), steps, face])
        key = hashlib.sha256(made_of.encode()).hexdigest()[:KEY_DIGITS]
        path = _kept(key)
        if path is None:
            path = folders.new_adapter_folder() / f"{_plain(name)}_{key}.safetensors"  # now, not after the training
            selection = make_selection(face_order, face_index, select_frame, point_x, point_y, None)
            with torch.inference_mode(False), torch.enable_grad():  # the host runs nodes without gradients
                _train(model, source, sound, recognition.load_detector(detector, threshold), selection, steps, path)
        adapted, report = with_adapter(model, path, 1.0)
        return io.NodeOutput(adapted, report)


class LoadAdapter(io.ComfyNode):
    """An adapter from a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_LoadAdapter",
            display_name="Load WavSyncSwap Adapter",
            description="Applies what WavSyncSwap Adapt, or `python -m training adapt`, wrote to the model it is for.",
            inputs=[
                host.ModelSocket.Input("model", tooltip="The model that was adapted, from Load WavSyncSwap Model."),
                io.Combo.Input(
                    "adapter",
                    options=folders.adapter_names() or ["none found"],
                    tooltip="File of models/wavsyncswap/adapters. Press R after adding one.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.5,
                    step=0.05,
                    tooltip="How much of it is applied. Default 1, as trained; 0 is the model without it.",
                ),
            ],
            outputs=[
                host.ModelSocket.Output(
                    display_name="model", tooltip="The adapted model, for Generate and Talking Swap Video."
                ),
                io.String.Output(
                    display_name="report", tooltip="The held-out part of its clip before and after, steps."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str, **_: Any) -> Any:
        """Apply again when the file has changed."""
        return adapter, folders.file_state(folders.model_path(adapter))

    @classmethod
    def execute(cls, model: LoadedModel, adapter: str, strength: float) -> io.NodeOutput:
        """Load the weights anew, with the adapter merged into them; an earlier adapter is not kept."""
        return io.NodeOutput(*with_adapter(model, folders.model_path(adapter), strength))


def with_adapter(model: LoadedModel, path: Path, strength: float) -> tuple[LoadedModel, str]:
    """The same weights with an adapter merged into them, and the adapter's report.

    Raises:
        ValueError: it is for other weights.
    """
    adapted = load(model.files, model.precision, path, strength)
    return adapted, f"{path.name}\n{adapted.generator.metadata['adapter']['report']}"


def _kept(key: str) -> Path | None:
    """The adapter that was made of the same things; a damaged one does not count."""
    from ..models.adapters import load_adapter

    for path in (path for folder in folders.adapter_folders() for path in sorted(folder.glob(f"*_{key}.safetensors"))):
        try:
            load_adapter(path)
        except (ValueError, OSError) as error:
            log.warning("%s is passed over, the clip is adapted to anew: %s", path, error)
        else:
            return path
    return None


def _plain(name: str) -> str:
    """A name that may stand in a file's, and is not too long for one."""
    plain = re.sub(r"[^\w-]+", "_", name.strip()).encode()[:NAME_BYTES].decode(errors="ignore")
    return plain or "adapter"


def _train(model: LoadedModel, source: Any, sound: Any, detector: Any, selection: Any, steps: int, path: Path) -> None:
    """Adapt a second copy of the weights and write what changed."""
    from ..models.adaptation import adapt
    from ..models.checkpoints import save_weights
    from ..models.footage import gather
    from ..models.generator import load_generator

    host.make_room(BYTES_A_PIXEL * model.generator.px**2)
    generator = load_generator(list(model.files) or "builtin", host.device(), "fp32")
    recogniser = recognition.find_recogniser(generator.recogniser)[0] if generator.takes_identity else None
    footage = gather(source, sound, generator, detector, recogniser, selection, host.progress((0.0, 0.15)))
    result = adapt(generator, footage, steps=steps, progress=host.progress_with_pictures((0.15, 1.0)))
    save_weights(path, result.state, result.metadata)

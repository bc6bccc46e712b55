"""Widgets that several nodes share, so that they read the same everywhere."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import host, recognition

ORDERS = ["largest", "smallest", "left-right", "right-left"]
POLICIES = ["pad", "cut", "loop", "bounce", "hold"]


def detector_inputs() -> list[Any]:
    """The widgets that choose how faces are found; the same on every node that looks for them."""
    return [
        io.Combo.Input(
            "detector",
            options=recognition.detector_names(),
            default=recognition.BUILTIN,
            tooltip=(
                "Face detector. Default builtin: no download, runs everywhere. Others are insightface packs found in "
                "models/insightface or in your own .insightface folder."
            ),
        ),
        io.Float.Input(
            "threshold",
            default=0.6,
            min=0.05,
            max=0.99,
            step=0.01,
            tooltip=(
                "Least detection score, 0 to 1. Default 0.6. Lower finds small, blurred or turned faces and more that"
                " are none; higher the reverse."
            ),
        ),
    ]


def choice_inputs() -> list[Any]:
    """The widgets that choose one face among several."""
    return [
        io.Combo.Input(
            "face_order",
            options=ORDERS,
            default="largest",
            tooltip="How several faces are counted in the selection frame. Default largest first.",
        ),
        io.Int.Input(
            "face_index",
            default=0,
            min=0,
            max=63,
            tooltip="Which face in that order, from 0. Default 0, the first.",
        ),
        host.advanced(
            io.Int.Input(
                "select_frame",
                default=0,
                min=0,
                max=10_000_000,
                tooltip=(
                    "Frame in which order, index and point are looked up, from 0. Default 0. If nobody is there, the"
                    " nearest frame with a face counts."
                ),
            )
        ),
        host.advanced(
            io.Int.Input(
                "point_x",
                default=-1,
                min=-1,
                max=65535,
                tooltip=(
                    "Pixel column of the wanted face in the selection frame, with point_y. Default -1: not used. Wins"
                    " over the order."
                ),
            )
        ),
        host.advanced(
            io.Int.Input(
                "point_y",
                default=-1,
                min=-1,
                max=65535,
                tooltip="Pixel row of the wanted face in the selection frame, with point_x. Default -1: not used.",
            )
        ),
    ]


def selection_inputs() -> list[Any]:
    """The widgets of every node that follows a face: how faces are found, how the crop moves, which face it is."""
    return [
        *detector_inputs(),
        io.Float.Input(
            "smoothing",
            default=0.5,
            min=0.0,
            max=1.0,
            step=0.05,
            tooltip=(
                "How much the crop's movement is steadied over time, 0 to 1. Default 0.5. 0 follows every detection "
                "exactly, 1 averages over about 25 frames. Never delays and never crosses a cut."
            ),
        ),
        *choice_inputs(),
    ]


def frame_rate_input() -> Any:
    """The widget that says how fast a batch of frames runs, on nodes that take a video instead."""
    return io.Float.Input(
        "fps",
        default=25.0,
        min=1.0,
        max=240.0,
        step=0.001,
        tooltip="Frames per second of the images. Default 25. A video has its own rate; this does nothing to it.",
    )


def make_selection(order: str, index: int, frame: int, x: int, y: int, reference: Any) -> Any:
    """Widgets -> the engine's selection."""
    from ..models.selection import Selection

    return Selection(
        order=order,
        index=index,
        reference=None if reference is None else reference.vector,
        point=(float(x), float(y)) if x >= 0 and y >= 0 else None,
        frame=frame,
    )


def blend_inputs() -> list[Any]:
    """The widgets that say how a face is laid into its frame."""
    return [
        io.Float.Input(
            "feather",
            default=0.05,
            min=0.0,
            max=0.5,
            step=0.005,
            tooltip=(
                "Width of the soft edge as a share of the crop's side. Default 0.05; scales with the face. Larger hides"
                " seams, smaller keeps more of the new face."
            ),
        ),
        io.Combo.Input(
            "colour_match",
            options=["lab", "off"],
            default="lab",
            tooltip=(
                "Default lab: mean and spread of the new face's colours follow the frame's own face (Lab space), so the"
                " skin fits. off pastes the colours as they are."
            ),
        ),
    ]


def speech_gate_input() -> Any:
    """The widget that closes the mouth in pauses."""
    return io.Float.Input(
        "speech_gate",
        default=1.0,
        min=0.0,
        max=1.0,
        step=0.05,
        tooltip=(
            "How strongly pauses are treated as silence, 0 to 1. Default 1: music and noise between words do not move"
            " the lips. 0 passes the sound as it is."
        ),
    )


def audio_offset_input() -> Any:
    """The widget that moves the lips against the sound."""
    return host.advanced(
        io.Float.Input(
            "audio_offset",
            default=0.0,
            min=-5.0,
            max=5.0,
            step=0.01,
            tooltip=(
                "Moves the lips in time, in seconds. Default 0. Positive makes them later, negative earlier; the sound"
                " itself stays where it is."
            ),
        )
    )

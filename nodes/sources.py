"""VIDEO, IMAGE and AUDIO sockets -> the engine's frame sources and sounds. A file is streamed, never held whole."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from comfy_api.latest import InputImpl

from . import values


def open_video(video: Any, sound: bool) -> tuple[Any, Any]:
    """A VIDEO -> the engine's frame source, and its own sound as a source, too, if that is asked for (None without)."""
    from ..models.frames import FrameArray
    from ..models.sound import as_sound
    from ..models.video import VideoFile

    if _is_whole_file(video):
        opened = VideoFile(video.get_stream_source())
        return opened, opened.sound() if sound else None
    parts = video.get_components()
    source = FrameArray(values.rgb(parts.images, "video"), Fraction(parts.frame_rate))
    own = engine_sound(parts.audio) if sound else None
    return source, None if own is None else as_sound(own)


def open_either(
    video: Any, images: torch.Tensor | None, fps: float, names: tuple[str, str], sound: bool
) -> tuple[Any, Any]:
    """The frame source and own sound, float32 [C, T] and rate, of whichever of a VIDEO and an IMAGE batch is connected.

    Args:
        video: host VIDEO or None.
        images: host IMAGE or None.
        fps: of the images.
        names: of the two inputs, for the message.
        sound: the video's own sound is wanted.

    Raises:
        ValueError: neither or both are connected.
    """
    from ..models.frames import FrameArray
    from ..models.sound import whole

    if (video is None) == (images is None):
        found = "neither is" if video is None else "both are"
        raise ValueError(f"Connect either '{names[0]}' or '{names[1]}'; {found} connected.")
    if images is None:
        source, own = open_video(video, sound)
        return source, None if own is None else whole(own)
    return FrameArray(values.rgb(images, names[1]), values.exact_rate(fps)), None


def engine_sound(audio: Any) -> Any:
    """Host AUDIO -> float32 [C, T] and rate, None for none."""
    sound = values.waveform(audio)
    return None if sound is None else (sound[0].numpy(), sound[1])


def _is_whole_file(video: Any) -> bool:
    """True when the file behind a VIDEO can be streamed as it is: newer hosts may show only a part of it."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return False
    shown = InputImpl.VideoFromFile(video.get_stream_source())
    return abs(float(video.get_duration()) - float(shown.get_duration())) < 1e-3

"""VIDEO, IMAGE and AUDIO sockets -> the engine's frame sources and sounds. A file is streamed, never held whole."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from comfy_api.latest import InputImpl

from . import values

# What the nodes take for an input that is not connected: the host leaves those out, and gives None for the sound of a
# video that has none.
UNWIRED: Any = object()


def open_video(video: Any, sound: bool) -> tuple[Any, Any]:
    """A VIDEO -> the engine's frame source, and its own sound as a source, too, if that is asked for (None without)."""
    from ..models.frames import FrameArray
    from ..models.sound import as_sound
    from ..models.video import VideoFile

    if isinstance(video, InputImpl.VideoFromFile):
        opened = VideoFile(video.get_stream_source())  # first of all: it says best what is wrong with a file
        if _shows_all(video):
            return opened, opened.sound() if sound else None
        opened.close()
    parts = video.get_components()
    source = FrameArray(values.rgb(parts.images, "video"), Fraction(parts.frame_rate))
    own = engine_sound(parts.audio) if sound else None
    return source, None if own is None else as_sound(own)


def open_either(
    video: Any, images: torch.Tensor | None, fps: float, names: tuple[str, str], sound: bool = False
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


def open_with_audio(video: Any, images: torch.Tensor | None, fps: float, audio: Any) -> tuple[Any, Any]:
    """The frame source of 'video' or 'images', and the sound: the connected one, else the video's own.

    Args:
        video: see `open_either`.
        images: see `open_either`.
        fps: of the images.
        audio: host AUDIO, None for silence, `UNWIRED` where nothing is connected.
    """
    source, own = open_either(video, images, fps, ("video", "images"), sound=audio is UNWIRED)
    return source, own if audio is UNWIRED else engine_sound(audio)


def engine_sound(audio: Any) -> Any:
    """Host AUDIO -> float32 [C, T] and rate, None for none."""
    sound = values.waveform(audio)
    return None if sound is None else (sound[0].numpy(), sound[1])


def _shows_all(video: Any) -> bool:
    """True when a VIDEO shows all of the file behind it: newer hosts may show only a part."""
    import av

    whole = InputImpl.VideoFromFile(video.get_stream_source())
    try:
        return abs(float(video.get_duration()) - float(whole.get_duration())) < 1e-3
    except (av.error.FFmpegError, ValueError):  # the host cannot cut what it cannot measure, such as a bare stream
        return True

"""Load Audio Mel."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from io import FileIO
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from . import host, values
from .sources import UNWIRED

NO_FILE = "none"
LONG = 4 << 20  # bytes of a file that takes so long to read that Cancel must be looked at meanwhile
READ = 0.4  # share of the bar for reading a file


def _input_files() -> list[str]:
    """Sounds and videos of the input folder; never raises, see `folders`."""
    folder = folder_paths.get_input_directory()
    try:
        names = [name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))]
    except OSError:
        return []
    return sorted(folder_paths.filter_files_content_types(names, ["audio", "video"]))


class LoadAudioMel(io.ComfyNode):
    """Speech from a wire or a file, as the spectrogram that the generator listens to."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Schema."""
        return host.schema(
            node_id="WSS_LoadAudioMel",
            display_name="Load Audio Mel",
            description=(
                "Turns speech into the mel spectrogram that drives the lips: any rate, any number of channels. "
                "Silence or no audio at all gives a closed mouth."
            ),
            inputs=[
                io.Combo.Input(
                    "audio_file",
                    options=[NO_FILE, *_input_files()],
                    default=NO_FILE,
                    tooltip=(
                        "Audio or video file of the input folder. Default none. Not used when the audio input is"
                        " connected."
                    ),
                ),
                io.Float.Input(
                    "seconds",
                    default=5.0,
                    min=0.0,
                    max=36000.0,
                    step=0.1,
                    tooltip=(
                        "Length of the silence in seconds when there is no sound: no file chosen, nothing connected, or"
                        " a video without an audio track. Default 5. Without effect otherwise."
                    ),
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip=(
                        "Speech, for example from Load Audio or Get Video Components; wins over the file, even if it is"
                        " the missing sound of a silent video. Surround"
                        " sound is mixed down for the lips only."
                    ),
                ),
            ],
            outputs=[
                host.MelSocket.Output(
                    display_name="mel",
                    tooltip="Mel spectrogram with 80 columns per second, and the speech activity, for Generate.",
                ),
                io.Audio.Output(
                    display_name="audio", tooltip="The sound as it came in (or the silence), for Create Video."
                ),
                io.Float.Output(display_name="duration", tooltip="Length in seconds."),
                io.String.Output(
                    display_name="report", tooltip="One line: source, length, rate, channels, share of speech."
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, audio_file: str, seconds: float, audio: Any = None) -> Any:
        """Read again when the file has changed."""
        if audio_file == NO_FILE or not folder_paths.exists_annotated_filepath(audio_file):
            return audio_file, seconds
        return audio_file, seconds, Path(folder_paths.get_annotated_filepath(audio_file)).stat().st_mtime_ns

    @classmethod
    def execute(cls, audio_file: str, seconds: float, audio: Any = UNWIRED) -> io.NodeOutput:
        """Mel of the connected audio, else of the file, else of silence."""
        from ..models.audio import load_mel, silent_mel

        sound, source, step = None, "the audio input", _share(host.progress((READ, 1.0)))
        if audio is not UNWIRED:
            sound = values.waveform(audio)
        elif audio_file != NO_FILE:
            sound, source = _read_file(audio_file, host.progress((0.0, READ))), audio_file
        if sound is None:
            mel = silent_mel(Fraction(seconds).limit_denominator(1000), step)
            source = "no sound: silence"
        else:
            mel = load_mel(*sound, step)
        speech = float(mel.activity.mean()) if len(mel.activity) else 0.0
        duration = float(mel.duration)
        report = (
            f"{source}: {duration:.3f} s, {mel.sample_rate} Hz, {mel.waveform.shape[0]} channel(s), "
            f"speech in {speech:.0%} of the time"
        )
        return io.NodeOutput(mel, values.host_audio(mel.waveform, mel.sample_rate), duration, report)


def _share(step: host.Progress) -> Callable[[float], None]:
    """The engine says which share of the work is done."""
    return lambda share: step(round(1000 * share), 1000)


class _Watched(FileIO):
    """A file that tells how far it has been read, and can stop its reader.

    Args:
        path: the file.
        step: called at every read with position and size in bytes; what it raises is kept in `stopped`.
    """

    def __init__(self, path: str, step: host.Progress) -> None:
        super().__init__(path)
        self.name = os.path.basename(path)  # for messages
        self._step, self._size = step, os.path.getsize(path)
        self.stopped: BaseException | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            self._step(self.tell(), self._size)
        except BaseException as error:  # a decoder between here and there may know no host's exceptions
            self.stopped = error
            raise OSError("stopped") from error
        return super().read(-1 if size is None else size)


def _read_file(name: str, step: host.Progress) -> Any:
    """Sound of a file of the input folder, see `read_audio`."""
    from ..models.video import read_audio

    if not folder_paths.exists_annotated_filepath(name):
        raise ValueError(f"'{name}' is not in the input folder any more. Upload it again, press R and choose it.")
    path = folder_paths.get_annotated_filepath(name)
    if os.path.getsize(path) < LONG:  # read at once; and the name may help to tell what is in a very short file
        return read_audio(path)
    with _Watched(path, step) as file:
        try:
            return read_audio(file)
        except (OSError, ValueError):
            if file.stopped is not None:
                raise file.stopped from None
            raise

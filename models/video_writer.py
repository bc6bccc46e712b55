"""H.264 and AAC in MP4: exact time, right colours, and no file under the final name until it is complete."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import h264
from .coded import copied
from .colours import CODED, SCALING, Colours
from .sound import Converted, SoundSource, as_sound
from .timing import fit_audio
from .video_index import coder_rate

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)  # Hz
FALLBACK_RATE = 48000
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}
BITS_PER_SAMPLE = 4  # AAC at 16 kHz mono: 64 kbit/s, which is transparent for speech
MOST_BITS = 128_000, 512_000  # a channel, all channels
BLOCK = 1024  # samples of an AAC frame
LARGEST_SIDE = 16384  # px, x264's limit


class VideoWriter:
    """Write a video frame by frame.

    Use as a context manager: leaving it normally completes the file and gives it its name; an exception removes it.
    The sound is cut, or padded with silence, to exactly frames / fps.

    Args:
        path: file to make, replaced if it exists. The folder must exist.
        width: of the frames, pixels. Odd sizes grow by one: the last column or row is repeated.
        height: of the frames, pixels.
        fps: frames per second, exact.
        audio: samples [C, T] and their rate, or a source that this object alone reads; None = no sound. Rates that AAC
            lacks are resampled to 48 kHz, channel counts other than 1, 2 and 6 are mixed to mono.
        crf: x264's quality, 0 (lossless) to 51; at 16 the loss cannot be seen.
        colours: what the file's numbers mean; frames that are written as they were decoded need those of their source.
        aspect: width of a pixel / its height, where they are not square.

    Raises:
        ValueError: a size or rate that makes no sense.
        RuntimeError: PyAV was built without an H.264 encoder.
        OSError: there is no such folder, it cannot be written to, or the path is one itself.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        width: int,
        height: int,
        fps: Fraction,
        audio: SoundSource | tuple[Any, int] | None = None,
        crf: int = 16,
        colours: Colours | None = None,
        aspect: Fraction = Fraction(1),
    ) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        if width < 1 or height < 1 or fps <= 0:
            raise ValueError(f"A video of {width} x {height} px at {fps} fps cannot be written; check the source.")
        if max(width, height) > LARGEST_SIDE:
            raise ValueError(
                f"A video of {width} x {height} px is more than H.264 holds: make it at most {LARGEST_SIDE} px a side."
            )
        self._path = Path(path).absolute()  # FFmpeg takes "Take: 1.mp4" for a protocol
        self._shape = (height, width, 3)
        self._frames, self._muxed, self._samples = 0, 0, 0
        self._fps = coder_rate(fps)
        self._colours = colours or Colours()
        self._reformatter = VideoReformatter()
        self._sound = None if audio is None else _encodable(as_sound(audio))
        self._rate = FALLBACK_RATE if self._sound is None else self._sound.rate
        # The file's clock: in milliseconds, the default, the end of the sound would be rounded.
        options = {"movflags": "+faststart", "movie_timescale": str(self._rate)}
        self._container: Any = None
        self._coder: h264.Coder | None = None
        self._partial = _begun(self._path)
        try:
            self._container = av.open(str(self._partial), "w", format="mp4", options=options)
            form = width, height, self._fps, self._colours, crf, aspect
            self._video, self._coder = h264.add_video(self._container, *form)
            self._audio: Any = None if self._sound is None else self._add_audio(self._sound)
        except BaseException:
            self.discard()
            raise

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Append frames.

        Args:
            frames: uint8 [n, H, W, 3] RGB of the size announced.

        Raises:
            ValueError: another size or type.
        """
        if frames.dtype != np.uint8 or frames.shape[1:] != self._shape:
            raise ValueError(
                f"Expected uint8 frames [n, {', '.join(map(str, self._shape))}], got {frames.dtype} "
                f"{list(frames.shape)}. All frames of a video have one size."
            )
        self._encode(map(self._picture, frames))

    def write_coded(self, frames: Iterable[Any]) -> None:
        """Append PyAV frames without a conversion.

        Args:
            frames: 4:2:0 in the `colours` and of the size announced; the same one may come again.

        Raises:
            ValueError: another size or format.
        """
        height, width, _ = self._shape
        frames = list(frames)
        for frame in frames:
            found = frame.format.name, frame.width, frame.height
            if found != (CODED, width, height):
                raise ValueError(f"Expected frames {CODED} of {width} x {height} px, got {found}.")
        self._encode(frames)

    def _encode(self, pictures: Iterable[Any]) -> None:
        assert self._coder is not None
        for picture in pictures:
            if self._coder.holds(picture):  # the same one again, as in a video that is held or runs back
                picture = copied(picture)
            picture.pts, picture.time_base = self._frames, 1 / self._fps
            picture.pict_type = 0  # the encoder's choice, not what a decoder found
            self._frames += 1
            self._mux_video(self._coder.encode(picture))

    def close(self) -> None:
        """Complete the file and move it to its name; calling it again does nothing.

        Raises:
            ValueError: no frame was written.
        """
        if self._container is None:
            return
        try:
            if not self._frames:
                raise ValueError("No frame was written, so there is no video. Check the source's length.")
            assert self._coder is not None
            self._mux_video(self._coder.finish())
            self._write_sound(last=True)
            self._container.close()
            os.replace(self._partial, self._path)
            self._container = None
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Stop and leave nothing behind."""
        container, self._container = self._container, None
        if self._coder is not None:
            self._coder.stop()
        if container is not None:
            with contextlib.suppress(OSError, ValueError):  # the trailer of a broken file; the file goes anyway
                container.close()
        self._partial.unlink(missing_ok=True)

    def _add_audio(self, sound: SoundSource) -> Any:
        stream = self._container.add_stream("aac", rate=sound.rate, layout=LAYOUTS[sound.channels])
        each, together = MOST_BITS
        stream.bit_rate = min(min(BITS_PER_SAMPLE * sound.rate, each) * sound.channels, together)
        return stream

    def _picture(self, frame: NDArray[np.uint8]) -> Any:
        import av

        height, width, _ = self._shape
        if height % 2 or width % 2:
            frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")
        return self._reformatter.reformat(
            picture,
            format=CODED,
            dst_colorspace=self._colours.scaler,
            interpolation=SCALING,
        )

    def _write_sound(self, last: bool) -> None:
        """Encode the sound up to the pictures in the file so far, so that both lie side by side in it."""
        if self._sound is None:
            return
        import av

        due = round(self._muxed / self._fps * self._rate)
        while self._samples < due and (last or due - self._samples >= BLOCK):
            stop = min(due, self._samples + BLOCK)
            block = fit_audio(self._sound.read(self._samples, stop), 1, Fraction(stop - self._samples))
            block = np.ascontiguousarray(block.clip(-1, 1))
            frame = av.AudioFrame.from_ndarray(block, "fltp", LAYOUTS[len(block)])
            frame.sample_rate, frame.pts, frame.time_base = self._rate, self._samples, Fraction(1, self._rate)
            self._mux(self._audio.encode(frame))
            self._samples = stop
        if last:
            self._mux(self._audio.encode(None))

    def _mux_video(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.stream, packet.time_base = self._video, 1 / self._fps
            self._container.mux(packet)
            self._muxed += 1
            self._write_sound(last=False)

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            self._container.mux(packet)


def _encodable(sound: SoundSource) -> SoundSource:
    """A sound in a layout and at a rate that AAC has."""
    mono, rate = sound.channels not in LAYOUTS, sound.rate if sound.rate in AAC_RATES else FALLBACK_RATE
    return Converted(sound, rate, mono) if mono or rate != sound.rate else sound


def _begun(path: Path) -> Path:
    """An empty file beside the result: what cannot be written is noticed now, and not after long work.

    Its name is unique, so that two runs never share it, and short, so that any name a result may have is possible; the
    final rename stays on one disk.
    """
    partial = path.with_name(f".wavsyncswap-{uuid.uuid4().hex[:8]}.part")
    try:
        there, taken = _is_folder(path.parent), _is_folder(path)
        if there and not taken:
            partial.touch(exist_ok=False)
            return partial
    except OSError as error:
        raise type(error)(
            f"{path} cannot be written ({error.strerror}). Choose another place or name, or allow writing there."
        ) from error
    if taken:
        raise IsADirectoryError(f"{path} is a folder. Name the file, for example {path / 'result.mp4'}.")
    raise FileNotFoundError(f"There is no folder {path.parent}. Make it, or choose another place.")


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)  # `is_dir` hides a name that is too long, in some versions of Python
    except (FileNotFoundError, NotADirectoryError):
        return False

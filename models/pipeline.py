"""The whole job, chunk by chunk: decode, track, crop, generate, paste, encode.

Two passes over the source. The first keeps only numbers (where the face is), so that the crop can be smoothed
with a view of what comes; the second makes the pictures. Memory depends on the chunk, not on the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from . import geometry, timing
from .audio import MEL_SILENCE, N_MELS, WINDOW_COLUMNS
from .blend import COLOUR_MATCHES, MOST_FEATHER
from .chunk_swap import ChunkReferences, ChunkSwap
from .face_track import FaceTrack
from .face_work import in_torch
from .frames import FrameSource, StillImage
from .memory import trim
from .parallel import abreast, threads
from .pictures import FaceWindows, Pictures, face_windows, pictures
from .references import Preview, References, preview_rows, shot_numbers
from .selection import Selection
from .sound import DrivingMel, SoundSource, as_sound, seconds_of
from .stages import Stopwatch, ahead, behind
from .tracks import Embed, FaceTracker
from .video_writer import VideoWriter

if TYPE_CHECKING:
    from .faces import Detector
    from .generator import FaceGenerator
    from .identity import FaceEmbedding

T = TypeVar("T")
Progress = Callable[[int, int], None]
Sound = tuple[NDArray[np.float32], int]

_Planned = tuple[Pictures, FaceWindows | None, torch.Tensor]  # frames, what shows the face, and all mel windows
_Begun = tuple[Pictures, FaceWindows | None, ChunkSwap | None]

# Of frames in RGB. On four threads seven chunks are on their way, and a CPU draws several at a time: with 16 frames a
# chunk, what that leaves behind in each thread's memory grows by a quarter within minutes.
CHUNK_BYTES = {"cpu": 24 << 20, "cuda": 96 << 20}
MOST_FRAMES, LEAST_FRAMES = {"cpu": 9, "cuda": 32}, 4
TRIMMED = 128  # frames after which memory is given back


@dataclass(frozen=True)
class SwapOptions:
    """How the job is done.

    Attributes:
        selection: which face.
        smoothing: of the crop's movement, 0 = off .. 1.
        feather: soft edge of the paste as a share of the crop's side, 0 to 0.5, where it reaches the middle.
        colour_match: one of `blend.COLOUR_MATCHES`.
        length: what happens when sound and video differ, see `timing.plan_length`.
        speech_gate: quiets the mel where nobody speaks, 0 = off .. 1.
        audio_offset: seconds by which the lips are moved against the sound; positive = later.
        chunk: frames held at a time; None = by their size and the device.

    Raises:
        ValueError: a number outside its range, or a name that there is not.
    """

    selection: Selection = field(default_factory=Selection)
    smoothing: float = 0.5
    feather: float = 0.05
    colour_match: str = "lab"
    length: str = "pad"
    speech_gate: float = 1.0
    audio_offset: float = 0.0
    chunk: int | None = None

    def __post_init__(self) -> None:
        for name, most in (("smoothing", 1.0), ("feather", MOST_FEATHER), ("speech_gate", 1.0)):
            if not 0 <= (value := getattr(self, name)) <= most:
                raise ValueError(f"{name} is {value:g}; choose a number from 0 to {most:g}.")
        if not np.isfinite(self.audio_offset):
            raise ValueError(f"audio_offset is {self.audio_offset:g}; give seconds, 0 for none.")
        for name, known in (("colour_match", COLOUR_MATCHES), ("length", timing.POLICIES)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}.")


@dataclass(frozen=True)
class SwapReport:
    """What was done: frames written, the track they were made with, and remarks worth reading."""

    frames: int
    track: FaceTrack
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join((f"{self.frames} frames written", *self.remarks))


def talking_swap(
    source: FrameSource,
    audio: SoundSource | Sound | None,
    embedding: FaceEmbedding | None,
    output: Path,
    *,
    generator: FaceGenerator,
    detector: Detector,
    options: SwapOptions | None = None,
    embed: Embed | None = None,
    progress: Progress | None = None,
    watch: Stopwatch | None = None,
) -> SwapReport:
    """Give the face of a video another identity and lips that follow a sound.

    Frames without the face pass through; the number of frames follows the length policy and the rate is kept.

    Args:
        source: target video or still.
        audio: a sound that nobody else reads meanwhile, or samples [C, T] and their rate; None = the lips rest, and the
            result has no sound.
        embedding: source identity; None = the face stays the target's own and only the lips are new.
        output: mp4 to write; appears only when complete.
        generator: a loaded generator.
        detector: face detector.
        options: see `SwapOptions`.
        embed: embeds faces in frames, needed to select by reference identity.
        progress: called with (done, total) after every chunk and while one is waited for; may raise to interrupt.
        watch: is told how long each stage was busy.

    Raises:
        ValueError: no face anywhere, or inputs that do not fit; the message says what to do.
    """
    options = options or SwapOptions()
    generator.check_identity(embedding)  # now, not after a long first pass
    info = source.info
    sound = None if audio is None else as_sound(audio)
    sound = sound if sound is not None and sound.samples else None
    seconds = None if sound is None else seconds_of(sound)
    plan = timing.plan_length(info.frames, info.fps, seconds, options.length)
    needed = 1 if isinstance(source, StillImage) else min(info.frames, plan.frames)
    step, watch = progress or (lambda done, total: None), watch or Stopwatch()
    total = needed + plan.frames
    size = options.chunk or _chunk(info.width * info.height * 3, generator.device)

    driven = None
    if sound is not None:
        driven = DrivingMel(sound, options.speech_gate, options.audio_offset, alive=lambda: step(0, total))
    twin = None if sound is None else sound.twin()
    form = info.width, info.height, info.fps
    with VideoWriter(output, *form, twin, colours=info.tags, aspect=info.aspect) as writer:
        track = _tracked(source, needed, size, detector, options, embed, lambda done: step(done, total), watch)
        start = 0
        alive = lambda: step(needed + start, total)  # noqa: E731  # reads `start` as it is then
        references = References(watch.timed("warp", _preview(source, track, generator.px, size, alive)))
        swap = _Swap(generator, embedding, references, track.cuts, options, watch)
        decoded = watch.each("decode", _planned(source.twin(), driven, plan, size, track, generator.mel_lag))
        encode = watch.timed("encode", lambda whole: whole.write(writer))
        count = 1 if generator.takes_all_cores else threads()
        with (
            ahead(decoded) as chunks,
            behind(encode) as write,
            abreast(swap.finished, swap.begun(_trimmed(chunks, size), alive), count, alive) as done,
        ):
            for whole in done:
                write(whole)
                start += len(whole.frames)
                step(needed + start, total)
    remarks = [track.report(generator.px), plan.message, *source.info.notes]
    if embedding is None:
        remarks.append("No source identity: the face stays the target's own, only the lips are new.")
    if not generator.hears:
        remarks.append("This model does not hear: the lips stay the target's. Load it with Wav2Lip to move them.")
    if sound is None:
        remarks.append(f"No sound: {'the lips rest and ' if generator.hears else ''}the result has no audio track.")
    return SwapReport(plan.frames, track, tuple(remark for remark in remarks if remark))


@dataclass(frozen=True)
class _Swap:
    """The second pass between decoder and encoder: what needs an order for each chunk, then the rest side by side."""

    generator: FaceGenerator
    embedding: FaceEmbedding | None
    references: References
    cuts: tuple[int, ...]
    options: SwapOptions
    watch: Stopwatch

    def begun(self, chunks: Iterator[_Planned], alive: Callable[[], None]) -> Iterator[_Begun]:
        """Chunks with their faces cut out, and as much of the rest as has to be done by one thread."""
        for whole, faces, heard in chunks:
            work = None
            if faces is not None:
                heard = heard[torch.from_numpy(faces.rows)]
                work = ChunkSwap(faces.frames, faces.track, heard, self.generator, self.watch)
                shots = shot_numbers(self.cuts, faces.numbers)
                work.cut(ChunkReferences(self.references, faces.numbers, shots))
                if self.generator.alone:
                    work.draw(self.embedding, alive)
                if in_torch(self.generator.device):  # a card does one thing at a time, and should hold one chunk
                    self._pasted(work)
            yield whole, faces, work

    def finished(self, chunk: _Begun, alive: Callable[[], None]) -> Pictures:
        """A chunk with new faces."""
        whole, faces, work = chunk
        if faces is not None and work is not None:
            work.draw(self.embedding, alive)
            made = self._pasted(work)
            with self.watch("paste"):
                whole.put(faces.rows, faces.area, faces.frames, made)
        return whole

    def _pasted(self, work: ChunkSwap) -> NDArray[np.uint8]:
        return work.paste(self.options.feather, self.options.colour_match)


def _preview(source: FrameSource, track: FaceTrack, px: int, size: int, alive: Callable[[], None]) -> Preview:
    """Crops of a shot that references may be made of before it begins.

    Args:
        source: the video.
        track: of all its frames.
        px: side of the crops.
        size: frames held at a time.
        alive: called before each frame, and may raise.
    """
    shots = shot_numbers(track.cuts, np.arange(len(track)))

    def decoded(row: int) -> Any:
        alive()
        return source.decoded(row, row + 1)[0]

    def crops(shot: int) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
        rows = preview_rows(np.flatnonzero(track.present & (shots == shot)))
        cut = []
        for some in (rows[start : start + size] for start in range(0, len(rows), size)):
            faces = face_windows(pictures([decoded(row) for row in some.tolist()], source.colours), track, some)
            assert faces is not None  # it is there in all of these
            cut.append(geometry.warp_crops(faces.frames, faces.track.matrices, px))
        return np.concatenate(cut), rows

    return crops


def _chunk(frame: int, device: torch.device) -> int:
    """Frames of so many bytes held at a time."""
    kind = device.type if device.type in MOST_FRAMES else "cpu"
    return max(LEAST_FRAMES, min(MOST_FRAMES[kind], CHUNK_BYTES[kind] // frame))


def _tracked(
    source: FrameSource,
    count: int,
    chunk: int,
    detector: Detector,
    options: SwapOptions,
    embed: Embed | None,
    step: Callable[[int], None],
    watch: Stopwatch,
) -> FaceTrack:
    """The first pass: where the face is in the source's first `count` frames."""
    known = FaceTracker(detector, source.info.fps, embed, watch=watch)
    frames = watch.each("decode", _first_frames(source.twin(draft=True), count, chunk, known.threads + 2))
    with ahead(frames) as chunks:
        known.add_all(_trimmed(chunks, chunk), step)
    with watch("track"):
        return known.select(options.selection, options.smoothing)


def _planned(
    source: FrameSource, driven: DrivingMel | None, plan: timing.LengthPlan, size: int, track: FaceTrack, lag: int
) -> Iterator[_Planned]:
    """Output frames before any change, chunk by chunk, with what shows the face and all mel windows."""
    for start in range(0, plan.frames, size):
        stop = min(start + size, plan.frames)
        if driven is None:
            heard = torch.full((stop - start, 1, N_MELS, WINDOW_COLUMNS), MEL_SILENCE)
        else:
            heard = driven.windows(stop - start, track.fps, lag, start)
        numbers = np.minimum(timing.source_indices(plan, start, stop), len(track) - 1)
        whole = pictures(timing.read_planned(source.decoded, plan, start, stop), source.colours)
        yield whole, face_windows(whole, track, numbers), heard


def _trimmed(chunks: Iterator[T], size: int) -> Iterator[T]:
    """Chunks of `size` frames; before some of them, what the ones before took is given back to the system.

    Not before each: what is given back is asked for again, a tenth of the time of a fast job.
    """
    for number, chunk in enumerate(chunks):
        if number % max(1, TRIMMED // size) == 0:
            trim()
        yield chunk


def _first_frames(source: FrameSource, count: int, size: int, arrays: int) -> Iterator[NDArray[np.uint8]]:
    """The first `count` frames in so many arrays that come again: one is ready or being filled, the others in use."""
    shape = (min(size, count), source.info.height, source.info.width, 3)
    filled = [np.empty(shape, np.uint8) for _ in range(arrays)]
    for start in range(0, count, size):
        yield source.read(start, min(start + size, count), filled[start // size % arrays])

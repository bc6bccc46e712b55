"""The whole job, chunk by chunk: decode, track, crop, generate, paste, encode.

Two passes over the source. The first keeps only numbers (where the face is), so that the crop can be smoothed
with a view of what comes; the second makes the pictures. Memory depends on the chunk, not on the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from . import blend, geometry, timing
from .audio import driving_mel, load_mel, open_ended_windows, silent_mel
from .face_track import FaceTrack
from .references import Preview, References, preview_rows, shot_numbers
from .stages import Stopwatch, ahead, behind
from .tracks import Embed, FaceTracker, Selection
from .video import FrameSource, StillImage
from .video_writer import VideoWriter

if TYPE_CHECKING:
    from .faces import Detector
    from .generator import FaceGenerator
    from .identity import FaceEmbedding

Progress = Callable[[int, int], None]
Sound = tuple[NDArray[np.float32], int]

CHUNK_BYTES = 48 << 20  # of frames; some chunks are on their way at a time
MOST_FRAMES, LEAST_FRAMES = {"cpu": 16, "cuda": 64}, 4


@dataclass(frozen=True)
class SwapOptions:
    """How the job is done.

    Attributes:
        selection: which face.
        smoothing: of the crop's movement, 0 = off .. 1.
        feather: soft edge of the paste as a share of the crop's side.
        colour_match: "off" or "lab".
        length: what happens when sound and video differ, see `timing.plan_length`.
        speech_gate: quiets the mel where nobody speaks, 0 = off .. 1.
        audio_offset: seconds by which the lips are moved against the sound; positive = later.
        chunk: frames held at a time; None = by their size and the device.
    """

    selection: Selection = field(default_factory=Selection)
    smoothing: float = 0.5
    feather: float = 0.05
    colour_match: str = "lab"
    length: str = "pad"
    speech_gate: float = 1.0
    audio_offset: float = 0.0
    chunk: int | None = None


@dataclass(frozen=True)
class ChunkReferences:
    """The clip's references with the numbers [n] of a chunk's frames in the source and of their shots."""

    references: References
    frames: NDArray[np.integer]
    shots: NDArray[np.integer]

    def choose(self, crops: NDArray[np.uint8], there: NDArray[np.integer]) -> torch.Tensor:
        """References for the crops uint8 [m, S, S, 3] of the chunk's frames `there` -> uint8 [m, 3, S, S]."""
        return as_pictures(self.references.choose(crops, self.frames[there], self.shots[there]))


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
    audio: Sound | None,
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
        audio: float32 [C, T] and rate, or None (the lips then rest, and the result has no sound).
        embedding: source identity; None = the face stays the target's own and only the lips are new.
        output: mp4 to write; appears only when complete.
        generator: a loaded generator.
        detector: face detector.
        options: see `SwapOptions`.
        embed: embeds faces in frames, needed to select by reference identity.
        progress: called with (done, total) at least once a chunk and once a batch; may raise to interrupt.
        watch: is told how long each stage was busy.

    Raises:
        ValueError: no face anywhere, or inputs that do not fit; the message says what to do.
    """
    options = options or SwapOptions()
    generator.check_identity(embedding)  # now, not after a long first pass
    info = source.info
    audio = audio if audio is not None and audio[0].shape[-1] else None
    seconds = None if audio is None else audio_seconds(audio)
    plan = timing.plan_length(info.frames, info.fps, seconds, options.length)
    needed = 1 if isinstance(source, StillImage) else min(info.frames, plan.frames)
    step, watch = progress or (lambda done, total: None), watch or Stopwatch()
    total = needed + plan.frames
    chunk = options.chunk or _chunk(info.width * info.height * 3, generator.device)

    driven = _driven(audio, plan, options)
    with VideoWriter(output, info.width, info.height, info.fps, audio) as writer:
        track = _tracked(source, needed, chunk, detector, options, embed, lambda done: step(done, total), watch)
        start = 0
        alive = lambda: step(needed + start, total)  # noqa: E731  # reads `start` as it is then
        references = References(watch.timed("warp", _preview(source, track, generator.px, alive)))
        decoded = watch.each("decode", _planned(source.twin(), plan, chunk))
        encode = watch.timed("encode", writer.write)
        with ahead(decoded) as chunks, behind(encode) as write:
            for start, frames in chunks:
                stop = start + len(frames)
                rows = np.minimum(timing.source_indices(plan, start, stop), len(track) - 1)
                windows = open_ended_windows(driven, stop - start, info.fps, generator.mel_lag, start)
                chosen = ChunkReferences(references, rows, shot_numbers(track.cuts, rows))
                job = (frames, picked(track, rows), windows, embedding, generator, options, chosen)
                write(swap_frames(*job, watch=watch, alive=alive))
                step(needed + stop, total)
    remarks = [track.report(generator.px), plan.message, *info.notes]
    if embedding is None:
        remarks.append("No source identity: the face stays the target's own, only the lips are new.")
    if not generator.hears:
        remarks.append("This model does not hear: the lips stay the target's. Load it with Wav2Lip to move them.")
    if audio is None:
        remarks.append(f"No sound: {'the lips rest and ' if generator.hears else ''}the result has no audio track.")
    return SwapReport(plan.frames, track, tuple(remark for remark in remarks if remark))


def swap_frames(
    frames: NDArray[np.uint8],
    track: FaceTrack,
    windows: torch.Tensor,
    embedding: FaceEmbedding | None,
    generator: FaceGenerator,
    options: SwapOptions,
    references: ChunkReferences | None = None,
    watch: Stopwatch | None = None,
    alive: Callable[[], None] = lambda: None,
) -> NDArray[np.uint8]:
    """One chunk: crop, generate, paste. Frames without the face are returned as they are.

    Args:
        frames: uint8 [n, H, W, 3] RGB; written to where they are nobody else's.
        track: the same n frames.
        windows: float32 [n, 1, 80, 16].
        embedding: source identity, None = the target's own.
        generator: a loaded generator.
        options: see `SwapOptions`.
        references: chooses among other crops; None = each crop is its own reference.
        watch: is told how long each stage was busy.
        alive: called after every batch; may raise to interrupt.

    Returns:
        uint8 [n, H, W, 3].
    """
    watch = watch or Stopwatch()
    there = np.flatnonzero(track.present)
    if not len(there):
        return frames
    with watch("warp"):
        crops = np.concatenate(
            [geometry.warp_crops(frames[i : i + 1], track.matrices[i : i + 1], generator.px) for i in there]
        )
        shown = None if references is None else references.choose(crops, there)
    with watch("net"):
        heard = windows[torch.from_numpy(there)]
        made = generator.generate(as_pictures(crops), heard, embedding, shown, progress=lambda *_: alive())
        drawn = np.zeros((len(frames), *made.shape[2:], 3), np.float32)
        drawn[there] = made.permute(0, 2, 3, 1).numpy()
    with watch("paste"):
        result = frames if frames.flags.owndata and frames.flags.writeable else frames.copy()
        blend.paste_into(result, drawn, track, options.feather, options.colour_match)
    return result


def _preview(source: FrameSource, track: FaceTrack, px: int, alive: Callable[[], None]) -> Preview:
    """Crops of a shot that references may be made of before it begins; `alive` is called before each, and may raise."""
    shots = shot_numbers(track.cuts, np.arange(len(track)))

    def crops(shot: int) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
        rows = preview_rows(np.flatnonzero(track.present & (shots == shot)))
        cut = []
        for row in rows.tolist():
            alive()
            cut.append(geometry.warp_crops(source.read(row, row + 1), track.matrices[[row]], px))
        return np.concatenate(cut), rows

    return crops


def as_pictures(crops: NDArray[np.uint8]) -> torch.Tensor:
    """uint8 [n, S, S, 3] -> uint8 [n, 3, S, S]: a quarter of what floats would take on the way to a device."""
    return torch.from_numpy(crops).permute(0, 3, 1, 2)


def picked(track: FaceTrack, rows: NDArray[np.integer]) -> FaceTrack:
    """The track's frames in another order or number; shot starts are left out, the smoothing they guard is done."""
    return replace(
        track,
        present=track.present[rows],
        matrices=track.matrices[rows],
        landmarks=track.landmarks[rows],
        confidence=track.confidence[rows],
        cuts=(),
    )


def audio_seconds(audio: Sound) -> Fraction:
    """Length of a sound in seconds, exact."""
    return Fraction(audio[0].shape[-1], audio[1])


def _driven(audio: Sound | None, plan: timing.LengthPlan, options: SwapOptions) -> torch.Tensor:
    """What moves the lips, float32 [80, T]."""
    mel = silent_mel(plan.audio_seconds) if audio is None else load_mel(*audio)
    return driving_mel(mel, options.speech_gate, options.audio_offset)


def _chunk(frame: int, device: torch.device) -> int:
    """Frames of so many bytes held at a time."""
    most = MOST_FRAMES.get(device.type, MOST_FRAMES["cpu"])
    return max(LEAST_FRAMES, min(most, CHUNK_BYTES // frame))


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
    known = FaceTracker(detector, source.info.fps, None if embed is None else watch.timed("embed", embed))
    known.detect = watch.timed("detect", known.detect)
    frames = watch.each("decode", _first_frames(source.twin(), count, chunk))
    with ahead(frames) as chunks:
        for part in chunks:
            with watch("track"):
                known.add(part)
            step(len(known))
    with watch("track"):
        return known.select(options.selection, options.smoothing)


def _planned(source: FrameSource, plan: timing.LengthPlan, chunk: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Output frames before any change, chunk by chunk, each with the number of its first."""
    for start in range(0, plan.frames, chunk):
        yield start, timing.read_planned(source, plan, start, min(start + chunk, plan.frames))


def _first_frames(source: FrameSource, count: int, chunk: int) -> Iterator[NDArray[np.uint8]]:
    if count < source.info.frames:
        for start in range(0, count, chunk):
            yield source.read(start, min(start + chunk, count))
    else:
        yield from source.chunks(chunk)

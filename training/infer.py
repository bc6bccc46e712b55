"""The main job without the host: video + face + speech -> the video with that face, lips in sync."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.faces import Detector, load_detector
from models.frames import StillImage
from models.generator import load_generator
from models.identity import FaceEmbedding, Recogniser, average_embeddings, load_recogniser
from models.pipeline import SwapOptions, SwapReport, talking_swap
from models.selection import Selection
from models.sound import SoundSource, seconds_of
from models.stages import Stopwatch
from models.video import VideoFile, open_audio

from .outputs import Named, check_file, check_outputs

log = logging.getLogger(__name__)

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
STILL_FPS = Fraction(25)


def first_frame(path: Path) -> np.ndarray:
    """First picture of an image or video file, uint8 [H, W, 3] RGB."""
    return VideoFile(path).read(0, 1)[0]


def embed_faces(paths: list[Path], recogniser: Recogniser, detector: Detector) -> FaceEmbedding:
    """One identity from pictures (or first frames of videos) of the same person, outliers left out."""
    return average_embeddings([recogniser.embed_image(first_frame(path), detector) for path in paths])


def open_sound(path: Path) -> SoundSource:
    """Sound of an audio or video file.

    Raises:
        ValueError: the file holds no sound.
    """
    sound = open_audio(path)
    if sound is None:
        raise ValueError(f"{path} holds no sound. Give --audio a file with speech.")
    return sound


def open_target(path: Path, seconds: Fraction | None) -> VideoFile | StillImage:
    """The target as a frame source; a picture becomes a still clip as long as the speech.

    Raises:
        ValueError: a picture without speech, which says nothing about the length.
    """
    if path.suffix.lower() not in PICTURES:
        return VideoFile(path)
    if seconds is None:
        raise ValueError(f"{path.name} is a still picture: give --audio, which says how long the video becomes.")
    return StillImage(first_frame(path), max(1, round(seconds * STILL_FPS)), STILL_FPS)


def progress_bar() -> tuple[tqdm, Callable[[int, int], None]]:
    """A bar, and the callable that moves it to (done, total)."""
    bar = tqdm(unit="frame", desc="track + generate")

    def move(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return bar, move


def write_profile(path: Path, watch: Stopwatch, frames: int, fps: Fraction, wall: float) -> None:
    """How long each stage was busy, as JSON to a file and as a table to the log.

    Stages run side by side, so that their shares of the time together may be more than 1.
    """
    table = watch.table(frames, wall, float(frames / fps))
    path.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    log.info("%d frames in %.2f s, real-time factor %.4f", frames, wall, table["real_time_factor"])
    for stage, row in table["stages"].items():
        log.info("%-8s %8.2f ms/frame %5.1f %%", stage, row["ms_per_frame"], 100 * row["share"])


class Engines:
    """Detector, generator and recogniser, loaded once for any number of jobs."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.detector = load_detector(args.detector, args.device, args.threshold)
        self.generator = load_generator(args.weights, args.device, args.precision, args.adapter)
        self.recogniser = load_recogniser(args.recogniser, args.device)
        if args.compile:
            self.generator.compile()


def files_read(args: argparse.Namespace) -> list[Named]:
    """What one job reads."""
    several = [("--face", path) for path in args.face or ()] + [("--weights", path) for path in args.weights]
    names = ("video", "audio", "adapter", "recogniser", "detector")
    return [*((f"--{name}", getattr(args, name)) for name in names), *several]


def options_of(args: argparse.Namespace) -> SwapOptions:
    """How one job is done.

    Raises:
        ValueError: a number outside its range.
    """
    return SwapOptions(
        selection=Selection(order=args.select, index=args.index),
        smoothing=args.smoothing,
        feather=args.feather,
        colour_match=args.colour_match,
        length=args.length,
        speech_gate=args.speech_gate,
        audio_offset=args.audio_offset,
    )


def swap(
    args: argparse.Namespace,
    engines: Engines,
    progress: Callable[[int, int], None] | None = None,
    watch: Stopwatch | None = None,
) -> SwapReport:
    """One job as the options say; returns the pipeline's report."""
    check_file("--out", args.out)
    embedding = embed_faces(args.face, engines.recogniser, engines.detector) if args.face else None
    sound: SoundSource | None = open_sound(args.audio) if args.audio else None
    target = open_target(args.video, None if sound is None else seconds_of(sound))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    return talking_swap(
        target,
        sound or target.sound(),
        embedding,
        args.out,
        generator=engines.generator,
        detector=engines.detector,
        options=options_of(args),
        embed=engines.recogniser.embed_frames,  # a face keeps its identity across cuts
        progress=progress,
        watch=watch,
    )


def infer(args: argparse.Namespace) -> SwapReport:
    """One job with a progress bar, and a profile if asked for.

    Raises:
        ValueError: a file to be written is one that is read, or cannot be written; and the job's own errors.
    """
    check_outputs([("--out", args.out), ("--profile", args.profile)], files_read(args))
    options_of(args)  # a wrong number is told before models are loaded
    engines, watch, begun = Engines(args), Stopwatch(), time.perf_counter()
    bar, move = progress_bar()
    with bar:
        report = swap(args, engines, move, watch)
    if args.profile:
        args.profile.parent.mkdir(parents=True, exist_ok=True)
        write_profile(args.profile, watch, report.frames, report.track.fps, time.perf_counter() - begun)
    return report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training infer`."""
    files = parser.add_argument_group("files")
    files.add_argument(
        "--video",
        type=Path,
        metavar="FILE",
        help="target video, or one still portrait (default: none; needed without --batch)",
    )
    files.add_argument(
        "--face",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="source face; several pictures are averaged (default: none, lip sync alone, the face stays the target's)",
    )
    files.add_argument(
        "--audio", type=Path, metavar="FILE", help="speech, from any audio or video file (default: the video's own)"
    )
    files.add_argument(
        "--out", type=Path, metavar="FILE", help="mp4 to write, H.264 + AAC (default: none; needed without --batch)"
    )
    face = parser.add_argument_group("which face")
    face.add_argument(
        "--select",
        choices=("largest", "smallest", "left-right", "right-left"),
        default="largest",
        help="order in which faces are counted (default %(default)s)",
    )
    face.add_argument("--index", type=int, default=0, help="which face in that order, from 0 (default %(default)s)")
    face.add_argument(
        "--threshold",
        type=float,
        default=0.6,
        help="detector score from which a face counts, 0..1 (default %(default)s)",
    )
    look = parser.add_argument_group("result")
    look.add_argument(
        "--length",
        choices=("pad", "cut", "loop", "bounce", "hold"),
        default="pad",
        help="when sound and video differ: pad = the video keeps its length, cut = both end with the shorter, "
        "loop/bounce/hold = the video follows the sound (default %(default)s)",
    )
    look.add_argument(
        "--smoothing",
        type=float,
        default=0.5,
        help="of the crop's movement over time, 0 = off .. 1 (default %(default)s)",
    )
    look.add_argument(
        "--feather",
        type=float,
        default=0.05,
        help="soft edge as a share of the crop's side, 0 .. 0.5 (default %(default)s)",
    )
    look.add_argument(
        "--colour-match",
        choices=("off", "lab"),
        default="lab",
        help="match skin colour before pasting (default %(default)s)",
    )
    look.add_argument(
        "--speech-gate",
        type=float,
        default=1.0,
        help="close the mouth where nobody speaks, 0 = off .. 1 (default %(default)s)",
    )
    look.add_argument(
        "--audio-offset",
        type=float,
        default=0.0,
        help="seconds by which the lips are moved against the sound; positive = later (default %(default)s)",
    )
    engine = parser.add_argument_group("engine")
    engine.add_argument(
        "--weights",
        nargs="+",
        default=["builtin"],
        metavar="FILE",
        help="generator: builtin, a safetensors file, wav2lip.pth (lip sync alone), a SimSwap generator, or one of "
        "each for both in a row (default builtin)",
    )
    engine.add_argument(
        "--adapter",
        type=Path,
        metavar="FILE",
        help="what `adapt` wrote for these weights; best with the clip it was made of (default: none)",
    )
    engine.add_argument(
        "--recogniser",
        default="builtin",
        help="builtin, .onnx, .pth or .safetensors; SimSwap needs its own arcface_checkpoint.tar (default %(default)s)",
    )
    engine.add_argument(
        "--detector", default="builtin", help="builtin, or an insightface pack folder (default %(default)s)"
    )
    engine.add_argument("--device", default="cpu", help="torch device, e.g. cpu, cuda, mps (default %(default)s)")
    engine.add_argument(
        "--precision",
        choices=("auto", "fp32", "bf16", "fp16"),
        default="auto",
        help="number type; auto = the fastest here whose pictures are those of fp32 (default %(default)s)",
    )
    engine.add_argument(
        "--compile", action="store_true", help="torch.compile, with CUDA graphs: pays for long jobs on a GPU"
    )
    many = parser.add_argument_group("many jobs")
    many.add_argument(
        "--batch",
        type=Path,
        metavar="JOBS",
        help='file of jobs, a JSON object a line: {"video": ..., "out": ...} and other options; those whose out is '
        "there, made with the options and weights of now, are done already (default: one job)",
    )
    many.add_argument(
        "--processes",
        type=int,
        default=1,
        help="jobs at a time; with --device cuda they share the GPUs (default %(default)s)",
    )
    engine.add_argument(
        "--profile", type=Path, metavar="FILE", help="write the seconds of each stage to a JSON file (default: none)"
    )


def run(args: argparse.Namespace) -> int:
    """Run and report."""
    if args.batch is not None:
        if args.profile:
            raise ValueError("--profile is for one job: leave out --batch.")
        from . import infer_batch

        return infer_batch.run(args)
    if args.video is None or args.out is None:
        raise ValueError("Give --video and --out, or --batch with a file of jobs.")
    report = infer(args)
    log.info("%s", report)
    print(args.out)
    return 0

"""Whole jobs for the benchmark, file to file: ours through the pipeline, the public cascade as its programs run it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.faces import load_detector
from models.memory import wait_for
from models.metrics import rtf
from models.pipeline import talking_swap
from models.stages import Stopwatch
from models.upstream import talking_swap_upstream

from .demo import astronaut
from .evaluation.stand_ins import face_handed_on
from .inference_systems import System

WIDTH, HEIGHT, FPS, RATE = 1280, 720, Fraction(25), 16000
NOISE = 2.0  # grey levels, standard deviation


class EndToEnd:
    """A clip, and systems that are run on it.

    Args:
        clip: a video with one face; None = a portrait moving over grey, with noise as its speech.
        seconds: that are used of it.
        device: of detector and systems.

    Raises:
        ImportError: PyAV or, for the portrait, scikit-image is missing.
    """

    def __init__(self, clip: Path | None, seconds: Fraction, device: torch.device) -> None:
        import av  # noqa: F401  # here, and not in the middle of a measurement

        from models.video import VideoFile
        from models.video_writer import VideoWriter

        self._folder = Path(tempfile.mkdtemp(prefix="wavsyncswap-"))
        self._clip, self._out = self._folder / "clip.mp4", self._folder / "out.mp4"
        self.device, self.profiles = device, dict[str, Any]()
        self._detector = load_detector("builtin", str(device))
        noise = np.random.default_rng(0).uniform(-0.1, 0.1, (1, int(seconds * RATE))).astype(np.float32)
        source = None if clip is None else VideoFile(clip)
        width, height, fps = (WIDTH, HEIGHT, FPS) if source is None else _format(source.info)
        count = round(seconds * fps) if source is None else min(round(seconds * fps), source.info.frames)
        pictures = None if source else astronaut()
        with VideoWriter(self._clip, width, height, fps, (noise, RATE)) as writer:
            for i in range(count):
                one = source.read(i, i + 1) if source else swaying(pictures, i)
                writer.write(one)
        self.name = "a moving portrait" if clip is None else clip.name
        self.duration, self.size, self.frames = float(count / fps), (width, height), count

    def __enter__(self) -> EndToEnd:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def describe(self) -> str:
        """One line on the clip."""
        return f"{self.frames} frames of {self.size[0]}x{self.size[1]}, {self.duration:g} s, {self.name}"

    def run(self, system: System) -> None:
        """One whole job."""
        from models.video import VideoFile

        if system.upstream:
            return self._public(system)
        video, watch, begun = VideoFile(self._clip), Stopwatch(), time.perf_counter()
        sound = video.audio()
        report = talking_swap(
            video, sound, system.embedding, self._out, generator=system.generator, detector=self._detector, watch=watch
        )
        wall = time.perf_counter() - begun
        self.profiles[system.name] = watch.table(report.frames, wall, self.duration)

    def _public(self, system: System) -> None:
        """Wav2Lip writes whole frames, SimSwap finds the face in them anew."""
        from models.video import VideoFile

        video = VideoFile(self._clip)
        generator = face_handed_on(system.generator)  # else the second detection would find nothing to work on
        talking_swap_upstream(
            video, video.audio(), system.embedding, self._out, system=generator, detector=self._detector
        )

    def times(self, runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
        """Seconds of each run, in turn, after one of each to warm up."""
        done = list(rtf.rounds(runs, range(rounds), synchronise=lambda: wait_for(self.device)))
        return {name: [one[name] for one in done] for name in runs}


def _format(info: Any) -> tuple[int, int, Fraction]:
    return info.width, info.height, info.fps


def swaying(portrait: Any, number: int) -> np.ndarray:
    """A frame of a portrait of 512 px swaying before a grey wall, with a sensor's noise, uint8 [1, HEIGHT, WIDTH, 3].

    Noise costs coding time in proportion, and recordings have little of it: two grey levels are a lit room's.
    """
    frame = np.full((HEIGHT, WIDTH, 3), 112, np.float32)
    left, top = round(384 + 60 * np.sin(number / 12)), round(104 + 20 * np.sin(number / 7))
    frame[top : top + 512, left : left + 512] = portrait
    frame += np.random.default_rng(number).normal(0, NOISE, frame.shape)
    return frame.round().clip(0, 255).astype(np.uint8)[None]

"""Table 3: systems timed against each other on one clip, networks alone and file to file, round by round.

Every finished round is kept, so a run that was stopped goes on with the next one.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.audio import driving_mel, load_mel, open_ended_windows
from models.face_work import as_pictures
from models.geometry import warp_crops
from models.metrics.rtf import Timing, rounds, timings
from models.networks.wav2lip import SIDE as WAV2LIP_SIDE
from models.pipeline import Sound
from models.systems import typed
from models.timing import fit_audio
from models.tracks import track_faces
from models.upstream import split, wav2lip_windows
from models.video import VideoFile
from models.video_writer import VideoWriter

from .judging import digest
from .making import Maker, sound_of
from .pairs import Pair

NET, E2E = "net", "e2e"
BATCH = 16  # faces a forward pass, but one for SimSwap as its program does it
WHAT = (
    "net = crops and mel windows in memory to new crops in memory; e2e = file to file: decoding, detection, embedding "
    "the source, networks, paste, encoding. Loading weights is in neither. One run to warm up, then rounds in which "
    "every system runs once, forwards and backwards in turn."
)


@dataclass(frozen=True)
class Stage:
    """The clip everything runs on.

    Attributes:
        pair: its target is the clip.
        seconds: of the clip, exact.
        frames: uint8 [N, H, W, 3].
        crops: float64 [N, 2, 3], where the face is.
        sound: of the clip.
    """

    pair: Pair
    seconds: Fraction
    frames: np.ndarray
    crops: np.ndarray
    sound: Sound


def stage(pairs: Sequence[Pair], folder: Path, seconds: float, maker: Maker) -> Stage:
    """Cut the first seconds of the longest target; a shorter one is played to and fro.

    Raises:
        ValueError: the target has no face or no sound.
    """
    longest = max(pairs, key=lambda pair: _duration(pair.target))
    clip = folder / "clip.mp4"
    with VideoFile(longest.target) as video:
        info, sound = video.info, sound_of(longest, video)
        if sound is None:
            raise ValueError(
                f"{longest.target.name} has no sound to time with. Name one in the test set's audio column."
            )
        count = max(1, round(seconds * info.fps))
        order = [*range(info.frames), *range(info.frames - 2, 0, -1)]
        frames = np.stack([video.read(i, i + 1)[0] for i in (order * (count // len(order) + 1))[:count]])
    heard = fit_audio(np.tile(sound[0], count // info.frames + 1), sound[1], Fraction(count) / info.fps)
    folder.mkdir(parents=True, exist_ok=True)
    with VideoWriter(clip, info.width, info.height, info.fps, (heard, sound[1])) as writer:
        writer.write(frames)
    track = track_faces(iter([frames]), maker.detector, info.fps)
    pair = Pair("clip", clip, longest.source, None, longest.person)
    return Stage(pair, Fraction(count) / info.fps, frames, track.matrices, (heard, sound[1]))


def network_run(maker: Maker, stage: Stage) -> Callable[[], object]:
    """One run of a system's networks over the clip; copies to the device and back are part of it."""
    system = maker.system
    fps = Fraction(len(stage.frames)) / stage.seconds
    mel = load_mel(*stage.sound)
    if maker.entry.contender.upstream:
        return _upstream_run(maker, stage, wav2lip_windows(mel.values.T, fps)[: len(stage.frames)])
    windows = open_ended_windows(driving_mel(mel), len(stage.frames), fps, system.mel_lag)
    embedding = maker.embed(stage.pair)
    crops = as_pictures(warp_crops(stage.frames, stage.crops, system.px))
    return lambda: system.generate(crops, windows, embedding, batch=BATCH)


def _upstream_run(maker: Maker, stage: Stage, windows: torch.Tensor) -> Callable[[], object]:
    """As many frames as the original programs make, which end a video a little early."""
    system = maker.system
    talk, swap = split(system)
    frames, places = stage.frames[: len(windows)], stage.crops[: len(windows)]
    faces = as_pictures(warp_crops(frames, places, WAV2LIP_SIDE))
    pair = torch.cat([faces, faces], 1)
    styles = swap.prepare(maker.embed(stage.pair)) if swap else []
    crops = as_pictures(warp_crops(frames, places, swap.side)) if swap else faces

    @torch.inference_mode()
    def run() -> None:
        for sound, pictures in zip(windows.split(BATCH), pair.split(BATCH), strict=True) if talk else ():
            assert talk is not None
            talk.network(*typed(talk.network, sound.to(system.device), pictures.to(system.device))).cpu()
        for crop in crops.split(1) if swap else ():
            assert swap is not None
            swap.network.modulated(crop.to(system.device), styles).cpu()

    return run


def measure(
    makers: Sequence[Maker], stage: Stage, folder: Path, repeats: int, about: dict[str, Any]
) -> dict[str, list[Timing]]:
    """Time all systems.

    Args:
        makers: loaded systems.
        stage: see there.
        folder: for finished rounds and the videos of e2e runs.
        repeats: rounds.
        about: device, precision, threads ...: rounds of other circumstances do not count.

    Returns:
        "net" and "e2e" -> a timing a system.
    """
    key = digest({**about, "systems": {m.entry.name: m.entry.settings() for m in makers}, "clip": stage.pair.digest()})
    runs: dict[str, dict[str, Callable[[], object]]] = {
        NET: {maker.entry.name: network_run(maker, stage) for maker in makers},
        E2E: {maker.entry.name: _whole_run(maker, stage, folder) for maker in makers},
    }
    synchronise = torch.cuda.synchronize if makers[0].system.device.type == "cuda" else None
    result = {}
    for what, systems in runs.items():
        path = folder / f"{what}.jsonl"
        done = _finished(path, key)[:repeats]
        for one in rounds(systems, range(len(done), repeats), synchronise=synchronise):
            done.append(one)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, "seconds": one}) + "\n")
        result[what] = timings(done, float(stage.seconds), what)
    return result


def _whole_run(maker: Maker, stage: Stage, folder: Path) -> Callable[[], object]:
    return lambda: maker.make(stage.pair, folder / f"{maker.entry.name}.mp4")


def _finished(path: Path, key: str) -> list[dict[str, float]]:
    """Rounds of an earlier run under the same circumstances; a line that was cut off is none."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if entry["key"] == key:
            found.append(entry["seconds"])
    return found


def machine(device: str) -> str:
    """What the times were measured on, in a line."""
    if torch.device(device).type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, PyTorch {torch.__version__}"
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}"


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _duration(path: Path) -> Fraction:
    with VideoFile(path) as video:
        return video.info.duration

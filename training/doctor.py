"""`python -m training doctor`: can this machine train? One line a check; status 1 and a remedy where one fails."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models import audio
from models.checkpoints import bundled_path, sha256_file
from models.identity import load_recogniser
from models.video import VideoFile, read_audio
from models.video_writer import VideoWriter

from .clips import FPS
from .data.pictures import decode, encode
from .data.reader import read_index, summary
from .engine import Engine, settled
from .research_layout import GENERATED, LANDMARKS, SOURCES, TALKING, manifest_rows
from .sources import still_rows
from .user_tables import read_table

GIB = 2**30
NEEDED_DISK = 10 * GIB  # prepared crops of an hour at 96 px, and checkpoints
# (mean, deviation, [0, 0], [40, 40], [79, 80], [10, 0]) of the mel of one second of noise, model-spec 3.10
MEL_GOLDEN = (0.183218, 0.701925, -0.699969, 0.327803, 1.016951, 0.001163)
PYTHON = (3, 10)
# What training cannot do without, and from which version on; all other packages have a way round.
NEEDED = {"torch": "2.6", "av": "14.2", "numpy": "1.26", "opencv-python": "4.8", "lightning-fabric": "2.6.6"}
EXTRAS = ("torchaudio", "onnx", "onnxruntime", "insightface", "rich", "tensorboard", "matplotlib", "ray")
REINSTALL = "pip install --force-reinstall av opencv-python"
SAME = {"opencv-python": ("opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")}


@dataclass(frozen=True)
class Finding:
    """Result of a check: what was found, and what to do if that is not good enough ("" = it is)."""

    found: str
    remedy: str = ""


def check_versions() -> Finding:
    """Python, the packages that training needs, and those that it does without."""
    versions = {name: _version(name) for name in (*NEEDED, *EXTRAS)}
    old = [
        f'"{name}>={least}"'
        for name, least in NEEDED.items()
        if versions[name] is None or _numbers(str(versions[name])) < _numbers(least)
    ]
    remedies = [f"pip install {' '.join(old)}"] if old else []
    if sys.version_info < PYTHON:
        remedies.append(f"Install Python {PYTHON[0]}.{PYTHON[1]} or later.")
    told = ", ".join(f"{name} {version or 'absent'}" for name, version in versions.items())
    return Finding(f"Python {platform.python_version()}, {told}", " ".join(remedies))


def _version(name: str) -> str | None:
    for one in (name, *SAME.get(name, ())):
        try:
            return importlib.metadata.version(one)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """2.11.0+cpu -> (2, 11, 0)."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])


def check_device(name: str) -> Finding:
    """The device computes, and what it computes fast."""
    try:
        device = torch.device(name)
        total = torch.ones(64, 64, device=device).matmul(torch.ones(64, 64, device=device)).sum().item()
    except (RuntimeError, AssertionError, ValueError) as error:
        return Finding(
            f"{name}: {str(error).splitlines()[0]}", "Choose another --device, or install a torch build for it."
        )
    if total != 64**3:
        return Finding(f"{name} computes {total} instead of {64**3}", "Update the driver or choose another --device.")
    if device.type == "cuda":
        memory = torch.cuda.get_device_properties(device).total_memory / GIB
        return Finding(f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB, {_number_type(device)}")
    return Finding(f"{name}: {torch.get_num_threads()} threads, {_number_type(device)}")


def _number_type(device: torch.device) -> str:
    fast = settled("auto", device)
    return f"trains in {fast}" if fast == "bf16" else f"trains in {fast}: bf16 is not in hardware"


def check_back_ends(name: str) -> Finding:
    """What torch was built with, how processes would talk to each other, and the packages that bring their own code."""
    parts = torch.distributed
    talk = [n for n in ("gloo", "nccl") if parts.is_available() and getattr(parts, f"is_{n}_available")()]
    found = [
        f"torch for {f'CUDA {torch.version.cuda}' if torch.version.cuda else 'CPUs'}",
        f"{torch.cuda.device_count()} CUDA device(s)",
        "oneDNN" if torch.backends.mkldnn.is_available() else "no oneDNN",
        f"processes by {' and '.join(talk)}" if talk else "one process only: no gloo, no NCCL",
        f"onnxruntime {_imported('onnxruntime', lambda module: ', '.join(module.get_available_providers()))}",
        f"torchaudio {_imported('torchaudio', lambda module: 'loads')}",
    ]
    several = name.startswith("cuda") and torch.cuda.device_count() > 1
    lacks = "nccl" not in talk and several
    remedy = "Several GPUs need NCCL for torchrun: install a torch build with it (Linux)." if lacks else ""
    return Finding("; ".join(found), remedy)


def _imported(name: str, tell: Callable[[Any], str]) -> str:
    """What a package that nothing here depends on says of itself; a broken one is told, and worked round."""
    try:
        return tell(importlib.import_module(name))
    except ModuleNotFoundError:
        return "absent"
    except Exception as error:  # a broken binary raises anything
        return f"broken ({str(error).splitlines()[0] if str(error) else type(error).__name__}), done without"


def check_engine(name: str) -> Finding:
    """One step of a tiny network as the trainers make it, in the number type that recipes choose here."""
    try:
        engine = Engine(name, "auto")
        network = engine.setup(torch.nn.Conv2d(3, 4, 3), compiled=False)
        with engine.precise():
            loss = network(torch.ones(2, 3, 8, 8, device=engine.device)).float().square().mean()
        engine.backward(loss)
    except ImportError as error:
        return Finding("lightning-fabric does not load", str(error))
    except (RuntimeError, AssertionError, ValueError) as error:
        return Finding(f"no step on {name}: {str(error).splitlines()[0]}", "See the device above, or set --device cpu.")
    if not torch.isfinite(loss):
        return Finding(f"a step on {name} gives {loss.item()}", "Set optim.precision=fp32.")
    return Finding(f"a step on {engine.device} in {settled('auto', engine.device)}")


def check_compiler() -> Finding:
    """torch.compile works; it needs a C++ compiler on the CPU."""
    try:
        torch.compile(lambda x: (x * 2).relu())(torch.ones(8))
    except Exception as error:  # the compiler's own errors have no common type
        return Finding(
            f"torch.compile fails: {str(error).splitlines()[0]}", "Install a C++ compiler, or give --no-compile."
        )
    return Finding("torch.compile works")


def check_disk(folder: Path) -> Finding:
    """Space where the run folder will be, and that files can be written there."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return Finding(f"{existing} cannot be written: {error}", "Give another --output.")
    remedy = "" if free >= NEEDED_DISK else f"Free {(NEEDED_DISK - free) / GIB:.0f} GiB more, or give another --output."
    return Finding(f"{free / GIB:.0f} GiB free at {existing}", remedy)


def check_mel() -> Finding:
    """The mel front end gives the specification's numbers here."""
    noise = np.random.RandomState(11).standard_normal(16000) * 0.1  # this generator never changes
    mel = audio.mel_spectrogram(torch.from_numpy(noise.astype(np.float32)), 16000)
    found = [mel.mean(), mel.std(unbiased=False), mel[0, 0], mel[40, 40], mel[79, 80], mel[10, 0]]
    worst = float(np.abs(np.array(found) - MEL_GOLDEN).max())
    remedy = "" if worst < 1e-4 else "The FFT or numpy of this machine is broken; reinstall torch and numpy."
    return Finding(f"largest difference to the golden values {worst:.1e}", remedy)


def check_weights() -> Finding:
    """Bundled networks are whole; the recogniser's id."""
    folder = bundled_path("recogniser").parent
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split()
        if not (folder / name).is_file() or sha256_file(folder / name) != digest:
            return Finding(
                f"models/bundled/{name} is missing or damaged", "git checkout models/bundled, or clone again."
            )
    return Finding(f"bundled networks are whole, recogniser {load_recogniser('builtin').id}")


def check_video() -> Finding:
    """One sample through all codecs: H.264 with AAC, as samples are written, and JPEG, as crops are stored."""
    slope = np.linspace(16, 235, 96).astype(np.uint8)
    frames = np.ascontiguousarray(np.broadcast_to(slope[None, None, :, None], (25, 96, 96, 3)))
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sample.mp4"
            sound = (np.sin(np.arange(16000) / 20)[None].astype(np.float32), 16000)
            with VideoWriter(path, 96, 96, FPS, sound) as writer:
                writer.write(frames)
            with VideoFile(path) as video:
                found, heard = video.read(0, video.info.frames), video.audio()
        picture = decode(encode(frames[0]))
    except (OSError, ValueError, RuntimeError) as error:
        return Finding(
            f"a sample cannot be written and read: {error}", "pip install --force-reinstall av opencv-python"
        )
    off = [float(np.abs(one.astype(int) - frames[0]).mean()) for one in (found[-1], picture)]
    if len(found) != 25 or heard is None or max(off) > 4:
        return Finding(
            f"a sample of 25 frames with sound comes back as {len(found)} frames, {'with' if heard else 'no'} sound, "
            f"{max(off):.1f} grey levels off",
            REINSTALL,
        )
    return Finding(f"25 frames with sound decode to within {max(off):.1f} grey levels (H.264, AAC, JPEG)")


def check_data(folder: Path) -> Finding:
    """The data folder has what the trainers read: clips to train on, people to swap; what is looked at decodes."""
    try:
        return _check_shards(folder) if (folder / "index.json").is_file() else _check_research(folder)
    except (OSError, ValueError) as error:
        return Finding(str(error), "Correct that, or make data with: python -m training prepare.")


def _check_research(folder: Path) -> Finding:
    """The first clip decodes, picture and sound as long as each other; of all others the files are there."""
    missing = [name for name in (SOURCES[0], LANDMARKS) if not (folder / name).is_file()]
    if missing:
        return Finding(f"{folder} lacks {', '.join(missing)}", "Make one with: python -m training prepare.")
    if not read_table(folder / SOURCES[0]):
        return Finding(f"{folder}/{SOURCES[0]} lists no clip", "Add clips.")
    rows = {part: manifest_rows(folder, part) for part in (TALKING, GENERATED)}
    files = [folder / part / row[kind] for part in rows for row in rows[part] for kind in ("file", "wav")]
    if lost := [path for path in files if not path.is_file()]:
        return Finding(f"{len(lost)} files are missing, the first {lost[0]}", "Add them, or take their lines out.")
    clip, all_rows = rows[TALKING][0], [*rows[TALKING], *rows[GENERATED]]
    note, remedy = _trainable(folder, all_rows)
    if remedy:
        return Finding(f"{len(all_rows)} clips{note}", remedy)
    try:
        with VideoFile(folder / TALKING / clip["file"]) as video:
            info, frames = video.info, video.read(0, 1)
        sound = read_audio(folder / TALKING / clip["wav"])
    except (OSError, ValueError) as error:
        return Finding(f"{clip['file']}: {error}", "Replace the file, or take its line out of the manifest.")
    seconds = 0.0 if sound is None else sound[0].shape[-1] / sound[1]
    remedy = "" if abs(seconds - info.frames / info.fps) < 0.1 else "Picture and sound differ in length; cut it anew."
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    found = f"{clip['file']}: {info.frames} frames of {size} at {info.fps} fps, {seconds:.2f} s of sound"
    return Finding(found + note, remedy)


def _check_shards(folder: Path) -> Finding:
    try:
        index, found = read_index(folder), summary(folder)
    except (OSError, ValueError, KeyError) as error:
        return Finding(f"the shards cannot be read: {error}", "Copy them again, or prepare the folder anew.")
    note, remedy = _trainable(folder, index["tracks"])
    if not index["lips"]:
        remedy = "There are no mouth numbers: prepare it again, into another folder, without --reader none."
    return Finding(f"{found}; the first picture of every track decodes{note}", remedy)


def _trainable(folder: Path, clips: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """What is to be said of the clips' people and splits, and what to do if nothing can be trained with them."""
    splits = Counter(clip["split"] for clip in clips)
    people = {clip["identity"] for clip in clips if clip["split"] == "train"}
    people |= {row["identity"] for row in still_rows(folder / "faces")}
    note = "" if splits["val"] else "; nobody is held out (split val), so nothing is measured, and judge cannot be used"
    if not splits["train"]:
        return f"{note}; none has the split train", "Change the column split of the manifest.csv, or add videos."
    if len(people) < 2:
        return (
            f"{note}; one person only",
            "Swapping needs two: add videos of others, or stills of them in faces/.",
        )
    return note, ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training doctor`."""
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="data folder to look into (default: no look)")
    parser.add_argument("--output", type=Path, default=Path(), help="where a run would be (default: here)")


def run(args: argparse.Namespace) -> int:
    """Check everything, whatever failed before."""
    checks: dict[str, Callable[[], Finding]] = {
        "versions": check_versions,
        "device": lambda: check_device(args.device),
        "back ends": lambda: check_back_ends(args.device),
        "engine": lambda: check_engine(args.device),
        "compiler": check_compiler,
        "disk": lambda: check_disk(args.output),
        "mel": check_mel,
        "weights": check_weights,
        "sample": check_video,
    }
    if args.data:
        checks["data"] = lambda: check_data(args.data)
    failed: list[str] = []
    for name, check in checks.items():
        if name == "engine" and "device" in failed:
            continue  # said already
        finding = check()
        if finding.remedy:
            failed.append(name)
        print(f"{'FAIL' if finding.remedy else 'ok':4}  {name:9} {finding.found}")
        if finding.remedy:
            print(f"      {'':9} -> {finding.remedy}")
    if failed:
        print(f"{len(failed)} of {len(checks)} checks failed: {', '.join(failed)}.", file=sys.stderr)
        return 1
    print("All is well." if args.data else "All is well. The data was not looked at: give --data for that.")
    return 0

"""`python -m training doctor`: can this machine train? One line a check; status 1 and a remedy where one fails."""

from __future__ import annotations

import argparse
import csv
import importlib.metadata
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models import audio
from models.checkpoints import bundled_path, sha256_file
from models.identity import load_recogniser
from models.video import VideoFile, read_audio

from .data.reader import summary

GIB = 2**30
NEEDED_DISK = 10 * GIB  # prepared crops of an hour at 96 px, and checkpoints
# (mean, deviation, [0, 0], [40, 40], [79, 80], [10, 0]) of the mel of one second of noise, model-spec 3.10
MEL_GOLDEN = (0.183218, 0.701925, -0.699969, 0.327803, 1.016951, 0.001163)
PACKAGES = ("torch", "torchaudio", "numpy", "opencv-python", "av", "onnx", "onnxruntime", "insightface")
FABRIC = "lightning-fabric"


@dataclass(frozen=True)
class Finding:
    """Result of a check: what was found, and what to do if that is not good enough ("" = it is)."""

    found: str
    remedy: str = ""


def check_versions() -> Finding:
    """Python and the packages; only torch, PyAV and lightning-fabric are needed, the others have a way round."""
    versions = []
    for name in (*PACKAGES, FABRIC):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} absent")
    remedy = f'pip install "{FABRIC}>=2.6.6"' if f"{FABRIC} absent" in versions else ""
    return Finding(f"Python {platform.python_version()}, {', '.join(versions)}", remedy)


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
        return Finding(f"{torch.cuda.get_device_name(device)}, {memory:.0f} GiB")
    fast = "AMX bfloat16" if torch.cpu._is_amx_tile_supported() else "no AMX: optim.precision=fp32 may be faster"
    return Finding(f"{name}: {torch.get_num_threads()} threads, {fast}")


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


def check_data(folder: Path) -> Finding:
    """The data folder has what the trainers read; its first clip decodes, picture and sound as long as each other."""
    if (folder / "index.json").is_file():
        return _check_shards(folder)
    missing = [name for name in ("talking/manifest.csv", "landmarks.npz") if not (folder / name).is_file()]
    if missing:
        return Finding(f"{folder} lacks {', '.join(missing)}", "Make one with: python -m training prepare.")
    with (folder / "talking" / "manifest.csv").open(newline="") as file:
        row = next(csv.DictReader(file), None)
    if row is None:
        return Finding(f"{folder}/talking/manifest.csv lists no clip", "Add clips.")
    try:
        with VideoFile(folder / "talking" / row["file"]) as video:
            info, frames = video.info, video.read(0, 1)
        sound = read_audio(folder / "talking" / row["wav"])
    except (OSError, ValueError) as error:
        return Finding(f"{row['file']}: {error}", "Replace the file, or take its line out of the manifest.")
    seconds = 0.0 if sound is None else sound[0].shape[-1] / sound[1]
    remedy = "" if abs(seconds - info.frames / info.fps) < 0.1 else "Picture and sound differ in length; cut it anew."
    size = f"{frames.shape[2]}x{frames.shape[1]}"
    return Finding(f"{row['file']}: {info.frames} frames of {size} at {info.fps} fps, {seconds:.2f} s of sound", remedy)


def _check_shards(folder: Path) -> Finding:
    try:
        return Finding(summary(folder))
    except (OSError, ValueError) as error:
        return Finding(f"the shards are damaged: {error}", "Copy them again, or prepare the folder anew.")


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
        "compiler": check_compiler,
        "disk": lambda: check_disk(args.output),
        "mel": check_mel,
        "weights": check_weights,
    }
    if args.data:
        checks["data"] = lambda: check_data(args.data)
    failed = 0
    for name, check in checks.items():
        finding = check()
        failed += bool(finding.remedy)
        print(f"{'FAIL' if finding.remedy else 'ok':4}  {name:9} {finding.found}")
        if finding.remedy:
            print(f"      {'':9} -> {finding.remedy}")
    print(
        f"{failed} of {len(checks)} checks failed." if failed else "All is well.", file=sys.stderr if failed else None
    )
    return 1 if failed else 0

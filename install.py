"""Set-up of the pack; needs only Python 3.10 or newer, on any system.

    python install.py                 check this environment and tell what is missing (ComfyUI-Manager calls this)
    python install.py demo            run the whole job on inputs that need no download
    python install.py test            run the test suite; further arguments go to pytest
    python install.py --fetch NAME    download an optional public model pack

`demo` and `test` install what they need into `.venv` inside this folder, unless the Python that runs this has it all.
The plain call changes nothing, needs no network and never fails.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent
BUNDLED = ROOT / "models" / "bundled"
VENV = ROOT / ".venv"
MARKER = VENV / "installed.sha256"
IMPORT_NAMES = {"opencv-python": "cv2", "pillow": "PIL"}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome", "msedge", "microsoft-edge")


@dataclass(frozen=True)
class Pack:
    """An optional public model pack.

    Attributes:
        url: a zip file on its publisher's release page.
        size: bytes of the zip file.
        sha256: digest of the zip file.
        licence: what its publisher allows.
        use: what it adds over the bundled networks.
        members: digests of the files in it that the pack reads, where published.
    """

    url: str
    size: int
    sha256: str
    licence: str
    use: str
    members: dict[str, str] = field(default_factory=dict)


_RELEASE = "https://github.com/deepinsight/insightface/releases/download/v0.7"
_NON_COMMERCIAL = "NON-COMMERCIAL research use only (the publisher's terms for all pretrained InsightFace models)"
_SCRFD_10G = "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"
PACKS = {
    "buffalo_l": Pack(
        f"{_RELEASE}/buffalo_l.zip",
        288_621_354,
        "80ffe37d8a5940d59a7384c201a2a38d4741f2f3c51eef46ebb28218a7b0ca2f",
        _NON_COMMERCIAL,
        "SCRFD-10G face detector and ArcFace IResNet-50 recogniser",
        {
            "det_10g.onnx": _SCRFD_10G,
            "w600k_r50.onnx": "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
        },
    ),
    "antelopev2": Pack(
        f"{_RELEASE}/antelopev2.zip",
        360_662_982,
        "8e182f14fc6e80b3bfa375b33eb6cff7ee05d8ef7633e738d1c89021dcf0c5c5",
        _NON_COMMERCIAL,
        "SCRFD-10G face detector and ArcFace IResNet-100 recogniser",
        {
            "scrfd_10g_bnkps.onnx": _SCRFD_10G,
            "glintr100.onnx": "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
        },
    ),
}


def say(text: str) -> None:
    """Print one line, at once also into a pipe."""
    print(f"[WavSyncSwap] {text}", flush=True)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


# --- the check that ComfyUI-Manager runs ------------------------------------------------------------------------------


def requirements(path: Path) -> list[tuple[str, str, str]]:
    """Lines of a requirements file as (name, "==" | ">=" | "", version); `-r` lines are followed."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found += requirements(path.parent / line[3:].strip())
        elif line:
            parts = re.fullmatch(r"([\w.-]+)\s*(?:(==|>=)\s*([\w.]+))?", line)
            if parts is None:
                raise ValueError(f"{path.name}: cannot read the line {line!r}; expected NAME, NAME==1.2 or NAME>=1.2")
            found.append((parts[1], parts[2] or "", parts[3] or ""))
    return found


def missing_imports() -> list[str]:
    """Packages of requirements.txt that this Python cannot find; any build counts (headless OpenCV too)."""
    names = [name for name, _, _ in requirements(ROOT / "requirements.txt")]
    return [name for name in names if importlib.util.find_spec(IMPORT_NAMES.get(name, name)) is None]


def damaged_weights() -> list[str]:
    """What is wrong with the bundled weights, one line a file; empty when all is well."""
    sums = BUNDLED / "SHA256SUMS"
    if not sums.is_file():
        return ["models/bundled/SHA256SUMS is missing"]
    wrong = []
    for line in sums.read_text(encoding="utf-8").splitlines():
        digest, name = line.split()
        path = BUNDLED / name
        if not path.is_file():
            wrong.append(f"{name} is missing")
        elif sha256_file(path) != digest:
            wrong.append(f"{name} is damaged: its SHA-256 is not the listed {digest[:12]}...")
    return wrong


def torchaudio_error() -> str:
    """Why torchaudio does not import, or "". Tried in a child: a bad build can end the process."""
    command = [sys.executable, "-c", "import torchaudio.functional"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT.parent)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if result.returncode == 0:
        return ""
    return (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]


def check() -> int:
    """Tell what this environment lacks. Changes nothing, needs no network, always 0: an installer calls it."""
    try:
        missing = missing_imports()
        if missing:
            say(f"missing packages: {', '.join(missing)}")
            say("  nodes that need them will say so; to install:  python -m pip install " + " ".join(missing))
        else:
            say("all packages of requirements.txt are there")
        if "torch" not in missing and "torchaudio" not in missing and (error := torchaudio_error()):
            say(f"torchaudio does not import ({error}); the pack's own resampler and filter bank are used instead")
        wrong = damaged_weights()
        for line in wrong:
            say(f"bundled weights: {line}")
        say("  install the pack again to repair them" if wrong else "bundled weights are complete")
        present = [name for name in PACKS if (packs_folder() / name).is_dir()]
        say(f"optional insightface packs in {packs_folder()}: {', '.join(present) or 'none (none is needed)'}")
    except Exception as error:  # whatever is odd about this machine must not fail the installation
        say(f"the check itself failed ({type(error).__name__}: {error}); the pack may work all the same")
    return 0


# --- optional public packs --------------------------------------------------------------------------------------------


def packs_folder() -> Path:
    """Where insightface packs belong: in the host's models folder when we lie in its custom_nodes, else the user's."""
    host = ROOT.parent.parent
    if ROOT.parent.name == "custom_nodes" and (host / "models").is_dir():
        return host / "models" / "insightface" / "models"
    return Path.home() / ".insightface" / "models"


def download(url: str, part: Path, size: int) -> None:
    """Fetch `url` into `part`, going on where an earlier attempt stopped.

    Raises:
        OSError: the network or the server failed; what came so far is kept.
    """
    have = part.stat().st_size if part.exists() else 0
    if have >= size:
        return
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as reply:
        resumed = reply.status == 206
        have = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file:
            while piece := reply.read(1 << 20):
                file.write(piece)
                have += len(piece)
                if sys.stdout.isatty():
                    print(f"\r  {have / 1e6:.0f} of {size / 1e6:.0f} MB", end="", flush=True)
    if sys.stdout.isatty():
        print()
    if have < size:
        raise OSError(f"the connection closed after {have} of {size} bytes")


def unpack(archive: Path, folder: Path, members: dict[str, str]) -> None:
    """Put the .onnx files of a zip file into `folder`, which appears only when all are there and right.

    Raises:
        ValueError: a file in it has another SHA-256 than listed.
    """
    building = folder.with_name(folder.name + ".part")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    with zipfile.ZipFile(archive) as source:
        for info in source.infolist():
            name = Path(info.filename).name  # flat, whatever folders the zip file has or claims
            if name.endswith(".onnx"):
                with source.open(info) as packed, (building / name).open("wb") as plain:
                    shutil.copyfileobj(packed, plain, 1 << 20)
    for name, digest in members.items():
        if not (building / name).is_file() or sha256_file(building / name) != digest:
            shutil.rmtree(building)
            raise ValueError(f"{name} in {archive.name} is absent or not the published file (SHA-256 {digest})")
    building.rename(folder)


def fetch(name: str, dest: Path | None, yes: bool) -> int:
    """Download one of `PACKS` after showing its size and licence; 0 when it is in place."""
    pack = PACKS[name]
    folder = (dest or packs_folder()) / name
    if folder.is_dir():
        say(f"{folder} is there already; remove it to fetch it anew")
        return 0
    say(f"{name}: {pack.use}, {pack.size / 1e6:.0f} MB from {pack.url}")
    say(f"  licence: {pack.licence}")
    say(f"  goes to: {folder}")
    if not yes:
        if not sys.stdin.isatty():
            say("nobody to ask: add --yes to accept the licence and download")
            return 1
        if input("Download? [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.parent / f"{name}.zip.part"
    try:
        download(pack.url, part, pack.size)
    except OSError as error:  # urllib's errors are OSErrors
        say(f"download failed: {error}. Call again to go on where it stopped, or fetch {pack.url} by hand and")
        say(f"  unpack its .onnx files into {folder}. The pack works without it: its own networks are bundled.")
        return 1
    if sha256_file(part) != pack.sha256:
        part.unlink()
        say(f"what came is not the published file (SHA-256 {pack.sha256}); removed. A login or error page? Try again.")
        return 1
    try:
        unpack(part, folder, pack.members)
    except (ValueError, zipfile.BadZipFile) as error:
        say(str(error))
        return 1
    part.unlink()
    say(f"done: {folder}")
    return 0


# --- the private environment of demo and test -------------------------------------------------------------------------


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r"\d+", version.split("+")[0]))


def unmet() -> list[str]:
    """Lines of requirements-dev.txt that the running Python does not fulfil."""
    lacking = []
    for name, relation, wanted in requirements(ROOT / "requirements-dev.txt"):
        try:
            have = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            lacking.append(name)
            continue
        same = have.split("+")[0] == wanted
        if (relation == "==" and not same) or (relation == ">=" and _numbers(have) < _numbers(wanted)):
            lacking.append(f"{name}{relation}{wanted} (found {have})")
    return lacking


def fingerprint() -> str:
    """What a finished environment was made from: the requirement files and the Python version."""
    texts = [(ROOT / name).read_bytes() for name in ("requirements.txt", "requirements-dev.txt")]
    return hashlib.sha256(b"\0".join([*texts, sys.version.encode()])).hexdigest()


def environment() -> Path:
    """A Python that has all of requirements-dev.txt: this one, or that of `.venv`, made or brought up to date first.

    Raises:
        RuntimeError: it cannot be made; the message tells the remedy.
    """
    if not unmet():
        return Path(sys.executable)
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if python.is_file() and MARKER.is_file() and MARKER.read_text(encoding="utf-8") == fingerprint():
        return python
    try:
        import venv  # here, because the embeddable Python of ComfyUI's Windows package has none
    except ImportError as error:
        raise RuntimeError(
            f"cannot make a virtual environment: {sys.executable} has no module {error.name}, as an embeddable Python "
            "has not. Call this with a Python installed from python.org; in ComfyUI the nodes work without it."
        ) from error
    say(f"making {VENV} (once; PyTorch makes it some GB and some minutes)")
    try:
        # Cleared where its Python is gone or of another version, otherwise only brought up to date.
        venv.EnvBuilder(with_pip=True, clear=not _runs(python), symlinks=os.name != "nt").create(VENV)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(
            f"cannot make a virtual environment ({error}). On Debian or Ubuntu: apt-get install python3-venv"
        ) from error
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--progress-bar", "off"]
    result = subprocess.run([*pip, "-r", str(ROOT / "requirements-dev.txt")], cwd=ROOT)
    if result.returncode:
        raise RuntimeError(
            f"pip could not install requirements-dev.txt with Python {sys.version.split()[0]}, see above. It needs a "
            "package index; Python 3.10 to 3.14 have wheels for everything in it."
        )
    # OpenCV's ordinary build needs a desktop's graphics libraries; a server without them gets the other build.
    if subprocess.run([str(python), "-c", "import cv2"], capture_output=True).returncode:
        subprocess.run([*pip, "--force-reinstall", "--no-deps", "opencv-python-headless"], cwd=ROOT)
    MARKER.write_text(fingerprint(), encoding="utf-8")
    return python


def _runs(python: Path) -> bool:
    """Whether the environment's interpreter is there and of the running version."""
    if not python.is_file():
        return False
    command = [str(python), "-c", "import sys, pip; print(sys.version)"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.returncode == 0 and result.stdout.strip() == sys.version.strip()


def provide_browser(python: Path) -> None:
    """Get a Chromium for the page tests if none is there. Best effort: without one they skip and say so."""
    if any(shutil.which(name) for name in BROWSERS):
        return
    attempts = [[str(python), "-m", "playwright", "install", "chromium"]]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        attempts.append(["apt-get", "install", "-y", "--no-install-recommends", "chromium"])
        attempts.append(["sh", "-c", "apt-get update && apt-get install -y --no-install-recommends chromium"])
    for command in attempts:
        try:
            if subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=300).returncode == 0:
                return
        except (OSError, subprocess.TimeoutExpired):
            continue
    say("no Chromium to be had: the page tests will skip")


def demo(arguments: list[str]) -> int:
    """`python -m training demo`, in an environment that has what it needs; all its option values are paths."""
    absolute = [a if a.startswith("-") else os.path.abspath(a) for a in arguments]
    return subprocess.run([str(environment()), "-m", "training", "demo", *absolute], cwd=ROOT).returncode


def test(arguments: list[str]) -> int:
    """The test suite, in an environment that has what it needs; its exit status.

    Raises:
        RuntimeError: there is no suite, or no environment for it.
    """
    if not (ROOT / "tests").is_dir():
        raise RuntimeError("the registry's package leaves the test suite out; clone the repository to run it")
    python = environment()
    provide_browser(python)
    return subprocess.run([str(python), "-m", "pytest", *arguments], cwd=ROOT).returncode


def main(arguments: list[str] | None = None) -> int:
    """Run one of the four uses; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if sys.version_info < (3, 10):  # noqa: UP036 - for whoever starts this with an old Python
        say(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
        return 0 if not arguments else 1
    if arguments[:1] in (["demo"], ["test"]):
        try:
            return demo(arguments[1:]) if arguments[0] == "demo" else test(arguments[1:])
        except (RuntimeError, OSError) as error:
            say(str(error))
            return 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fetch", metavar="NAME", choices=PACKS, help=f"optional pack: {', '.join(PACKS)}")
    parser.add_argument("--dest", type=Path, help="folder for --fetch instead of the one that is searched")
    parser.add_argument("--yes", action="store_true", help="accept the licence shown by --fetch without a question")
    options = parser.parse_args(arguments)
    if not options.fetch:
        return check()
    try:
        return fetch(options.fetch, options.dest, options.yes)
    except OSError as error:
        say(f"{error}. Choose a folder that can be written with --dest.")
        return 1


if __name__ == "__main__":
    sys.exit(main())

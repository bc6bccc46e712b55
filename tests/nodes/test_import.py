"""Importing the pack does nothing but import."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("pack", {root!r} + "/__init__.py", submodule_search_locations=[{root!r}])
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
assert pack.WEB_DIRECTORY == "./web" and callable(pack.comfy_entrypoint)
print(*sorted(name.split(".")[0] for name in sys.modules))
"""


def test_entry_point_imports_nothing_heavy() -> None:
    script = LOAD.format(root=str(ROOT))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stderr == ""
    loaded = set(done.stdout.split())
    assert not loaded & {"torch", "numpy", "cv2", "onnx", "onnxruntime", "insightface", "torchaudio", "kornia", "comfy"}


def test_root_is_importable_without_a_host() -> None:
    """A test runner or an editor imports the file as a plain module."""
    assert runpy.run_path(str(ROOT / "__init__.py"))["WEB_DIRECTORY"] == "./web"

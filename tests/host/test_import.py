"""Loading the pack into the host's process: quick, light, and nothing global changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.host.comfy import ROOT
from tests.host.obtain import comfy_folder

SCRIPT = """
import asyncio, importlib.util, json, os, sys, time, warnings
comfy, root, base = sys.argv[1:4]
sys.path.insert(0, comfy)
sys.argv = ["main.py"]
from comfy.cli_args import args
args.cpu, args.base_directory = True, base
import utils.extra_config, folder_paths, comfy.utils, comfy.model_patcher
import comfy_api.latest, torch

def state():
    functions = {name: id(value) for name, value in vars(folder_paths).items() if callable(value)}
    folders = {name: str(value) for name, value in folder_paths.folder_names_and_paths.items()}
    return [dict(os.environ), list(sys.path), functions, torch.get_num_threads(), str(torch.get_default_dtype()),
        torch.is_grad_enabled(), sorted(os.listdir(os.getcwd())), folders]

before, known = state(), set(sys.modules)
start = time.perf_counter()
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
    pack = importlib.util.module_from_spec(spec)
    sys.modules["pack"] = pack
    spec.loader.exec_module(pack)
    extension = asyncio.run(pack.comfy_entrypoint())
    nodes = asyncio.run(extension.get_node_list())
    schemas = [node.GET_SCHEMA() for node in nodes]
seconds = time.perf_counter() - start
after = state()
changed = [i for i, (a, b) in enumerate(zip(before[:-1], after[:-1])) if a != b]
folders = sorted(name for name in after[-1] if after[-1][name] != before[-1].get(name))
new = sorted({name.split(".")[0] for name in set(sys.modules) - known})
messages = [str(warning.message) for warning in caught]
print(json.dumps(dict(seconds=seconds, changed=changed, folders=folders, new=new, warnings=messages)))
"""


def test_import_is_light_and_leaves_everything_alone(tmp_path: Path) -> None:
    base, work = tmp_path / "base", tmp_path / "work"
    base.mkdir()
    work.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(comfy_folder()), str(ROOT), str(base)]
    environment = {**os.environ, "HOME": str(base), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=work, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["seconds"] < 1.5
    assert found["changed"] == []
    assert found["folders"] == ["wavsyncswap"]
    assert found["warnings"] == []
    heavy = {
        "insightface",
        "onnx",
        "onnxruntime",
        "cv2",
        "torchaudio",
        "kornia",
        "scipy",
        "skimage",
        "av",
        "matplotlib",
    }
    assert not heavy & set(found["new"]), found["new"]

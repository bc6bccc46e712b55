"""The pack's nodes in a process of their own beside the host's modules, without a server: for folders in odd states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.host.comfy import ROOT
from tests.host.obtain import comfy_folder

BEGIN = """
import asyncio, importlib, importlib.util, json, os, sys
from pathlib import Path
comfy, root, base = sys.argv[1:4]
sys.path.insert(0, comfy)
sys.argv = ["main.py"]
from comfy.cli_args import args
args.cpu, args.base_directory = True, base
import utils.extra_config, folder_paths, comfy.utils, comfy.model_patcher
import torch
base = Path(base)
for place in reversed(json.loads(os.environ["PLACES"])):
    folder_paths.add_model_folder_path("wavsyncswap", place, is_default=True)
spec = importlib.util.spec_from_file_location("pack", root + "/__init__.py", submodule_search_locations=[root])
pack = importlib.util.module_from_spec(spec)
sys.modules["pack"] = pack
spec.loader.exec_module(pack)
nodes, lost = {}, []
for node in asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list()):
    try:
        nodes[node.GET_SCHEMA().node_id] = node
    except Exception as error:
        lost.append(repr(error))

def part(name):
    return importlib.import_module("pack.nodes." + name)

def options(node, widget):
    return next(one.options for one in nodes[node].define_schema().inputs if one.id == widget)

def refusal(call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ValueError as error:
        return str(error)

"""


def inside(base: Path, script: str, places: list[Path] | None = None) -> tuple[Any, str]:
    """What the script leaves in `found`, by way of JSON, and what was logged.

    Args:
        base: the host's base directory, which exists.
        script: sees `nodes` by id, `lost` (errors of those without schema), `part`, `options`, `refusal` and `base`.
        places: for models/wavsyncswap, before the usual one.
    """
    script = f"{BEGIN}\n{script}\nprint(json.dumps(found))"
    command = [sys.executable, "-c", script, str(comfy_folder()), str(ROOT), str(base)]
    # HOME: the user's own insightface packs must not change what the tests see.
    environment = {**os.environ, "HOME": str(base), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PLACES"] = json.dumps([str(place) for place in places or []])
    done = subprocess.run(command, capture_output=True, text=True, cwd=base, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr

"""Adapting to a clip in the host: trained once, kept as a file, applied by either node."""

from __future__ import annotations

import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.host import graphs, media
from tests.host.comfy import Host

FRAMES = 52


@pytest.fixture(scope="module")
def clip(host: Host, astronaut: np.ndarray) -> str:
    """Two seconds of a face with sound."""
    frames = media.nodding(astronaut[:256, 100:356], FRAMES)
    media.write_video(host.base / "input" / "adapt.mp4", frames, Fraction(25), media.babble(FRAMES / 25))
    return "adapt.mp4"


def graph_of(clip: str, steps: int = 2) -> dict[str, Any]:
    """Load, adapt, generate from the crops of the demo's target."""
    graph = graphs.without_video(graphs.swap("demo_target.mp4", keep=("crops",)))
    graphs.exact(graph)
    loader = next(number for number, node in graph.items() if node["class_type"] == "WSS_LoadModel")
    settings = {"steps": steps, "name": "my clip", "detector": "builtin", "threshold": 0.6, "face_order": "largest"}
    settings |= {"face_index": 0, "select_frame": 0, "point_x": -1, "point_y": -1, "fps": 25.0}
    graph["70"] = {"class_type": "LoadVideo", "inputs": {"file": clip}}
    graph["71"] = {"class_type": "WSS_Adapt", "inputs": {"model": [loader, 0], "video": ["70", 0], **settings}}
    graph["72"] = graphs.text(["71", 1])
    return graph


def adapters(host: Host) -> list[Path]:
    return sorted((host.base / "models" / "wavsyncswap" / "adapters").glob("*.safetensors"))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """But for rounding: how many crops a pass holds goes by the clock too."""
    return a.shape == b.shape and float((a - b).abs().max()) < 1e-4


def crops(host: Host, graph: dict[str, Any], model: list[Any]) -> torch.Tensor:
    graphs.find(graph, "WSS_Generate")["model"] = model
    host.run(graph)
    return torch.load(host.base / "output" / "crops.pt", weights_only=True)


def test_a_clip_is_adapted_to_once_and_the_file_is_used_everywhere(host: Host, clip: str) -> None:
    graph = graph_of(clip)
    report = graphs.outputs(graph, host.run(graph), "PreviewAny")["text"][0]
    (path,) = adapters(host)
    assert path.name in report
    assert path.name.startswith("my_clip_")
    assert "held out before" in report
    assert path.stat().st_size < 2e6
    written = path.stat().st_mtime_ns
    host.forget()
    assert graphs.outputs(graph, host.run(graph), "PreviewAny")["text"][0] == report
    assert [p.stat().st_mtime_ns for p in adapters(host)] == [written]  # found, not made again
    loader = next(number for number, node in graph.items() if node["class_type"] == "WSS_LoadModel")
    by_adapt = crops(host, graph, ["71", 0])
    graph["73"] = {
        "class_type": "WSS_LoadAdapter",
        "inputs": {"model": [loader, 0], "adapter": f"adapters/{path.name}", "strength": 1.0},
    }
    assert same(crops(host, graph, ["73", 0]), by_adapt)
    graph["73"]["inputs"]["strength"] = 0.0
    plain = crops(host, graph, [loader, 0])
    assert same(crops(host, graph, ["73", 0]), plain)
    assert not same(by_adapt, plain)


def test_a_damaged_adapter_is_made_again(host: Host, clip: str) -> None:
    graph = graph_of(clip, steps=1)
    host.run(graph)
    path = max(adapters(host), key=lambda path: path.stat().st_mtime_ns)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[: whole // 2])
    host.forget()
    assert path.name in graphs.outputs(graph, host.run(graph), "PreviewAny")["text"][0]
    assert path.stat().st_size == pytest.approx(whole, rel=0.01)


def test_a_clip_that_is_too_short_is_one_error(host: Host, clip: str) -> None:
    graph = graph_of("demo_target.mp4")
    assert "at least 50 are needed" in host.fail(graph)


def test_cancel_leaves_no_file(host: Host, clip: str) -> None:
    before = adapters(host)
    prompt = host.submit(graph_of(clip, steps=5000))
    time.sleep(2)  # time to begin
    host.post("/interrupt", {"prompt_id": prompt})
    entry = host.wait(prompt)
    assert any(event == "execution_interrupted" for event, _ in entry["status"]["messages"])
    assert adapters(host) == before

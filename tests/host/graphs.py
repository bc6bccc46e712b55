"""API graphs that the host tests start from."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

API = Path(__file__).parent / "api"
NAMES = sorted(path.stem for path in API.glob("*.json"))

Graph = dict[str, Any]


def load(name: str) -> Graph:
    """One of the example workflows in API format."""
    return json.loads((API / f"{name}.json").read_text())


def find(graph: Graph, kind: str) -> dict[str, Any]:
    """Inputs of the only node of a kind."""
    (node,) = [node for node in graph.values() if node["class_type"] == kind]
    return node["inputs"]


def exact(graph: Graph) -> Graph:
    """The graph with a number type that does not go by the clock, for files that compare pictures."""
    find(graph, "WSS_LoadModel")["precision"] = "fp32"
    return graph


def outputs(graph: Graph, result: dict[str, Any], kind: str) -> dict[str, Any]:
    """What the only node of a kind gave."""
    (number,) = [number for number, node in graph.items() if node["class_type"] == kind]
    return result[number]


def all_outputs(graph: Graph, result: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """What each node of a kind gave, in the graph's order."""
    return [result[number] for number, node in graph.items() if node["class_type"] == kind]


def swap(target: str, keep: tuple[str, ...] = ()) -> Graph:
    """The composable video swap without previews, with `frames`, `images`, `mask`, `crops` kept as asked."""
    graph = load("video_swap")
    for number in ("13", "14", "15"):
        del graph[number]
    find(graph, "LoadVideo")["file"] = target
    sources = {"frames": ["2", 0], "images": ["10", 0], "mask": ["10", 1], "crops": ["9", 0]}
    for i, name in enumerate(keep):
        graph[f"9{i}"] = {"class_type": "TestKeep", "inputs": {"value": sources[name], "name": name}}
    return graph


def without_video(graph: Graph) -> Graph:
    """The same graph up to Paste Back: nothing is encoded."""
    return {
        number: node
        for number, node in copy.deepcopy(graph).items()
        if node["class_type"] not in ("CreateVideo", "SaveVideo")
    }


def text(value: list[Any]) -> dict[str, Any]:
    """A node that shows a STRING output."""
    return {"class_type": "PreviewAny", "inputs": {"source": value}}

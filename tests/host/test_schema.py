"""What the page sees of the nodes: a snapshot, tooltips, no noise at start-up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.host.comfy import Host, flagged, import_seconds

SNAPSHOT = Path(__file__).parent / "node_schema.json"
IDS = {
    "WSS_LoadModel",
    "WSS_Adapt",
    "WSS_LoadAdapter",
    "WSS_LoadAudioMel",
    "WSS_FaceCrop",
    "WSS_ArcFaceEmbed",
    "WSS_SaveEmbedding",
    "WSS_LoadEmbedding",
    "WSS_Generate",
    "WSS_PasteBack",
    "WSS_TalkingSwapVideo",
    "WSS_SyncScore",
    "WSS_IdentityScore",
}


@pytest.fixture(scope="module")
def schemas(host: Host) -> dict[str, Any]:
    return {name: info for name, info in host.get("/object_info").items() if name.startswith("WSS_")}


def essence(info: dict[str, Any]) -> dict[str, Any]:
    """What a saved workflow depends on: order, types, defaults, bounds; not the files that a combo happens to list."""
    inputs = {}
    for group in ("required", "optional"):
        for name, (kind, options) in info["input"].get(group, {}).items():
            kept = {key: options[key] for key in ("default", "min", "max", "step") if key in options}
            inputs[name] = {"type": kind if isinstance(kind, str) else "COMBO", "group": group, **kept}
    return {
        "display_name": info["display_name"],
        "category": info["category"],
        "inputs": inputs,
        "outputs": list(map(list, zip(info["output_name"], info["output"], strict=True))),
        "output_node": info["output_node"],
    }


def test_all_nodes_are_there(schemas: dict[str, Any]) -> None:
    assert set(schemas) == IDS


def test_snapshot(schemas: dict[str, Any]) -> None:
    """Saved workflows keep working: a change here is on purpose (WSS_UPDATE_SNAPSHOT=1 rewrites the file)."""
    now = {name: essence(schemas[name]) for name in sorted(schemas)}
    if os.environ.get("WSS_UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(now, indent=1) + "\n")
    assert now == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize("name", sorted(IDS))
def test_everything_has_a_tooltip(schemas: dict[str, Any], name: str) -> None:
    info = schemas[name]
    assert info["description"]
    for group in ("required", "optional"):
        for field, (_, options) in info["input"].get(group, {}).items():
            assert len(options.get("tooltip", "")) > 10, (name, field)
            if "default" in options and options["default"] not in ("none", "face"):
                assert "efault" in options["tooltip"], (name, field)
    assert len(info["output_tooltips"]) == len(info["output"])
    assert all(tip and len(tip) > 10 for tip in info["output_tooltips"]), name


@pytest.mark.parametrize("name", sorted(IDS))
def test_help_page(host: Host, name: str) -> None:
    page = (Path(__file__).parents[2] / "web" / "docs" / f"{name}.md").read_text()
    assert page.startswith("# ")
    assert len(page) > 300


def test_start_up_is_quiet_and_quick(host: Host) -> None:
    log = host.log.read_text().split("got prompt")[0]
    assert "To see the GUI" in log
    assert flagged(log) == []
    assert import_seconds(log) < 1.5


def test_example_workflows_and_locales_are_served(host: Host) -> None:
    names = host.get("/workflow_templates")["ComfyUI-WavSyncSwap"]
    folder = Path(__file__).parents[2] / "example_workflows"
    assert set(names) == {path.stem for path in folder.glob("*.json")}
    assert all((folder / f"{name}.jpg").is_file() for name in names)
    translated = host.get("/i18n")
    assert set(translated["en"]["nodeDefs"]) == IDS


@pytest.mark.parametrize("language", ["en", "zh"])
def test_translations_are_complete(schemas: dict[str, Any], language: str) -> None:
    path = Path(__file__).parents[2] / "locales" / language / "nodeDefs.json"
    texts = json.loads(path.read_text(encoding="utf-8"))
    for name, info in schemas.items():
        fields = {field for group in ("required", "optional") for field in info["input"].get(group, {})}
        assert set(texts[name]["inputs"]) == fields, name
        assert len(texts[name]["outputs"]) == len(info["output"]), name
        if language == "en":
            assert texts[name]["description"] == info["description"]
            assert texts[name]["display_name"] == info["display_name"]

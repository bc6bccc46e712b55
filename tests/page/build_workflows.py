"""Make example_workflows/ from the API graphs that the host tests run: `python -m tests.page.build_workflows [NAME]`.

The page itself lays out and serialises each graph, so the files are what a user's Save would write; the thumbnail is a
picture of the canvas before any run.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from tests.host import graphs
from tests.host.comfy import ROOT, running
from tests.host.media import fill_input_folder
from tests.page.browser import Page, opened

TARGET = ROOT / "example_workflows"

# Columns by longest path from a source, nodes stacked in order of their ids; players and pictures get room.
LAYOUT = """() => {
    const media = {LoadVideo: 380, LoadImage: 380, LoadAudio: 180, SaveVideo: 420, PreviewAny: 180, PreviewImage: 340};
    const nodes = [...app.graph.nodes].sort((a, b) => a.id - b.id), depth = {};
    const sources = node => (node.inputs ?? []).filter(i => i.link != null).map(i => app.graph.links[i.link].origin_id);
    const at = id => app.graph.getNodeById(id);
    const find = node => depth[node.id] ??= 1 + Math.max(-1, ...sources(node).map(id => find(at(id))));
    nodes.forEach(find);
    const next = {};
    for (const node of nodes) {
        const column = depth[node.id], size = node.computeSize();
        node.setSize([320, Math.max(size[1], media[node.type] ?? 0)]);
        node.pos = [60 + 400 * column, next[column] ?? 60];
        next[column] = node.pos[1] + node.size[1] + 70;
    }
    app.graph.setDirtyCanvas(true, true);
}"""
QUIET = {
    "Comfy.Minimap.Visible": False,
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,
    "Comfy.Graph.CanvasInfo": False,
}


def build(page: Page, name: str, graph: dict[str, Any]) -> None:
    """One workflow and its thumbnail."""
    page.load_api(graph, name)
    page.page.wait_for_timeout(1500)  # pictures arrive
    page.page.evaluate(LAYOUT)
    page.fit()
    workflow = page.workflow()
    workflow["extra"] = {"ds": workflow.get("extra", {}).get("ds", {})}
    (TARGET / f"{name}.json").write_text(json.dumps(workflow, indent=1) + "\n")
    shot = Image.open(io.BytesIO(page.page.screenshot(clip={"x": 130, "y": 80, "width": 1400, "height": 788})))
    shot.convert("RGB").resize((960, 540), Image.Resampling.LANCZOS).save(TARGET / f"{name}.jpg", quality=85)


def main() -> None:
    """Those that are named, or all of them."""
    TARGET.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running(Path(folder) / "host") as host:
        fill_input_folder(host.base / "input", real=False)
        for name in sys.argv[1:] or graphs.NAMES:
            with opened(host.url) as page:  # a fresh page each: previews belong to node numbers
                for key, value in QUIET.items():
                    page.page.evaluate("([k, v]) => app.extensionManager.setting.set(k, v)", [key, value])
                build(page, name, graphs.load(name))


if __name__ == "__main__":
    main()

"""The pack in a browser: workflows load without missing nodes, mean what the API graphs mean, and run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.host import graphs, media
from tests.host.comfy import Host
from tests.page.browser import Page

EXAMPLES = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.json"))


def test_examples_and_api_graphs_are_twins() -> None:
    assert graphs.NAMES == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_thumbnail(name: str) -> None:
    with Image.open(EXAMPLES / f"{name}.jpg") as picture:
        assert picture.format == "JPEG"
        assert picture.width >= 480


def test_every_example_opens_and_equals_its_api_graph(page: Page) -> None:
    for name in NAMES:
        page.load(json.loads((EXAMPLES / f"{name}.json").read_text()), name)
        assert page.missing_nodes() == [], name
        opened = {number: (node["class_type"], page_inputs(node)) for number, node in page.prompt().items()}
        assert opened == {number: (node["class_type"], node["inputs"]) for number, node in graphs.load(name).items()}, (
            name
        )


def page_inputs(node: dict) -> dict:
    """Inputs of a node without what only a page's widgets send; a video's preview is one as soon as it has loaded."""
    only = ("audioUI", "upload", "preview", "video-preview")
    return {name: value for name, value in node["inputs"].items() if name not in only}


def test_run_button(page: Page, host: Host, tmp_path: Path) -> None:
    page.load(json.loads((EXAMPLES / "video_swap.json").read_text()), "video_swap")
    page.fit()
    event, detail = page.press_run()
    assert event == "execution_success", detail
    page.page.wait_for_timeout(1500)
    shot = tmp_path / "finished.png"
    page.page.screenshot(path=str(shot))
    assert shot.stat().st_size > 20_000
    (video,) = (host.base / "output" / "wavsyncswap").glob("video_swap_*.mp4")
    expected, _, _ = media.count_frames(host.base / "input" / "demo_target.mp4")
    assert media.count_frames(video)[0] == expected


def test_error_is_shown(page: Page) -> None:
    """The message of a bad input reaches the user as it was written."""
    workflow = json.loads((EXAMPLES / "streaming_video.json").read_text())
    page.load(workflow, "streaming_video")
    page.page.evaluate("""() => { const node = app.graph.nodes.find(n => n.type === 'WSS_TalkingSwapVideo');
            node.disconnectInput(node.inputs.findIndex(i => i.name === 'video')); }""")
    event, detail = page.press_run()
    assert event == "execution_error"
    assert "Connect either 'video' or 'portrait'" in detail["exception_message"]


def test_help_page_opens(page: Page) -> None:
    page.load(json.loads((EXAMPLES / "streaming_video.json").read_text()), "streaming_video")
    page.page.evaluate("() => app.canvas.selectNode(app.graph.nodes.find(n => n.type === 'WSS_TalkingSwapVideo'))")
    page.page.get_by_test_id("info-button").dispatch_event("click")  # a banner may lie over it
    page.page.get_by_text("streamed from file to file").first.wait_for(timeout=30_000)

"""Chromium on the host's page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
READY = "() => window.app?.graph && app.extensionManager && LiteGraph.registered_node_types['WSS_TalkingSwapVideo']"
WATCH = """() => { window.__done = null;
    for (const event of ['execution_success', 'execution_error', 'execution_interrupted'])
        app.api.addEventListener(event, e => { window.__done = [event, e.detail] }, {once: true}) }"""


def chromium() -> str:
    """Path of a Chromium or Chrome; skips without one."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")


class Page:
    """The page with the pack's nodes registered. Results are stringified there: undefined would become null here."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def load(self, workflow: dict[str, Any], name: str) -> None:
        """Open a workflow in the format of the page."""
        self.page.evaluate("async ([wf, name]) => { await app.loadGraphData(wf, true, true, name) }", [workflow, name])

    def load_api(self, graph: dict[str, Any], name: str) -> None:
        """Open a graph in API format."""
        self.page.evaluate("async ([api, name]) => { await app.loadApiJson(api, name) }", [graph, name])

    def fit(self) -> None:
        """Show the whole graph."""
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.page.wait_for_timeout(900)

    def workflow(self) -> dict[str, Any]:
        """The open graph in the format of the page."""
        return json.loads(self.page.evaluate("() => JSON.stringify(app.graph.serialize())"))

    def prompt(self) -> dict[str, Any]:
        """The open graph in the API format."""
        return json.loads(self.page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)"))

    def missing_nodes(self) -> list[str]:
        """Types in the open graph that the page does not know."""
        script = (
            "() => JSON.stringify(app.graph.nodes.filter(n => !LiteGraph.registered_node_types[n.type]).map(n =>"
            " n.type))"
        )
        return json.loads(self.page.evaluate(script))

    def press_run(self, timeout: float = 300) -> tuple[str, Any]:
        """Press the Run button; the closing event and its detail."""
        self.page.evaluate(WATCH)
        self.page.get_by_role("button", name="Run", exact=True).first.click()
        self.page.wait_for_function("() => window.__done", timeout=1000 * timeout)
        event, detail = json.loads(self.page.evaluate("() => JSON.stringify(window.__done)"))
        return event, detail


@contextmanager
def opened(url: str) -> Iterator[Page]:
    """A fresh browser on the host's page."""
    playwright = pytest.importorskip("playwright.sync_api")
    executable = chromium()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        page = browser.new_context(viewport={"width": 1600, "height": 900}, locale="en-US").new_page()
        page.goto(url, wait_until="domcontentloaded", timeout=120_000)
        page.wait_for_function(READY, timeout=120_000)
        yield Page(page)
        browser.close()

"""A host of its own: the page stores settings and graphs on the server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.comfy import Host, running
from tests.host.media import fill_input_folder
from tests.page.browser import Page, chromium, opened


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    chromium()
    pytest.importorskip("playwright.sync_api")
    with running(tmp_path_factory.mktemp("comfy_page")) as server:
        fill_input_folder(server.base / "input", seconds=0.4)
        yield server


@pytest.fixture
def page(host: Host) -> Iterator[Page]:
    with opened(host.url) as fresh:
        yield fresh


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent
    for item in items:
        if folder in item.path.parents:
            item.add_marker(pytest.mark.page)

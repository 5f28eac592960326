"""Runs on disk, invented, that are explored; the explorer's page in a browser."""

import pytest
from support.browser import browser, served
from support.explorer import wait
from support.fake_results import patched, result, stored

from mafr.explorer.page import write_explorer

__all__ = ["patched", "result", "stored"]


@pytest.fixture(scope="module")
def page(smoke, tmp_path_factory):
    """A browser with the explorer of the smoke runs."""
    config, paths = smoke
    folder = tmp_path_factory.mktemp("explorer")
    with browser() as driver:
        write_explorer(config, paths, folder)
        with served(folder) as address:
            driver.address, driver.folder = f"{address}/index.html", folder
            yield driver


@pytest.fixture
def fresh(page):
    """The same, just opened."""
    page.get("about:blank")
    page.get(page.address)
    wait(page)
    page.get_log("browser")
    return page

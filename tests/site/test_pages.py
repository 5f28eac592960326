"""The pages: linked, with maths and search, and nothing from another host."""

import json
import re
import shutil
from html import unescape

import pytest
from support.browser import browser, served
from support.places import CHECKOUT

from mafr.cli import main
from mafr.errors import MafrError
from mafr.paths import Paths
from mafr.site import pages

EXECUTED = CHECKOUT / "notebooks" / "executed"
BOOKS = ("02_method", "09_heatmap_explorer")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of two notebooks."""
    pytest.importorskip("myst_nb", reason="the packages of `mafr site` are not installed")
    root = tmp_path_factory.mktemp("root")
    paths = Paths(root, "demo")
    paths.executed.mkdir(parents=True)
    for name in BOOKS:
        shutil.copy2(EXECUTED / f"{name}.ipynb", paths.executed)
    folder = root / "site"
    assert pages.write_pages(paths, folder) == list(BOOKS)
    explorer = folder / pages.EXPLORER
    explorer.parent.mkdir()
    explorer.write_text("<!DOCTYPE html><title>explorer</title><p>explorer")
    return folder


def test_the_first_page_leads_to_all_others(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    for address in (*(f"{name}.html" for name in BOOKS), pages.EXPLORER):
        assert f'href="{address}"' in text
    assert (site / "search.html").is_file() and "znssd" in (site / "searchindex.js").read_text(encoding="utf-8").lower()


def test_nothing_is_loaded_from_another_host(site):
    for page in site.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]*?(?:src|href)="([^"]+)"', text)
        assert not [one for one in loaded if re.match(r"(https?:)?//", one)], page.name
        for style in site.rglob("*.css"):
            assert not re.search(r"url\(['\"]?(https?:)?//", style.read_text(encoding="utf-8", errors="replace")), style


def test_formulas_are_drawn_by_the_browser_itself(site):
    text = (site / "02_method.html").read_text(encoding="utf-8")
    assert text.count("<math") > 10 and "\\mathcal" not in text and "$$" not in text


def test_every_formula_of_the_notebooks_becomes_mathml():
    pytest.importorskip("latex2mathml", reason="the packages of `mafr site` are not installed")
    from mafr.site.mathml import mathml

    formulas = []
    for book in sorted((CHECKOUT / "notebooks").glob("*.ipynb")):
        for cell in json.loads(book.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "markdown":
                formulas += re.findall(r"\$\$(.+?)\$\$", "".join(cell["source"]), flags=re.DOTALL)
    assert len(formulas) >= 15
    for formula in formulas:
        assert "\\" not in unescape(mathml(formula, "block")), formula  # a command that is not known stays as it is
    assert "(7)" in unescape(re.sub(r"<[^>]+>", "", mathml(r"x = y \tag{7}", "block")))
    assert "\\" in unescape(mathml(r"\nosuchcommand"))  # so the check above can fail


def test_the_explorer_is_in_the_place_of_the_widget(site):
    text = (site / "09_heatmap_explorer.html").read_text(encoding="utf-8")
    assert f'<a href="{pages.EXPLORER}">Open the explorer</a>' in text and f'<iframe src="{pages.EXPLORER}"' in text
    assert "vnd.jupyter.widget" not in text and "Heatmap explorer of" not in text


def test_the_pages_work_in_a_browser(site):
    with browser() as driver, served(site) as address:
        for name in ("index", *BOOKS):
            driver.get(f"{address}/{name}.html")
            errors = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
            assert errors == [], name
        driver.get(f"{address}/search.html?q=census")
        driver.implicitly_wait(10)
        assert driver.find_elements("css selector", "#search-results a")
        asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
        urls = [one["params"]["request"]["url"] for one in asked if one["method"] == "Network.requestWillBeSent"]
        assert all(url.startswith((address, "data:", "blob:")) for url in urls)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "find_spec", lambda name: object())
    with pytest.raises(MafrError, match=r"no executed notebook in .*`mafr notebooks"):
        pages.write_pages(Paths(tmp_path, "demo"), tmp_path / "site")
    own = Paths(tmp_path, "demo")
    own.executed.mkdir(parents=True)
    for text in ("{", "[]", '{"cells": []}'):
        (own.executed / "01_cut.ipynb").write_text(text)
        with pytest.raises(MafrError, match=r"01_cut.ipynb is no executed notebook .*`mafr notebooks --force 01_cut`"):
            pages.write_pages(own, tmp_path / "site")
    monkeypatch.setattr(pages, "find_spec", lambda name: None if name == "furo" else object())
    with pytest.raises(MafrError, match=r"the pages need furo: .*pip install -e '\.\[site\]'"):
        pages.check_builder()


def test_the_command_writes_both(smoke, tmp_path, monkeypatch, capsys):
    pytest.importorskip("myst_nb", reason="the packages of `mafr site` are not installed")
    _, paths = smoke
    for name in ("data", "features", "runs"):
        (tmp_path / name).symlink_to(paths.root / name)
    own = Paths(tmp_path, "smoke")
    own.executed.mkdir(parents=True)
    shutil.copy2(EXECUTED / "09_heatmap_explorer.ipynb", own.executed)
    monkeypatch.setenv("MAFR_HOME", str(tmp_path))
    main(["site", "--profile", "smoke", "--workers", "1", "--out", str(tmp_path / "out")])
    assert str(tmp_path / "out" / "index.html") in capsys.readouterr().out
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert {"index.html", "09_heatmap_explorer.html", "explorer/index.html"} <= written
    assert "explorer/data/mvtec3d/bagel.js" in written
    page = (tmp_path / "out" / "explorer" / "index.html").read_text(encoding="utf-8")
    loaded = re.findall(r'(?:src|href)="([^":]+\.(?:js|css))"', page)
    assert loaded and all((tmp_path / "out" / "explorer" / name).is_file() for name in loaded)

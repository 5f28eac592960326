"""Notebook 09 as a reader meets it: run in JupyterLab and served by Voilà, in a real browser."""

import io
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from support import jupyter
from support.browser import browser
from support.places import CHECKOUT

NAME = "explorer.ipynb"
# Voilà's own page asks another host for its icons; `offline` refuses them, and the notebook shows all the same.
VOILA_ASKS = ("https://cdn.jsdelivr.net/npm/@fortawesome/",)
# Plotly keeps a picture of each figure in the notebook, and Voilà's outputs cannot be written to; the figure shows.
VOILA_SAYS = re.compile(r"/jupyterlab-plotly/.* t\.setData is not a function$")
# Two widgets, each in a shadow root; only the first keeps its keys from JupyterLab.
SHADOWED = """
import anywidget, traitlets

class Shadowed(anywidget.AnyWidget):
    kept = traitlets.Bool().tag(sync=True)
    _esm = \"\"\"
    export default { render({model, el}) {
      if (model.get("kept")) el.dataset.lmSuppressShortcuts = "true";
      el.attachShadow({mode: "open"}).innerHTML =
        "<select><option>a<option>b</select><button>go</button><input type=range><p tabindex=0>text</p>";
    } };\"\"\"
"""


@dataclass
class Ran:
    """A browser with notebook 09, all cells run, and what happened until then."""

    driver: object
    cell: int  # that of the widget
    severe: list[str]
    foreign: list[str]


@pytest.fixture(scope="module")
def driver() -> Iterator[object]:
    with browser() as made:
        jupyter.offline(made)
        yield made


@pytest.fixture(scope="module")
def notebook(smoke, tmp_path_factory) -> Path:
    """A copy of notebook 09 for the smoke profile."""
    made = nbformat.read(CHECKOUT / "notebooks" / "09_heatmap_explorer.ipynb", as_version=4)
    cell = next(cell for cell in made.cells if "parameters" in cell.metadata.get("tags", []))
    assert cell.source.startswith('profile = "demo"')
    cell.source = cell.source.replace('"demo"', '"smoke"', 1)
    path = tmp_path_factory.mktemp("opened") / NAME
    nbformat.write(made, path)
    return path


@pytest.fixture(scope="module")
def env(smoke) -> dict[str, str]:
    """What leads kernels to the smoke runs."""
    _, paths = smoke
    return {"MAFR_HOME": str(paths.root)}


@pytest.fixture(scope="module")
def lab(driver, notebook, env) -> Iterator[str]:
    with jupyter.jupyterlab(notebook.parent, env) as address:
        yield address


@pytest.fixture(scope="module")
def ran(driver, lab) -> Ran:
    jupyter.open_notebook(driver, lab, NAME)
    jupyter.run_all(driver)  # an error of a cell ends here
    cell = jupyter.widget_cell(driver)
    jupyter.controls(driver, cell)
    return Ran(driver, cell, jupyter.severe(driver), jupyter.foreign_requests(driver))


def write(path: Path, cells: list) -> None:
    """A notebook of these cells, which nobody trusts."""
    kernel = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)


def test_keys_of_a_shadow_root_are_kept_by_its_host(driver, lab, notebook):
    """The check of keys itself: it finds controls in shadow roots, and fails for a widget that does not keep keys."""
    sources = (SHADOWED, "Shadowed(kept=True)", "Shadowed(kept=False)")
    write(notebook.with_name("shadowed.ipynb"), [nbformat.v4.new_code_cell(source) for source in sources])
    jupyter.open_notebook(driver, lab, "shadowed.ipynb")
    jupyter.run_all(driver)
    assert jupyter.widget_cell(driver) == 1
    assert [one.tag_name for one in jupyter.controls(driver, 1)] == ["select", "button", "input", "p"]
    assert jupyter.key_taken(driver, 1) is None
    assert jupyter.key_taken(driver, 2).startswith("'r' in <select>")
    assert jupyter.foreign_requests(driver) == []


def test_an_error_of_a_cell_is_told(driver, lab, notebook):
    write(notebook.with_name("wrong.ipynb"), [nbformat.v4.new_code_cell(source) for source in ("1", "1 / 0", "2")])
    jupyter.open_notebook(driver, lab, "wrong.ipynb")
    with pytest.raises(jupyter.CellError, match="cell 1: ZeroDivisionError"):
        jupyter.run_all(driver)


def test_a_picture_beside_a_widget_shows_where_nothing_has_run(driver, lab, notebook):
    picture = io.BytesIO()
    Image.new("RGB", (30, 20)).save(picture, "png")
    view = {"model_id": "absent", "version_major": 2, "version_minor": 0}
    data = {"application/vnd.jupyter.widget-view+json": view, "image/png": b64encode(picture.getvalue()).decode()}
    outputs = [nbformat.v4.new_output("display_data", data)]
    write(notebook.with_name("picture.ipynb"), [nbformat.v4.new_code_cell("widget", outputs=outputs)])
    jupyter.open_notebook(driver, lab, "picture.ipynb", kernel=False)
    assert jupyter.widget_cell(driver) == 0
    assert jupyter.image_outputs(driver) == [(0, 30, 20)]
    assert jupyter.foreign_requests(driver) == []


def test_the_widget_shows_and_nothing_complains(ran):
    assert ran.severe == []
    assert ran.foreign == []
    assert not any("widget" in text.lower() for text in jupyter.output_texts(ran.driver, ran.cell))


@pytest.mark.xfail(strict=True, reason="JupyterLab takes the keys of ipywidgets' menus, sliders and buttons")
def test_keys_typed_into_the_widget_leave_the_notebook_alone(ran):
    assert jupyter.key_taken(ran.driver, ran.cell) is None


def test_voila_shows_the_widget(driver, notebook, env):
    with jupyter.voila(notebook, env) as address:
        jupyter.open_voila(driver, address)
        asked, said = jupyter.foreign_requests(driver), jupyter.severe(driver)
    assert [url for url in asked if not url.startswith(VOILA_ASKS)] == []
    assert [one for one in said if not one.startswith(VOILA_ASKS) and not VOILA_SAYS.search(one)] == []

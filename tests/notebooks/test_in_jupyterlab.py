"""Notebook 09 as a reader meets it: run in JupyterLab and served by Voilà, in a real browser."""

import io
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from PIL import Image
from support import jupyter
from support.browser import browser, resize
from support.limits import GENEROUS
from support.places import CHECKOUT

NAME, SEEN = "explorer.ipynb", "seen"  # the notebook; the file that tells its kernel of the widget
# Voilà's own page asks another host for its icons; `offline` refuses them, and the notebook shows all the same.
VOILA_ASKS = ("https://cdn.jsdelivr.net/npm/@fortawesome/",)
# The explorer's root, its frame, and all its panels as one text.
ROOT = "const root = document.querySelector('.mafr-explorer').shadowRoot, frame = root.querySelector('.frame');"
PICTURES = f"{ROOT} return [...root.querySelectorAll('#panels canvas[role=img]')].map((c) => c.toDataURL()).join()"
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
    folder = tmp_path_factory.mktemp("opened")
    # What cells set while the page opens, as a reader may who runs all cells: once the widget is seen.
    at = 1 + next(k for k, cell in enumerate(made.cells) if cell.source.endswith("\nexplorer"))
    late = f"""
import time
from pathlib import Path

until = time.monotonic() + {GENEROUS}
while not Path({str(folder / SEEN)!r}).exists() and time.monotonic() < until:
    time.sleep(0.05)
explorer.fusion, explorer.sigma = "max", 9.0
"""
    made.cells.insert(at, nbformat.v4.new_code_cell(late))
    path = folder / NAME
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
def ran(driver, lab, notebook) -> Ran:
    def seen() -> None:
        there = "return window.ran || !!document.querySelector('.mafr-explorer')?.shadowRoot"
        jupyter.until(driver, there, GENEROUS, "no widget")
        notebook.with_name(SEEN).touch()

    jupyter.open_notebook(driver, lab, NAME)
    jupyter.run_all(driver, meanwhile=seen)  # an error of a cell ends here
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


def test_what_cells_set_while_the_page_opens_stays(ran):
    assert in_kernel(ran.driver, "", "(explorer.fusion, explorer.sigma)") == "('max', 9.0)"
    settled(ran.driver)
    shown = "return [root.getElementById('fusion').value, Number(root.getElementById('sigma').value)]"
    assert ran.driver.execute_script(f"{ROOT} {shown}") == ["max", 9]


def test_keys_typed_into_the_widget_leave_the_notebook_alone(ran):
    assert jupyter.key_taken(ran.driver, ran.cell) is None


def settled(driver: object) -> str:
    """The panels, once all is computed and drawn: a late answer of the kernel comes after all."""
    driver.execute_async_script(
        f"{ROOT} const done = arguments[0], text = (id) => root.getElementById(id).textContent;"
        "const look = () => frame.matches('.busy') || !text('said') || text('reading').startsWith('No answer')"
        "? setTimeout(look, 10) : requestAnimationFrame(() => requestAnimationFrame(done)); look();"
    )
    return driver.execute_script(PICTURES)


def put(driver: object, name: str, value: object) -> str:
    driver.execute_script(
        f"{ROOT} const e = root.getElementById(arguments[0]); e.value = arguments[1];"
        "for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, {bubbles: true}));", name, str(value),
    )  # fmt: skip
    return settled(driver)


def in_kernel(driver: object, code: str, expression: str) -> str:
    """Run code in the notebook's kernel; what an expression is then."""
    return driver.execute_async_script("""
        const [code, asked, done] = arguments, {kernel} = window.opened.sessionContext.session;
        kernel.requestExecute({code, user_expressions: {asked}}).done.then(({content}) =>
          done(content.user_expressions?.asked.data["text/plain"] ?? JSON.stringify(content)));""", code, expression)


@pytest.mark.parametrize(
    ("name", "value"),
    [("fusion", "sum"), ("blur", "none"), ("sigma", 9), ("rate", -0.6), ("opacity", 0.1), ("variant", "released"),
     ("category", "tire"), ("dataset", "eyecandies"), ("tone", "image")],
)  # fmt: skip
def test_every_control_changes_the_picture_and_the_kernel_knows(ran, name, value):
    driver = ran.driver
    for control, first in (("dataset", "mvtec3d"), ("category", "bagel"), ("variant", "paper"), ("tone", "map")):
        put(driver, control, first)
    driver.execute_script(f"{ROOT} root.getElementById('reset').click()")
    before = settled(driver)
    assert put(driver, name, value) != before
    if name != "tone":
        known = in_kernel(driver, "", f"explorer.{name}")
        assert known.strip("'") == str(value) or float(known) == pytest.approx(10**value if name == "rate" else value)
    assert jupyter.severe(driver) == [] and jupyter.foreign_requests(driver) == []


def test_the_kernel_changes_the_picture(ran):
    before = settled(ran.driver)
    in_kernel(ran.driver, "explorer.dataset, explorer.category, explorer.fusion = 'mvtec3d', 'tire', 'max'", "1")
    name = f"{ROOT} return root.getElementById('name').textContent + root.getElementById('fusion').value"
    tire = f"{ROOT} return /^tire/.test(root.getElementById('name').textContent)"
    jupyter.until(ran.driver, tire, GENEROUS, "no tire")
    assert settled(ran.driver) != before
    said = ran.driver.execute_script(name)
    assert said.startswith("tire") and said.endswith("max")
    shown = in_kernel(ran.driver, "", "explorer.view().sample.id")
    assert ran.driver.execute_script(f"{ROOT} return root.querySelector('[aria-current] b').textContent") in shown


@pytest.mark.parametrize("width", [1366, 900, 390])
def test_controls_and_panels_are_seen_together(ran, width):
    resize(ran.driver, width, 768)
    sidebar = "window.jupyterapp.commands.execute('application:toggle-left-area')"
    try:
        if width < 900:
            ran.driver.execute_script(sidebar)
        settled(ran.driver)
        wide, tall, below = ran.driver.execute_script(
            f"{ROOT} const box = frame.getBoundingClientRect(), panels = [...root.querySelectorAll('canvas.panel')];"
            "return [frame.scrollWidth - frame.clientWidth, box.height, "
            "Math.max(...panels.map((one) => one.getBoundingClientRect().bottom)) - box.bottom]"
        )
        assert wide <= 0
        if width == 1366:
            assert tall < 700 and below < 0  # all panels, below a notebook's toolbar
    finally:
        resize(ran.driver, 1366, 768)
        if width < 900:
            ran.driver.execute_script(sidebar)


def test_it_follows_the_theme(ran):
    dark = f"{ROOT} return frame.classList.contains('dark')"
    change = "window.jupyterapp.commands.execute('apputils:change-theme', {theme: arguments[0]})"
    assert not ran.driver.execute_script(dark)
    ran.driver.execute_script(change, "JupyterLab Dark")
    jupyter.until(ran.driver, dark, GENEROUS, "not dark")
    ran.driver.execute_script(change, "JupyterLab Light")
    jupyter.until(ran.driver, f"{ROOT} return !frame.classList.contains('dark')", GENEROUS, "not light")


def test_memory_does_not_grow_over_many_samples(ran):
    heap = []
    for round_ in range(3):
        for k in range(10 if round_ == 0 else 25):
            ran.driver.execute_script(f"{ROOT} root.getElementById(arguments[0]).click()", ("next", "previous")[k % 2])
            settled(ran.driver)
        ran.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        heap.append(ran.driver.execute_script("return performance.memory.usedJSHeapSize"))
    assert heap[-1] < heap[0] + 10e6


def test_voila_shows_the_widget(driver, notebook, env):
    notebook.with_name(SEEN).touch()  # Voilà shows a page when all its cells have run
    with jupyter.voila(notebook, env) as address:
        jupyter.open_voila(driver, address)
        asked, said = jupyter.foreign_requests(driver), jupyter.severe(driver)
    assert [url for url in asked if not url.startswith(VOILA_ASKS)] == []
    assert [one for one in said if not one.startswith(VOILA_ASKS)] == []

"""The executed notebooks as linked pages with search and maths, built by Sphinx and MyST-NB without any network."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mafr.errors import MafrError
from mafr.paths import Paths

NEEDED = ("sphinx", "myst_nb", "furo", "latex2mathml")
WIDGET = "application/vnd.jupyter.widget-view+json"
EXPLORER = "explorer/index.html"
_FRAME = (
    f'<p><a href="{EXPLORER}">Open the explorer</a> on a page of its own. It needs no kernel.</p>\n'
    f'<iframe src="{EXPLORER}" title="heatmap explorer" loading="lazy" '
    'style="width: 100%; height: 52em; border: 1px solid #d5d5d5"></iframe>'
)
_MARK = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="7" fill="#0072b2"/>'
    '<circle cx="10" cy="6" r="2.5" fill="#d55e00"/></svg>\n'
)
_SETTINGS = '''project = "mafr"
html_title = "mafr"
extensions = ["myst_nb", "mafr.site.mathml"]
html_math_renderer = "mathml"
myst_enable_extensions = ["dollarmath", "amsmath"]
nb_execution_mode = "off"
html_theme = "furo"
html_static_path = ["_static"]
html_show_sourcelink = False
html_copy_source = False
html_show_sphinx = False
html_favicon = "_static/mark.svg"
'''


def write_pages(paths: Paths, folder: Path) -> list[str]:
    """Build the pages into `folder`; returns the names of the notebooks that are there.

    Raises MafrError where the builder is not installed, or no notebook has been executed.
    """
    check_builder()
    books = sorted(paths.executed.glob("[0-9]*.ipynb"))
    if not books:
        raise MafrError(f"no executed notebook in {paths.executed}; `mafr notebooks {paths.options}` makes them")
    from sphinx.application import Sphinx

    with tempfile.TemporaryDirectory(prefix="mafr-site-") as place:
        source = Path(place) / "source"
        (source / "_static").mkdir(parents=True)
        (source / "conf.py").write_text(_SETTINGS, encoding="utf-8")
        for book in books:
            (source / book.name).write_text(json.dumps(_read(book)), encoding="utf-8")
        picture = paths.figures / "overview.png"
        if picture.is_file():
            shutil.copyfile(picture, source / "overview.png")
        (source / "index.md").write_text(_first_page(books, picture.is_file()), encoding="utf-8")
        (source / "_static" / "mark.svg").write_text(_MARK, encoding="utf-8")
        app = Sphinx(
            str(source), str(source), str(folder), str(Path(place) / "trees"), "html", status=None, warningiserror=False
        )
        app.build()
        if app.statuscode:
            raise MafrError(f"the pages could not be built into {folder}: see the lines above")
    return [book.stem for book in books]


def check_builder() -> None:
    """Raises MafrError, with the command that mends it, where a package is missing."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise MafrError(
            f"the pages need {', '.join(name.replace('_', '-') for name in missing)}: in the checkout, "
            "`pip install -e '.[site]'`"
        )


def shown(book: dict) -> dict:
    """A notebook whose outputs need neither a kernel nor another host: the explorer's page takes the widget's place."""
    for cell in book["cells"]:
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if WIDGET in data:
                output["data"] = {"text/html": _FRAME}
    book["metadata"].pop("widgets", None)
    return book


def _read(book: Path) -> dict:
    try:
        return shown(json.loads(book.read_text(encoding="utf-8")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        again = f"make it again: `mafr notebooks --force {book.stem}`"
        raise MafrError(f"{book} is no executed notebook ({error}); {again}") from error


def _first_page(books: Sequence[Path], picture: bool) -> str:
    lines = [
        "# mafr",
        "",
        "MAFR finds defects on parts from a colour image and a 3D scan, and learns from good parts only. These pages "
        "are the executed notebooks of a companion to its paper, [*2D–3D Feature Fusion via Cross-Modal Latent "
        "Synthesis and Attention-Guided Restoration for Industrial Anomaly "
        "Detection*](https://arxiv.org/abs/2510.21793).",
        "",
        "Every picture and table names the data that it was measured on. **Generated scans are not real ones, and "
        "their numbers are not the paper's.**",
        "",
        f'<p><strong><a href="{EXPLORER}">Open the heatmap explorer</a></strong></p>',
        "",
    ]
    if picture:
        lines += ["![Defective parts, one per row: image, depth, true defect, anomaly map](overview.png)", ""]
    return "\n".join([*lines, "```{toctree}", ":maxdepth: 1", *(book.stem for book in books), "```", ""])

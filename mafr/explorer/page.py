"""The heatmap explorer as a page: its files, and one file of data per category."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mafr.config import DATASETS, VARIANTS, Config
from mafr.errors import ResultError
from mafr.explorer.data import as_json, category_data
from mafr.page.files import markup, read, script
from mafr.page.packed import colours
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import Paths, write_atomically


def write_explorer(
    config: Config,
    paths: Paths,
    folder: Path,
    datasets: Sequence[str] = DATASETS,
    variants: Sequence[str] = VARIANTS,
    workers: Workers = 1,
    home: str = "../index.html",
) -> Path:
    """Write the page and the data of every category with a finished run into `folder`; returns the page.

    home: the address of the site's first page. Raises ResultError if no category has a finished run.
    """
    for dataset in datasets:
        (folder / "data" / dataset).mkdir(parents=True, exist_ok=True)
    jobs = [(config, paths, folder, d, c, tuple(variants)) for d in datasets for c in config.categories(d)]
    made = map_parallel(_write_category, jobs, workers, what="categories of the explorer")
    there: dict[str, dict] = {}
    for (*_, dataset, category, _), done in zip(jobs, made, strict=True):
        if done:
            own = there.setdefault(dataset, {"title": config.dataset_title(dataset), "categories": []})
            own["categories"].append(category)
    if not there:
        raise ResultError(
            f"no finished run to explore in {paths.runs(datasets[0]).parent}; "
            f"`mafr reproduce --profile {config.profile}` makes them"
        )
    for file in (folder / "data").glob("*/*.js"):  # of categories that are there no more
        if file.stem not in there.get(file.parent.name, {"categories": ()})["categories"]:
            file.unlink()
    write_atomically(folder / "explorer.js", script(read("site.js")))
    write_atomically(folder / "explorer.css", read("explorer.css"))
    head = f'<h1><a href="{home}" target="_top">mafr</a> · Heatmap explorer</h1>\n'
    page = read("site.html").replace("{{frame}}", markup(head))
    page = page.replace("{{settings}}", json.dumps({"categories": there, "colours": colours()}))
    write_atomically(folder / "index.html", page)
    return folder / "index.html"


def _write_category(job: tuple[Config, Paths, Path, str, str, tuple[str, ...]]) -> bool:
    config, paths, folder, dataset, category, variants = job
    data = category_data(config, paths, dataset, category, variants)
    if data is None:
        return False
    file = folder / "data" / dataset / f"{category}.js"
    write_atomically(file, f'mafr.take("{dataset}/{category}", {as_json(data)});\n')
    return True

"""The heatmap explorer for Jupyter: widgets that choose a test sample and its scoring; `view` computes and draws."""

from functools import lru_cache

import ipywidgets as widgets
import numpy as np
import plotly.graph_objects as go

from mafr.baselines.registry import MAFR, title
from mafr.config import DATASETS, FUSIONS, Config
from mafr.errors import ResultError
from mafr.experiments import results
from mafr.experiments.plan import Run, TableMethod, dataset_methods
from mafr.experiments.prepare import what_is_there
from mafr.figures.style import Picture, png_bytes
from mafr.figures.view import Compared, SampleView, cloud_figure, explore, plot_view
from mafr.paths import Paths

BLURS = {"Gaussian": "gaussian", "box (released code)": "box", "none": None}
RATE = 0.01  # default share of good pixels above the threshold


class Explorer:
    """A browser of the finished full runs of a configuration's variant.

    `widget` is interactive; `static()` and `cloud()` show the same sample without a kernel. Setting the widgets'
    values from code (`explorer.category.value = "tire"`) is the same as clicking.
    """

    def __init__(self, config: Config, paths: Paths) -> None:
        """On own data, of the categories that are there. Raises ResultError if no run of the variant is finished."""
        config, datasets = what_is_there(config, paths)
        self.config, self.paths = config, paths
        found = {d: list(results.stored_records(TableMethod(MAFR, config.variant), d, config, paths)) for d in datasets}
        self.available = {d: categories for d, categories in found.items() if categories}
        if not self.available:
            one = "" if config.generated else f" --dataset {datasets[0]} --category {config.categories(datasets[0])[0]}"
            raise ResultError(
                f"no finished {config.variant} run to explore in {paths.runs(DATASETS[0]).parent}; "
                f"`mafr run {paths.options} --variant {config.variant}{one}` makes {'it' if one else 'them'}"
            )
        # A test set is large at full size: keep the one in use and the one before.
        self._result = lru_cache(maxsize=2)(self._load)
        self._rescored = lru_cache(maxsize=4)(self._score)
        self._others = lru_cache(maxsize=4)(self._load_maps)
        self._busy = False
        self._build()

    def result(self) -> results.Result:
        """The run behind the chosen category."""
        return self._result(self.dataset.value, self.category.value)

    def view(self) -> SampleView:
        """The chosen sample under the chosen settings."""
        result = self.result()
        blur = BLURS[self.blur.value]
        sigma = self.sigma.value if blur == "gaussian" else self.config.sigma
        maps, scores = self._rescored(self.dataset.value, self.category.value, self.fusion.value, blur, sigma)
        return explore(result, self.sample.value, maps, scores, self.rate.value)

    def static(self) -> Picture:
        """The explorer as one picture, with the cloud in two colourings."""
        return self._picture(clouds=True)

    def cloud(self) -> go.Figure:
        """The chosen sample's interactive cloud; see `mafr.figures.view.cloud_figure`."""
        return cloud_figure(self.view())

    def _load(self, dataset: str, category: str) -> results.Result:
        return results.load_result(Run(dataset, category, self.config), self.paths)

    def _score(self, dataset: str, category: str, how: str, blur: str | None, sigma: float) -> tuple[np.ndarray, ...]:
        return self._result(dataset, category).rescored(how, blur, sigma)

    def _load_maps(self, dataset: str, category: str, method: str) -> np.ndarray | None:
        ids = self._result(dataset, category).ids
        return results.compared_maps(self.config, self.paths, dataset, category, ids, [method]).get(method)

    def _compared(self) -> Compared | None:
        """The chosen other method's map of the chosen sample."""
        method, result = self.method.value, self.result()
        maps = self._others(self.dataset.value, self.category.value, method) if method else None
        if maps is None:
            return None
        return Compared(title(method), maps[self.sample.value], results.colour_range(maps, result.mask, result.labels))

    def _picture(self, clouds: bool) -> Picture:
        stamp = results.stamp(self.config, [self.dataset.value], [self.config.variant])
        warn = results.needs_warning(self.config)
        return plot_view(self.view(), self.opacity.value, stamp, warn, clouds, self._compared())

    def _build(self) -> None:
        config = self.config
        titles = [(config.dataset_title(d), d) for d in self.available]
        self.dataset = widgets.Dropdown(options=titles, description="data set")
        self.category, self.defect, self.sample, self.method = (
            widgets.Dropdown(description=name) for name in ("category", "defect", "sample", "beside it")
        )
        self.fusion = widgets.Dropdown(options=FUSIONS, value=config.fusion, description="fusion")
        chosen = next(name for name, blur in BLURS.items() if blur == config.blur)
        self.blur = widgets.Dropdown(options=list(BLURS), value=chosen, description="blur")
        self.sigma = _slider(widgets.FloatSlider, config.sigma, 0.5, 12.0, "σ / px", step=0.1)
        self.rate = _slider(widgets.FloatLogSlider, RATE, -4, -0.5, "good above", readout_format=".2%")
        self.opacity = _slider(widgets.FloatSlider, 0.6, 0.0, 1.0, "opacity", step=0.05)
        self.image = widgets.Image(format="png")
        self.show_cloud = widgets.Button(description="cloud in 3D", icon="cube")
        self.clouds = widgets.VBox([])
        self.dataset.observe(self._dataset_changed, "value")
        self.category.observe(self._category_changed, "value")
        self.defect.observe(self._defect_changed, "value")
        for control in (self.sample, self.fusion, self.blur, self.sigma, self.rate, self.opacity, self.method):
            control.observe(self._draw, "value")
        self.show_cloud.on_click(self._draw_cloud)
        self._dataset_changed()
        rows = (
            (self.dataset, self.category),
            (self.defect, self.sample, self.method),
            (self.fusion, self.blur, self.sigma),
            (self.rate, self.opacity, self.show_cloud),
        )
        stamp = widgets.HTML(f"<b>{results.stamp(config, list(self.available), [config.variant])}</b>")
        self.widget = widgets.VBox([stamp, *map(widgets.HBox, rows), self.image, self.clouds])

    def _dataset_changed(self, *_: object) -> None:
        dataset = self.dataset.value
        categories = self.available[dataset]
        compared = dataset_methods(dataset, variants=())
        run = [one for one in compared if results.stored_records(one, dataset, self.config, self.paths)]
        self._fill(self.method, [("mask against truth", None), *((one.title, one.method) for one in run)], None)
        self._fill(self.category, [(c.replace("_", " "), c) for c in categories], categories[0])
        self._category_changed()

    def _category_changed(self, *_: object) -> None:
        if not self._busy:
            result = self.result()
            defects = sorted(set(result.defects), key=lambda name: (name == "good", name))
            first = result.defects[result.median_defective()]
            self._fill(self.defect, [(name.replace("_", " "), name) for name in defects], first)
            self._defect_changed()

    def _defect_changed(self, *_: object) -> None:
        if not self._busy:
            result = self.result()
            chosen = [k for k, name in enumerate(result.defects) if name == self.defect.value]
            median = result.median_defective()  # the sample of Fig. 2
            self._fill(self.sample, [(result.ids[k], k) for k in chosen], median if median in chosen else chosen[0])
            self._draw()

    def _fill(self, menu: widgets.Dropdown, options: list[tuple[str, object]], value: object) -> None:
        # New options change the value; draw once, when all menus fit together again.
        self._busy = True
        try:
            menu.options = options
            menu.value = value
        finally:
            self._busy = False

    def _draw(self, *_: object) -> None:
        if self._busy:
            return
        self.sigma.disabled = BLURS[self.blur.value] != "gaussian"
        self.image.value = png_bytes(self._picture(clouds=False), dpi=96)
        if self.clouds.children:
            self._draw_cloud()

    def _draw_cloud(self, *_: object) -> None:
        # Only now: a FigureWidget carries all of plotly's JavaScript (5 MB) into the notebook's saved state.
        self.clouds.children = [go.FigureWidget(self.cloud())]


def _slider(kind: type, value: float, low: float, high: float, name: str, **options: object) -> widgets.Widget:
    # Redraw when the handle is released, not at every pixel on the way.
    return kind(value=value, min=low, max=high, description=name, continuous_update=False, **options)

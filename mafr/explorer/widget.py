"""The heatmap explorer as a widget for Jupyter: a view of the stored runs that Python code sets and reads."""

from __future__ import annotations

import json
from functools import lru_cache

import anywidget
import traitlets

from mafr.config import DATASETS, FUSIONS, VARIANTS, Config
from mafr.errors import MafrError, ResultError
from mafr.experiments import results
from mafr.experiments.plan import Run
from mafr.experiments.prepare import what_is_there
from mafr.explorer.data import as_json, category_data, explorable
from mafr.figures.style import Picture
from mafr.figures.view import SampleView, explore, plot_view
from mafr.page.files import markup, read, script
from mafr.page.packed import colours
from mafr.paths import Paths
from mafr.scoring import PREFIX

RATE = 0.01  # default share of good pixels above the threshold
BLURS = {"gaussian": "gaussian", "box": "box", "none": None}


def _module() -> str:
    """The widget's JavaScript, with the style and the markup of its frame."""
    constants = f"const STYLE = {json.dumps(read('explorer.css'))}, MARKUP = {json.dumps(markup())};\n"
    return constants + script(read("widget.js"))


def _optional(trait: type, *given: object) -> traitlets.TraitType:
    """A trait that the page reads and sets; None until something is chosen."""
    return trait(*given, default_value=None, allow_none=True).tag(sync=True)


class Explorer(anywidget.AnyWidget):
    """Test samples of the finished runs, with their maps, masks, scores and clouds, computed in the browser.

    What is shown is held by traits, which code may set (`explorer.category = "tire"`) and read; None means what the
    run has, or its usual sample. `view()` is the same sample computed by the package, `static()` its picture.

    dataset, category, sample: names, the sample's as in the records, e.g. "test/cut/003".
    variant, fusion: of `mafr.config.VARIANTS` and `FUSIONS`; blur: "gaussian", "box" or "none".
    sigma: of the Gaussian, in pixels; rate: share of the good test samples' pixels that may lie above the threshold.
    opacity: of the map over the image, 0 to 1; methods: compared methods beside it.
    sort, kind, find: order, filter and search of the list of samples.
    """

    _esm = _module()
    dataset, category, sample = (_optional(traitlets.Unicode) for _ in range(3))
    variant, fusion = _optional(traitlets.Enum, VARIANTS), _optional(traitlets.Enum, FUSIONS)
    blur = _optional(traitlets.Enum, tuple(BLURS))
    sigma = traitlets.Float(None, min=0.1, max=50.0, allow_none=True).tag(sync=True)
    rate = traitlets.Float(RATE, min=1e-4, max=0.5).tag(sync=True)
    opacity = traitlets.Float(0.8, min=0.0, max=1.0).tag(sync=True)
    methods = traitlets.List(traitlets.Unicode()).tag(sync=True)
    scale, sort = _optional(traitlets.Unicode), _optional(traitlets.Unicode)
    kind, find = traitlets.Unicode("all").tag(sync=True), traitlets.Unicode("").tag(sync=True)

    _page = traitlets.Dict().tag(sync=True)
    _first_key, _first = traitlets.Unicode().tag(sync=True), traitlets.Bytes().tag(sync=True)

    def __init__(self, config: Config, paths: Paths, **view: object) -> None:
        """On own data, of the categories that are there; view: first values of the traits.

        Raises ResultError if no run of the variant is finished, or the run that is asked for is not there.
        """
        config, datasets = what_is_there(config, paths)
        self.config, self.paths = config, paths
        found = {d: explorable(config, paths, d) for d in datasets}
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
        self._packed = lru_cache(maxsize=4)(self._pack)
        dataset = view.setdefault("dataset", next(iter(self.available)))
        category = view.setdefault("category", next(iter(self.available.get(dataset, ())), None))
        view.setdefault("variant", config.variant)
        categories = {d: {"title": config.dataset_title(d), "categories": c} for d, c in self.available.items()}
        super().__init__(
            _page={"categories": categories, "colours": colours()},
            _first_key=f"{dataset}/{category}", _first=self._packed(f"{dataset}/{category}"), **view,
        )  # fmt: skip
        self.on_msg(self._answer)

    def result(self) -> results.Result:
        """The run behind the chosen category and variant."""
        return self._result(self.dataset, self._category(), self.variant or self.config.variant)

    def view(self) -> SampleView:
        """The chosen sample under the chosen settings."""
        result = self.result()
        usual = result.config
        blur = usual.blur if self.blur is None else BLURS[self.blur]
        sigma = usual.sigma if self.sigma is None or blur != "gaussian" else self.sigma
        chosen = self.dataset, result.run.category, usual.variant
        fusion = usual.fusion if self.fusion is None else PREFIX * result.scaled + self.fusion
        maps, scores = self._rescored(*chosen, fusion, blur, sigma)
        index = result.ids.index(self.sample) if self.sample in result.ids else result.median_defective()
        return explore(result, index, maps, scores, self.rate)

    def static(self) -> Picture:
        """The view as one picture, with the cloud in two colourings."""
        stamp = results.stamp(self.config, [self.dataset], [self.result().config.variant])
        return plot_view(self.view(), self.opacity, stamp, results.needs_warning(self.config), clouds=True)

    def _category(self) -> str:
        there = self.available[self.dataset]
        return self.category if self.category in there else there[0]

    def _load(self, dataset: str, category: str, variant: str) -> results.Result:
        return results.load_result(Run(dataset, category, self.config.with_variant(variant)), self.paths)

    def _score(self, dataset: str, category: str, variant: str, how: str, blur: str | None, sigma: float) -> tuple:
        return self._result(dataset, category, variant).rescored(how, blur, sigma)

    def _pack(self, key: str) -> bytes:
        """A category's data as JSON. Raises ResultError where it is not there."""
        dataset, _, category = key.partition("/")
        if category not in self.available.get(dataset, ()):
            there = ", ".join(f"{d}/{c}" for d, categories in self.available.items() for c in categories)
            raise ResultError(f"no finished run of {key}; there are {there}")
        return as_json(category_data(self.config, self.paths, dataset, category, VARIANTS)).encode()

    def _answer(self, _: object, content: dict, __: object) -> None:
        key = content.get("load")
        try:
            data = [self._packed(key)]
        except (MafrError, OSError, ValueError) as error:
            self.send({"key": key, "error": str(error)})
        else:
            self.send({"key": key}, data)

    def __repr__(self) -> str:
        """What stands in the widget's place where no kernel runs."""
        return (
            f"Heatmap explorer of {self.dataset}/{self._category()}. It needs a running kernel: run all cells. "
            "The picture after it shows the first view."
        )

"""The effect of bfloat16 on the results: `mafr precision`, on the runs of Table I."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import date

import numpy as np

from mafr.baselines.registry import MAFR
from mafr.bench.emulation import emulated_bfloat16
from mafr.config import Config
from mafr.detector import Detector
from mafr.device import Place, computing, native_bfloat16
from mafr.experiments.evaluation import all_metrics
from mafr.experiments.execute import run_all
from mafr.experiments.plan import Run, table_runs
from mafr.features.sources.splits import extract_features, load_split
from mafr.parallel.progress import Workers, bar
from mafr.paths import Paths

PIXEL_METRICS = ("p_auroc", "aupro_30", "aupro_01")


@dataclass(frozen=True)
class Effect:
    """One run in float32 and what bfloat16 makes of it; differences are bfloat16 minus float32.

    pairs: how many good-defective pairs of images change their order (the I-AUROC's difference times their number);
    scored: same weights, bfloat16 in scoring only; trained: bfloat16 in training and scoring, None if not asked for.
    """

    category: str
    variant: str
    pairs: float
    float32: dict[str, float]
    scored: dict[str, float]
    trained: dict[str, float] | None


def precision_effect(
    config: Config, paths: Paths, variants: Sequence[str], train: bool = False, workers: Workers = 1
) -> list[Effect]:
    """The effect of bfloat16 on Table I's runs, which are made if they are missing.

    Where the processor has no bfloat16 products they are emulated, see `mafr.bench.emulation`.
    """
    base = replace(config, precision="float32")
    runs = table_runs(1, base, variants, methods=(MAFR,))
    extract_features(paths, base, "mvtec3d", base.categories("mvtec3d"), workers)
    records = run_all(runs, paths, workers)
    halves = [replace(run, config=replace(run.config, precision="bfloat16")) for run in runs]
    with emulated_bfloat16() if _emulated(config) else nullcontext():
        return _effects(runs, halves, records, paths, train)


def _effects(
    runs: Sequence[Run], halves: Sequence[Run], records: Mapping[Run, dict], paths: Paths, train: bool
) -> list[Effect]:
    # The features stay those in float32: what is measured is the head.
    trained = [_train(run, half, paths) for run, half in bar(list(zip(runs, halves, strict=True)))] if train else []
    effects = []
    for number, run in enumerate(runs):
        record = records[run]
        exact = _chosen(record["metrics"][run.config.fusion])
        detector = Detector.load(run.folder(paths) / "detector")
        rounded = _score(run, detector, paths)
        negative, positive = (record["counts"][name] for name in ("test_good", "test_defective"))
        effects.append(
            Effect(
                run.category,
                run.config.variant,
                (rounded["i_auroc"] - exact["i_auroc"]) * negative * positive,
                exact,
                _difference(rounded, exact),
                _difference(trained[number], exact) if train else None,
            )
        )
    return effects


def _score(run: Run, detector: Detector, paths: Paths) -> dict[str, float]:
    """Metrics of a detector's weights with bfloat16 products, on the run's own features."""
    test = load_split(paths, run.dataset, run.category, "test", run.config)
    half = Detector.of_model(detector.model, replace(run.config, precision="bfloat16"))
    everything = range(len(test))
    answer = replace(half.answer(test, everything), config=run.config)
    with computing(run.config):
        metrics, _ = all_metrics(answer, test.store.gt(everything), test.labels, test.store.defects)
    return _chosen(metrics[run.config.fusion])


def _train(run: Run, half: Run, paths: Paths) -> dict[str, float]:
    train = load_split(paths, run.dataset, run.category, "train", run.config)
    return _score(run, Detector(half.config).fit_split(train), paths)


def _chosen(metrics: dict) -> dict[str, float]:
    return {name: metrics[name] for name in ("i_auroc", *PIXEL_METRICS)}


def _difference(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    return {name: a[name] - b[name] for name in a}


def summary(effects: Sequence[Effect]) -> list[dict]:
    """Means per variant, and the largest absolute differences, of what bfloat16 changes."""
    names, variants = ("i_auroc", *PIXEL_METRICS), list(dict.fromkeys(effect.variant for effect in effects))
    rows = []
    for what, where in {"scored": "scoring", "trained": "training and scoring"}.items():
        changes = [(effect.variant, getattr(effect, what)) for effect in effects if getattr(effect, what)]
        groups = {("mean", v): [change for variant, change in changes if variant == v] for v in variants}
        groups["largest", "/".join(variants)] = [{n: abs(change[n]) for n in names} for _, change in changes]
        for (statistic, variant), group in groups.items():
            if group:
                merge = np.mean if statistic == "mean" else np.max
                cells = {name: float(merge([change[name] for change in group])) for name in names}
                rows.append({"bfloat16_in": where, "variant": variant, "statistic": statistic, **cells})
    return rows


def _emulated(config: Config) -> bool:
    return not native_bfloat16(Place.of(replace(config, precision="float32")).device.type)


def as_json(config: Config, effects: Sequence[Effect]) -> dict:
    """The effects for a file, with date, settings and kind of device; notebook 12 shows such files."""
    place = Place.of(replace(config, precision="float32"))
    head = {"kind": "precision", "date": date.today().isoformat(), "profile": config.profile, "epochs": config.epochs,
            "device": place.describe()["device"], "emulated": _emulated(config)}  # fmt: skip
    return {**head, "summary": summary(effects), "rows": [asdict(effect) for effect in effects]}


def report(config: Config, effects: Sequence[Effect]) -> str:
    """The effects as a table to print, with the means and the largest at the end."""
    names = ("i_auroc", *PIXEL_METRICS)
    how = " (emulated: this processor has none)" if _emulated(config) else ""
    title = f"bfloat16{how} minus float32: same weights, scored in bfloat16"
    title += "; then trained in it" if effects[0].trained else ""
    lines = [title, f"{'category':18} {'variant':9} {'pairs':>6} " + " ".join(f"{name:>9}" for name in names)]
    if effects[0].trained:
        lines[1] += "   " + " ".join(f"{name:>9}" for name in names)
    for effect in effects:
        cells = [f"{effect.scored[name]:+9.5f}" for name in names]
        if effect.trained:
            cells += ["", *(f"{effect.trained[name]:+9.5f}" for name in names)]
        lines.append(f"{effect.category:18} {effect.variant:9} {effect.pairs:+6.1f} " + " ".join(cells))
    for row in summary(effects):
        cells = " ".join(f"{name} {row[name]:+.5f}" for name in names)
        lines.append(f"{row['statistic']} of {row['variant']}, bfloat16 in {row['bfloat16_in']}: {cells}")
    return "\n".join(lines)

"""Tables of real scans: published numbers beside measured ones, and the trials of `mafr.experiments.validation`."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

from mafr.baselines.registry import has_variants, title
from mafr.config import DATASET_TITLES, Config
from mafr.data.acquire.counts import PUBLISHED as COUNTS
from mafr.experiments.plan import table_of
from mafr.experiments.validation import Trial
from mafr.scoring import MAP
from mafr.tables import published as paper
from mafr.tables.layout import Column, Row, Table, write
from mafr.tables.published_others import AST_DEPTH, FEATURE_STUDY, STUDY_TITLES

Done = Mapping[Trial, Mapping]  # each finished trial with its record

ORIGINS = {  # before a category's name
    "mvtec3d": f"Real scans: {DATASET_TITLES['mvtec3d']}, ",
    "eyecandies": "Original Eyecandies (rendered by its authors): ",
}
LICENCES = {
    "mvtec3d": "MVTec 3D-AD, (c) MVTec Software GmbH, CC BY-NC-SA 4.0 (Bergmann et al., VISAPP 2022)",
    "eyecandies": "Eyecandies (Bonfiglioli et al., ACCV 2022), for non-commercial use",
}
_FORMS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro99_30": "AUPRO@30%"}
_SOURCES = (
    "Published single features: Horwitz and Hoshen, README of github.com/eliahuhorwitz/3D-ADS, preprocessed data; "
    "AUPRO with 99 thresholds there and here.",
    "Published AST on depth alone: Rudolph et al., WACV 2023, Table 3, I-AUROC, mean over runs (cable gland: ± 0.069).",
    "Published depth and voxel methods: Bergmann et al., VISAPP 2022, as Table I prints them: I-AUROC, from raw scans.",
)
_METRICS = ("i_auroc", "p_auroc", "aupro_30", "aupro_01", "aupro99_30", "aupro99_01")
_TITLES = paper.METRIC_TITLES | {"aupro99_30": "AUPRO@30% (99)", "aupro99_01": "AUPRO@1% (99)"}


def validation_table(done: Done) -> Table:
    """Published numbers that need no pretrained weights, measured beside them, with their differences."""
    chosen = {t: r for t, r in done.items() if t.part in ("features", "ast", "benchmark")}
    pairs = product(_KINDS.items(), _FORMS.items())
    columns = [Column(f"{kind}_{name}", heading, group) for (kind, group), (name, heading) in pairs]
    rows = []
    for trial, record in chosen.items():
        measured = {name: _metrics(trial, record)[name] for name in _FORMS}
        printed = _published(trial)
        values = {f"measured_{name}": value for name, value in measured.items()}
        values |= {f"published_{name}": value for name, value in printed.items()}
        values |= {f"difference_{name}": measured[name] - value for name, value in printed.items()}
        rows.append(Row((trial.run.category, title(trial.run.method), trial.how), "measured", values, _stamp(trial)))
    notes = [
        *_notes(chosen),
        *_SOURCES,
    ]
    heading = "Published numbers that need no pretrained weights, on real scans"
    return Table("validation", heading, ("Category", "Method", "Settings"), columns, rows, notes=notes)


def methods_table(done: Done) -> Table:
    """MAFR and the compared methods on real scans with the demo's backbones: every map, every metric."""
    chosen = {t: r for t, r in done.items() if t.part in ("mafr", "compared")}
    columns = [Column(name, _TITLES[name]) for name in _METRICS] + [Column("published", "I-AUROC", "Published")]
    rows = []
    for trial, record in chosen.items():
        printed = paper.by_category(table_of(trial.run.dataset))[title(trial.run.method)][trial.run.category]
        for name, metrics in record["metrics"].items():
            labels = (trial.run.category, trial.run.table_method.title, trial.how, paper.MAP_TITLES.get(name, "map"))
            values = {metric: metrics[metric] for metric in _METRICS}
            if name in (MAP, trial.run.config.fusion):
                values["published"] = printed
            rows.append(Row(labels, "measured", values, _stamp(trial)))
    notes = [*_notes(chosen), "Published values belong to large backbones (DINO ViT-B/8, Point-MAE, WideResNet-50-2)."]
    heads = ("Category", "Method", "Training", "Map")
    return Table("methods", "All methods on real scans with the demo's backbones", heads, columns, rows, notes=notes)


def defects_table(done: Done) -> Table:
    """The metrics by defect type of MAFR's longest trainings and of the compared methods' longest."""
    chosen = {t: r for t, r in longest(done).items() if len(_metrics(t, r)["by_defect"]) > 1}
    columns = [Column("count", "Samples", decimals=0), *(Column(name, _TITLES[name]) for name in _METRICS)]
    rows = []
    for trial, record in chosen.items():
        for defect, metrics in sorted(_metrics(trial, record)["by_defect"].items()):
            labels = (trial.run.category, defect, trial.run.table_method.title, trial.how)
            values = {name: metrics[name] for name in ("count", *_METRICS)}
            rows.append(Row(labels, "measured", values, _stamp(trial)))
    notes = [*_notes(chosen), "Each defect type's samples are compared with all good ones."]
    heads = ("Category", "Defect", "Method", "Training")
    return Table("defects", "Every metric by defect type, on real scans", heads, columns, rows, notes=notes)


def differences_table(done: Done) -> Table:
    """MAFR with one difference between text and code at a time; three seeds of the start show the spread."""
    chosen = {t: r for t, r in done.items() if t.part == "differences"}
    columns = [Column(name, _TITLES[name]) for name in _METRICS]
    rows = []
    for trial, record in chosen.items():
        values = {name: _metrics(trial, record)[name] for name in _METRICS}
        rows.append(Row((trial.run.category, trial.how), "measured", values, _stamp(trial)))
    heading = "One difference between text and code at a time, on real scans"
    return Table("differences", heading, ("Category", "Setting"), columns, rows, notes=_notes(chosen))


def preset_table(done: Done) -> Table:
    """The preset for own parts on real scans: its own map and others of the same runs."""
    chosen = {t: r for t, r in done.items() if t.part == "preset"}
    columns = [Column("train", "Training scans", decimals=0), *(Column(name, _TITLES[name]) for name in _METRICS)]
    rows = []
    for trial, record in chosen.items():
        main = trial.run.config.fusion
        for name in (main, "rgb", "xyz", "product"):
            values = {"train": record["counts"]["train"]} | {m: record["metrics"][name][m] for m in _METRICS}
            labels = (trial.run.category, paper.MAP_TITLES[name])
            rows.append(Row(labels, "measured", values, _stamp(trial)))
    notes = [
        *_notes(chosen),
        "The preset is ours, not the paper's method. It was chosen on GENERATED development categories "
        "(tables/development). Metrics are of the whole image. One seed.",
    ]
    heading = "The preset for own parts on real scans"
    return Table("preset", heading, ("Category", "Map"), columns, rows, notes=notes)


TABLES: tuple[Callable[[Done], Table], ...] = (
    validation_table, methods_table, defects_table, differences_table, preset_table,
)  # fmt: skip


def write_real_tables(done: Done, folder: Path) -> list[Path]:
    """Write each table that has rows, as csv, md and tex."""
    return [path for make in TABLES if (table := make(done)).entries for path in write(table, folder)]


def longest(done: Done) -> dict[Trial, Mapping]:
    """Of MAFR's variants and of each compared method, the last trial of each category: the longest training."""
    kept: dict[tuple, Trial] = {}
    for trial in done:
        if trial.part in ("mafr", "compared"):
            kept[trial.run.dataset, trial.run.category, trial.run.table_method] = trial
    return {trial: done[trial] for trial in kept.values()}


_KINDS = {"measured": "Measured", "published": "Published", "difference": "Difference"}


def _metrics(trial: Trial, record: Mapping) -> Mapping:
    """The metrics of the trial's main map."""
    return record["metrics"][trial.run.config.fusion if has_variants(trial.run.method) else MAP]


def _published(trial: Trial) -> dict[str, float]:
    """The published values of a trial's method and category, by metric; empty where none is known."""
    run = trial.run
    if trial.part == "features":
        row = FEATURE_STUDY[STUDY_TITLES[run.method]]
        return {name: row[name.replace("99", "")][run.category] for name in _FORMS}  # its AUPRO has 99 thresholds
    if trial.part == "ast":
        return {"i_auroc": AST_DEPTH[run.category][0]} if run.category in AST_DEPTH else {}
    return {"i_auroc": paper.by_category(table_of(run.dataset))[title(run.method)][run.category]}


def _notes(done: Done) -> list[str]:
    """Origin, licence and numbers of samples of the categories."""
    notes, seen = [], set()
    for trial, record in done.items():
        run, c = trial.run, record["counts"]
        if (key := (run.dataset, run.category)) in seen:
            continue
        seen.add(key)
        whole = COUNTS[run.dataset][run.category]
        part = "" if c["train"] == whole.train else f" (a part: {whole.train} training samples are published)"
        counts = f"{c['train']} / {c['validation']} / {c['test_good']} / {c['test_defective']}"
        what = "train / validation / test good / test anomalous"
        notes.append(f"{ORIGINS[run.dataset]}{run.category}, {what}: {counts}{part}.")
    notes += [f"Source and licence: {LICENCES[dataset]}." for dataset in dict.fromkeys(dataset for dataset, _ in seen)]
    return notes


def _stamp(trial: Trial) -> dict[str, str]:
    config: Config = trial.run.config
    data = f"measured on real scans with {config.rgb_backbone} and {config.point_backbone}"
    if trial.part in ("features", "ast", "benchmark"):
        data = "measured on real scans without pretrained weights"
    return {
        "data": data, "profile": config.profile, "variant": trial.run.variant or "n/a", "seeds": str(config.seed),
        "config": config.digest()[:12],
    }  # fmt: skip

"""The tables of `mafr develop`: means over generated categories, and paired differences of I-AUROC."""

from collections.abc import Mapping

import numpy as np

from mafr.config import DATASET_TITLES, DEVELOPMENT
from mafr.experiments.certainty import Scored, compare_scores
from mafr.experiments.development import Step, Study, finished
from mafr.experiments.plan import Run
from mafr.tables.layout import Column, Row, Table

_METRICS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro_30": "AUPRO@30%", "aupro_01": "AUPRO@1%"}
_RESAMPLES = 2000


def development_table(study: Study, records: Mapping[Run, dict]) -> Table:
    """One row per finished step."""
    steps = study.steps
    there = finished(steps, records)
    columns = [Column(name, title) for name, title in _METRICS.items()]
    columns += [Column(f"difference_{part}", part, "Difference of I-AUROC") for part in ("mean", "low", "high")]
    rows = []
    for step, whole in zip(steps, there, strict=True):
        if not whole:
            continue
        found = _found(step, records)
        values = {name: float(np.mean([one["metrics"][_main(step)][name] for one in found])) for name in _METRICS}
        if step.before is not None and there[step.before]:
            values |= _difference(steps[step.before], step, records)
        rows.append(Row((step.name,), "measured", values, _stamp(step)))
    config, shots = steps[0].config, steps[0].shots
    notes = [
        f"{_data(steps[0])}: {', '.join(config.categories(steps[0].dataset))}. Scans per category: "
        f"{shots or getattr(config, f'{steps[0].dataset}_train')} training, {config.validation_count} validation, "
        f"{config.test_good} good and {config.test_defective} anomalous test scans, each {config.raw_side} pixels "
        "wide.",
        "Means over the categories. The difference is to the row before, where rows change one thing to the first one; "
        "low and high are its 95 % "
        f"interval by {_RESAMPLES} paired resamplings of the test scans within each category and class.",
    ]
    return Table(study.name, study.heading, ("Settings",), columns, rows, notes=notes)


def _data(step: Step) -> str:
    title = DATASET_TITLES[step.dataset]
    if set(step.config.categories(step.dataset)) <= set(DEVELOPMENT):
        return f"GENERATED development categories in {title} layout, second generator, which are in no other table"
    return f"GENERATED stand-in for {title}, the demo's scans; nothing was chosen on them"


def _main(step: Step) -> str:
    return step.config.fusion


def _found(step: Step, records: Mapping[Run, dict]) -> list[dict]:
    return [records[run] for run in step.runs()]


def _difference(before: Step, step: Step, records: Mapping[Run, dict]) -> dict[str, float]:
    first, second = ([Scored.of(found, _main(one)) for found in _found(one, records)] for one in (before, step))
    gain = compare_scores(zip(first, second, strict=True), _RESAMPLES, step.config.seed)
    return {"difference_mean": gain.mean, "difference_low": gain.low, "difference_high": gain.high}


def _stamp(step: Step) -> dict[str, str]:
    config = step.config
    return {
        "data": _data(step), "profile": config.profile, "variant": config.variant,
        "seeds": str(config.seed), "config": config.digest()[:12],
    }  # fmt: skip

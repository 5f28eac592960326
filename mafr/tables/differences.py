"""Tables S8 and S9: each difference between text and code alone, and Table IV with corrected scores."""

from collections.abc import Mapping, Sequence

import numpy as np

from mafr.config import VARIANTS, Config
from mafr.experiments.certainty import Scored, compare_scores
from mafr.experiments.corrected import OWN, TRAINING
from mafr.experiments.differences import changes, loss_ablations
from mafr.experiments.plan import Run
from mafr.intervals import RULE, Difference, compare
from mafr.metrics import image_auroc
from mafr.tables.layout import Column, Row, Table
from mafr.tables.paired import loss_row
from mafr.tables.records import Records, TableRecords, select_records
from mafr.tables.stamp import banner, row_stamp, source_notes
from mafr.tables.supplement import metric_heading

METRICS = ("i_auroc", "p_auroc", "aupro_30", "aupro99_30", "aupro_01", "aupro99_01")
AS_TRAINED = "as trained"
SCORINGS = {OWN: "corrected by the test sample itself", TRAINING: "corrected by constants of training samples"}
_PARTS = (("mean", "Difference"), ("low", "Low"), ("high", "High"))


def differences_table(records: Records, config: Config) -> Table:
    """Table S8. records: the record of each run. Raises ResultError for missing runs."""
    rows, made = [], changes(config)
    selected = select_records(records, config, [run for change in made for run in change.runs()], (1,))
    starts = {change.base: change for change in made if not change.name}
    for change in made:
        values = {m: float(selected.mean_over(change.runs(), m, config.fusion).mean()) for m in METRICS}
        result = ""
        if change.name:
            pairs = zip(starts[change.base].runs(), change.runs(), strict=True)
            scored = [tuple(Scored.of(selected.record(run), config.fusion) for run in pair) for pair in pairs]
            found = compare_scores(scored, config.bootstrap, config.seed)
            values |= _values("difference", found)
            result = found.verdict
        labels = (change.base, change.name or "the variant as it is", _plain(change.value), result)
        rows.append(Row(labels, "measured", values, row_stamp(selected, change.base)))
    notes = [
        *source_notes(selected),
        "Each row is its start with one setting of the other variant, or of neither (cbam_scope none: without "
        "attention), trained again. The difference of I-AUROC is to the start, with its 95 % interval by "
        f"{config.bootstrap:,} paired resamplings of the test images. {_rule()}",
        "cloud_sampling, point_rule, mask_padding and skip_origin differ between the variants at full size only; here "
        "both variants have the text's, so each is changed to the code's.",
    ]
    columns = [Column(m, metric_heading(m)) for m in METRICS]
    columns += [Column(f"difference_{part}", name, "I-AUROC minus that of the start") for part, name in _PARTS]
    heads = ("Start", "Changed", "To", "Result")
    title = "Paper's text and released code: one difference at a time"
    return Table("S8", title, heads, columns, rows, banner(config, published=False), notes)


def corrected_table(
    records: Records,
    corrected: Mapping[Run, Mapping[str, Sequence[float]]],
    config: Config,
    variants: Sequence[str] = VARIANTS,
) -> Table:
    """Table S9. corrected: image scores by correction of each run of `loss_ablations`; errors as in S8's."""
    ablations = {variant: runs for variant, runs in loss_ablations(config).items() if variant in variants}
    every = [run for rows in ablations.values() for row in rows.values() for run in row]
    selected, rows = select_records(records, config, every, (4,)), []
    for variant, by_terms in ablations.items():
        *_, full = by_terms.values()
        for terms, runs in by_terms.items():
            for how, name in ({AS_TRAINED: AS_TRAINED} | SCORINGS).items():
                scores = [_scores(run, how, corrected, selected) for run in runs]
                values = {"i_auroc": float(np.mean([image_auroc(*pair) for pair in scores]))}
                result = ""
                if how != AS_TRAINED:
                    values |= _values("gain", _compared(runs, scores, selected))
                if terms != max(by_terms, key=len) or how != AS_TRAINED:
                    against = _compared(full, scores, selected)
                    values |= _values("full", against)
                    result = against.verdict
                labels = (variant, loss_row(terms), name, result)
                rows.append(Row(labels, "measured", values, row_stamp(selected, variant)))
    columns = [Column("i_auroc", "I-AUROC")]
    columns += [Column(f"gain_{part}", name, "Minus the same head as trained") for part, name in _PARTS]
    columns += [Column(f"full_{part}", name, "Minus all three terms as trained") for part, name in _PARTS]
    notes = [
        *source_notes(selected),
        "Corrected: before the distance of eq. 7, each channel of the restored features gets the mean and the "
        "deviation of the original's, over the cells with a 3D point. No head is trained again. The constants of "
        "training samples use nothing of the test set.",
        f"Result: beside all three terms as trained. {_rule()}",
    ]
    heads = ("Variant", "Loss function", "Score", "Result")
    title = "The loss terms with corrected scores"
    return Table("S9", title, heads, columns, rows, banner(config, published=False), notes)


def _compared(runs: Sequence[Run], scores: Sequence[tuple], selected: TableRecords) -> Difference:
    """Image scores with their labels, one pair per category, beside those of `runs` as trained."""
    config = selected.config
    first = (np.asarray(selected.record(run)["scores"][config.fusion]) for run in runs)
    triples = [(labels, old, new) for old, (labels, new) in zip(first, scores, strict=True)]
    return compare(triples, config.bootstrap, config.seed)


def _scores(
    run: Run, how: str, corrected: Mapping[Run, Mapping[str, Sequence[float]]], selected: TableRecords
) -> tuple[np.ndarray, np.ndarray]:
    record = selected.record(run)
    scores = record["scores"][selected.config.fusion] if how == AS_TRAINED else corrected[run][how]
    return np.asarray(record["samples"]["labels"]), np.asarray(scores)


def _values(name: str, found: Difference) -> dict[str, float]:
    return {f"{name}_mean": found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def _rule() -> str:
    return f"{RULE[0].upper()}{RULE[1:]}."


def _plain(value: object) -> str:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)

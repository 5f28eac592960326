"""Whether the paper's claims are reproduced: a claim, what became of it here, and the cells of tables that say so.

A verdict is computed from written tables, with the rule of `mafr.intervals`, so it changes with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mafr.errors import ResultError
from mafr.intervals import HIGHER, LOWER, SAME, verdict
from mafr.tables.published import FUSION_TITLES

RETURNED, FAILED, OPEN, UNTESTED = "reproduced here", "not reproduced here", "undecided here", "cannot be tested here"
BARELY = "reproduced here, barely"
ANSWERS = {RETURNED: "yes, here", FAILED: "no, not here", BARELY: "barely, here"}  # where the paper claims nothing
LEGEND = {
    RETURNED: "all evidence speaks for it, intervals included",
    BARELY: "so does it, but an interval ends nearer to zero than one standard deviation between seeds",
    FAILED: "some of it speaks against it",
    OPEN: "an interval contains zero, or there is none",
}
PAIRED, SEEDS = "tableS5", "tableS4"  # differences of one training, and deviations between seeds
PRODUCT = FUSION_TITLES["product"]
COSTS = {"model_mb": "MB stored", "sample_s": "seconds per sample"}  # columns of the table of costs
LONGER = 1.05  # times as long: less is the noise of a machine


@dataclass(frozen=True)
class Evidence:
    """A finding in a table, in words, and its result: "higher", "level" or "lower" ("" for a plain value).

    barely: its interval ends nearer to zero than seeds deviate.
    """

    text: str
    result: str = ""
    barely: bool = False


@dataclass(frozen=True)
class Verdict:
    """A claim of the paper, what became of it, and the evidence."""

    claim: str
    result: str
    evidence: Sequence[Evidence] = ()


def paired(tables: Path, table: str, other: str, measured: str | None = None, name: str = PAIRED) -> Evidence:
    """A row of Table S5 (or S6): the difference to `other` in a table, with its interval.

    measured: where several are held against the same one. Raises ResultError where the file or the row is missing.
    """
    frame = _read(tables, name)
    found = frame[(frame["Table"] == table) & (frame["Held against"] == other)]
    if measured is not None:
        found = found[found["Measured"] == measured]
    if len(found) != 1:
        raise ResultError(f"{tables / name}.csv has {len(found)} rows of table {table} held against {other}, not 1")
    row = found.iloc[0]
    numbers = f"{_signed(row['difference'])} ({_signed(row['low'])} to {_signed(row['high'])})"
    where = f"{name.removeprefix('table')} · {table} · {row['Measured']} against {other}"
    text, spread = f"{where}: {numbers}, {row['Result']}", _spread(tables, table, row["Measured"])
    # An interval of one training holds the choice of images alone.
    barely = name == PAIRED and row["Result"] != SAME and min(abs(row["low"]), abs(row["high"])) < spread
    return Evidence(f"{text} (S4: seeds deviate by {spread:.3f})" if barely else text, row["Result"], barely)


def _spread(tables: Path, table: str, measured: str) -> float:
    """Standard deviation of a method's mean I-AUROC between seeds, of Table S4; 0 where it is not there.

    Rows that name no method (loss terms, maps, settings) are MAFR's.
    """
    if not (tables / f"{SEEDS}.csv").is_file():
        return 0.0
    frame = _read(tables, SEEDS)
    dataset = "Eyecandies" if table.startswith("II") and not table.startswith("III") else "MVTec 3D-AD"
    rows = frame[(frame["Category"] == "mean") & frame["Data set"].str.startswith(dataset)].set_index("Method")
    name = measured if measured in rows.index else "MAFR, paper"
    return float(rows["i_auroc_std"].get(name, 0.0))


def against_all(tables: Path, table: str, measured: str, but: Iterable[str] = ()) -> list[Evidence]:
    """`paired` for each row of a table in which `measured` is held against another, those of `but` left out."""
    frame = _read(tables, PAIRED)
    rows = frame[(frame["Table"] == table) & (frame["Measured"] == measured)]
    return [paired(tables, table, other, measured) for other in rows["Held against"] if other not in set(but)]


def interval(tables: Path, dataset: str, category: str, method: str) -> Evidence:
    """A row of Table S1: a category's I-AUROC with its interval; "level" if it may be chance, 0.5."""
    frame = _read(tables, "tableS1")
    found = frame[(frame["Data set"] == dataset) & (frame["Category"] == category) & (frame["Method"] == method)]
    if found.empty:
        raise ResultError(f"{tables / 'tableS1.csv'} has no row of {dataset}, {category}, {method}")
    row = found.iloc[0]
    result = verdict(row["i_auroc_low"] - 0.5, row["i_auroc_high"] - 0.5)
    numbers = f"{row['i_auroc']:.3f} ({row['i_auroc_low']:.3f} to {row['i_auroc_high']:.3f})"
    return Evidence(f"S1 · {dataset} · {category} · {method}: {numbers}", result)


def hardest(tables: Path, dataset: str, method: str) -> Evidence:
    """`interval` of the category in which a method's I-AUROC is lowest."""
    frame = _read(tables, "tableS1")
    rows = frame[(frame["Data set"] == dataset) & (frame["Method"] == method)]
    return interval(tables, dataset, rows.loc[rows["i_auroc"].idxmin(), "Category"], method)


def one_change(tables: Path, start: str, setting: str, to: str | None = None) -> list[Evidence]:
    """A row of Table S8: a variant with one setting changed; empty without that table.

    to: where a setting is changed to several values.
    """
    if not (tables / "tableS8.csv").is_file():
        return []
    frame = _read(tables, "tableS8")
    rows = frame[(frame["Start"] == start) & (frame["Changed"] == setting)]
    row = (rows if to is None else rows[rows["To"] == to]).iloc[0]
    mean, low, high = (_signed(row[f"difference_{part}"]) for part in ("mean", "low", "high"))
    where = f"S8 · {start} · {setting} = {row['To']}"
    return [Evidence(f"{where}: {mean} ({low} to {high}), {row['Result']}", row["Result"])]


def all_higher(claim: str, evidence: Sequence[Evidence], wanted: str = HIGHER) -> Verdict:
    """The claim that each is higher (or `wanted`): not reproduced if one is the opposite, undecided if one is level.

    Without evidence it cannot be tested.
    """
    results, opposite = {one.result for one in evidence}, LOWER if wanted == HIGHER else HIGHER
    if not results:
        return Verdict(claim, UNTESTED)
    for_it = BARELY if any(one.barely for one in evidence) else RETURNED
    return Verdict(claim, FAILED if opposite in results else for_it if results == {wanted} else OPEN, evidence)


def highest(claim: str, tables: Path, dataset: str, metric: str, others: Sequence[str]) -> Verdict:
    """The claim that MAFR's mean of a metric in Table S2 is the highest.

    Undecided, for want of an interval; the last line of the evidence says what the means alone speak for.
    """
    if not (tables / "tableS2.csv").is_file():  # as on data of the user's own
        return Verdict(claim, UNTESTED)
    frame = _read(tables, "tableS2")
    means = frame[(frame["Data set"] == dataset) & (frame["Category"] == "mean")].set_index("Method")[metric]
    shown = [name for name in ("MAFR, paper", *others) if name in means.index]
    evidence = [Evidence(f"S2 · {dataset} · mean · {name}: {means[name]:.3f}") for name in shown]
    return Verdict(claim, OPEN, [*evidence, _means_alone(means[shown[0]], means[shown[1:]])])


def highest_fusion(claim: str, tables: Path, metric: str, title: str) -> Verdict:
    """The claim that the product's mean of a pixel metric in Table V is the highest; decided as in `highest`."""
    frame = _read(tables, "table5")
    means = frame[frame["kind"] == "measured"].set_index("Anomaly map")[metric]
    evidence = [Evidence(f"V · {name} · {title}: {value:.3f}") for name, value in means.items()]
    return Verdict(claim, OPEN, [*evidence, _means_alone(means[PRODUCT], means.drop(PRODUCT))])


def _means_alone(own: float, others: pd.Series) -> Evidence:
    return Evidence(f"no intervals; the means alone speak {'for' if own > others.max() else 'against'} it")


def not_corrected(claim: str, frame: pd.DataFrame, loss: str) -> Verdict:
    """The claim that a loss failed for lack of features, by Table S9's rows of the paper's variant.

    It is not reproduced if a corrected score is higher than the one as trained and level with all three terms.
    It is undecided if the correction helps and something is still missing, and reproduced if it changes nothing.
    """
    rows = frame[(frame["Variant"] == "paper") & (frame["Loss function"] == loss) & (frame["Score"] != "as trained")]
    helped = [verdict(row["gain_low"], row["gain_high"]) == HIGHER for _, row in rows.iterrows()]
    missing = [row["Result"] == LOWER for _, row in rows.iterrows()]
    result = RETURNED if not any(helped) else FAILED if all(helped) and not any(missing) else OPEN
    evidence = []
    for _, row in rows.iterrows():
        where = f"S9 · paper · {loss} · {row['Score']}"
        for part, name in (("gain", "as trained"), ("full", "all three")):
            low, high = row[f"{part}_low"], row[f"{part}_high"]
            ends = f"{_signed(row[f'{part}_mean'])} ({_signed(low)} to {_signed(high)})"
            found = verdict(low, high)
            evidence.append(Evidence(f"{where} against {name}: {ends}, {found}", found))
    return Verdict(claim, result, evidence)


def costlier(
    claim: str, tables: Path, dataset: str, column: str, methods: Sequence[str], than: str, factor: float = 1.0
) -> Verdict:
    """The claim that methods cost more than another, by the means of the table of costs.

    It is reproduced if each takes at least `factor` times as much, not reproduced if each takes less, and undecided in
    between; factor: above 1 for times, which differ from run to run. Without these methods' costs it cannot be tested.
    """
    frame = _read(tables, "cost") if (tables / "cost.csv").is_file() else pd.DataFrame(columns=["Data set"])
    rows = frame[frame["Data set"] == dataset]
    means = rows[rows["Category"] == "mean"].set_index("Method")[column] if len(rows) else {}
    if not {than, *methods} <= set(means.keys()):
        return Verdict(claim, UNTESTED)
    ratios = {name: means[name] / means[than] for name in methods}
    result = RETURNED if min(ratios.values()) >= factor else FAILED if max(ratios.values()) < 1 else OPEN
    where = f"cost · {dataset} · mean · {COSTS[column]}"
    found = (f"{where} · {n}: {means[n]:.3f}, {ratio:.2f} times that of {than}" for n, ratio in ratios.items())
    return Verdict(claim, result, [Evidence(text) for text in found])


def longer(files: Mapping[str, Mapping], one: str, other: str) -> list[Evidence]:
    """Whether a training step takes longer than another, by files of `mafr bench --steps`: file name -> its content."""
    evidence = []
    for file, content in files.items():
        steps = {row["method"]: row for row in content.get("steps", ())}
        for way in ("plain", "general", "product") if {one, other} <= set(steps) else ():
            a, b = (steps[name][f"{way}_ms"] for name in (one, other))
            result = HIGHER if a / b > LONGER else LOWER if b / a > LONGER else SAME
            where = f"{file} · {'fast' if way == 'product' else way} · {one} against {other}"
            evidence.append(Evidence(f"{where}: {a:.2f} / {b:.2f} ms, {a / b:.2f} times", result))
    return evidence


def all_level(claim: str, evidence: Sequence[Evidence]) -> Verdict:
    """The claim that two are the same: not reproduced if one differs. Being level does not prove it: undecided.

    Without evidence it cannot be tested.
    """
    if not evidence:
        return Verdict(claim, UNTESTED)
    return Verdict(claim, OPEN if {one.result for one in evidence} == {SAME} else FAILED, evidence)


def verdict_table(verdicts: Iterable[Verdict], stamp: str, questions: bool = False) -> str:
    """Markdown: one row per claim, and below what the words mean.

    stamp: what the numbers were measured on; questions: the claims are ours, so that they are answered by yes and no.
    """
    verdicts, words = list(verdicts), ANSWERS if questions else {}
    head = "Question, as a statement" if questions else "Claim"
    lines = [f"**{stamp}**", "", f"| {head} | Here | Evidence: table, row, difference (95 % interval) |"]
    lines.append("| :-- | :-- | :-- |")
    for one in verdicts:
        evidence = "<br>".join(part.text for part in one.evidence) or "its table is not here"
        lines.append(f"| {one.claim} | **{words.get(one.result, one.result)}** | {evidence} |")
    there = {one.result for one in verdicts}
    legend = "; ".join(f"*{words.get(name, name)}*: {text}" for name, text in LEGEND.items() if name in there)
    return "\n".join([*lines, "", f"{legend}."] if legend else lines)


def _read(tables: Path, name: str) -> pd.DataFrame:
    path = tables / f"{name}.csv"
    if not path.is_file():
        raise ResultError(f"{path} is missing; `mafr tables` writes it")
    return pd.read_csv(path, na_values="n/a", keep_default_na=False)


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")

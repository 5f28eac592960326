"""The README's results: the measured rows of the written tables, between two markers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from mafr.config import UNTRAINED
from mafr.errors import ResultError
from mafr.paths import write_atomically

BEGIN, END = "<!-- results: written by `mafr tables`, not by hand -->", "<!-- end of results -->"
_TITLES = {
    1: "Table I: I-AUROC, MVTec 3D-AD stand-in",
    2: "Table II: I-AUROC, Eyecandies stand-in",
    3: "Table III: few-shot, mean over the MVTec 3D-AD stand-in's categories",
    4: "Table IV: loss terms, same",
    5: "Table V: anomaly maps, same",
}
_METRICS = {"i_auroc": "I-AUROC", "p_auroc": "P-AUROC", "aupro_30": "AUPRO@30%", "aupro_01": "AUPRO@1%"}
_STAMP = ("kind", "data", "profile", "variant", "seeds", "config")


def results_block(tables: Path) -> str:
    """The measured rows of table1.csv … table5.csv as markdown.

    Raises ResultError if one is missing, or was measured with untrained backbones.
    """
    parts = []
    for number, title in _TITLES.items():
        path = tables / f"table{number}.csv"
        if not path.exists():
            raise ResultError(f"{path} is missing; write it with `mafr tables`")
        frame = pd.read_csv(path, keep_default_na=False)
        frame = frame[frame["kind"] == "measured"]
        if "data" in frame and frame["data"].str.contains(UNTRAINED, regex=False).any():
            raise ResultError(f"{path}: {UNTRAINED}; the README takes tables of trained backbones only")
        frame = frame.drop(columns=[c for c in _STAMP if c in frame])
        frame = _by_shots(frame) if number == 3 else frame.rename(columns=_METRICS)
        parts.append(f"**{title}**\n\n{_markdown(frame)}")
    return "\n\n".join(parts)


def update_readme(readme: Path, tables: Path) -> None:
    """Put the current results between the markers of `readme`. Raises ResultError if they are not there."""
    text = readme.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultError(f"{readme} lacks the markers {BEGIN!r} and {END!r}")
    write_atomically(readme, f"{before}{begin}\n\n{results_block(tables)}\n\n{end}{after}")


def _by_shots(frame: pd.DataFrame) -> pd.DataFrame:
    """Table III's one wide row a method as a row a metric and a column a number of shots."""
    rows = []
    for row in frame.to_dict("records"):
        for name, metric in _METRICS.items():
            cells = {column[len(name) + 1 :]: value for column, value in row.items() if column.startswith(name)}
            rows.append({"Method": row["Method"], "Metric": metric, **cells})
    return pd.DataFrame(rows)


def _markdown(frame: pd.DataFrame) -> str:
    heads = [str(c).replace("_", " ") for c in frame.columns]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in frame.itertuples(index=False):
        lines.append(f"| {' | '.join(_cell(value) for value in row)} |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    try:
        return f"{float(value):.3f}"
    except ValueError:
        return str(value).replace("|", "\\|")

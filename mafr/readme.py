"""The README's results: the measured rows of the written tables, between two markers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

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
_STAMP = ("kind", "data", "profile", "variant", "seeds", "config")


def results_block(tables: Path) -> str:
    """The measured rows of table1.csv … table5.csv as markdown. Raises ResultError if one is missing."""
    parts = []
    for number, title in _TITLES.items():
        path = tables / f"table{number}.csv"
        if not path.exists():
            raise ResultError(f"{path} is missing; write it with `mafr tables`")
        frame = pd.read_csv(path, keep_default_na=False)
        frame = frame[frame["kind"] == "measured"].drop(columns=[c for c in _STAMP if c in frame])
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

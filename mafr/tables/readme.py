"""The README's results: means of the measured rows of the written tables, between two markers.

An I-AUROC that is level with MAFR's by Table S5 bears a mark, so that no prose has to say which differences count.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from mafr.config import UNTRAINED
from mafr.errors import ResultError
from mafr.intervals import SAME
from mafr.paths import write_atomically
from mafr.tables.published import FUSION_TITLES, METRIC_TITLES, TABLE_4, loss_title

LEVEL_MARK, PRODUCT = " ≈", FUSION_TITLES["product"]
_OWN = ("MAFR (ours, paper)", loss_title(max(TABLE_4, key=len)), PRODUCT)  # what the others of a table are held against
BEGIN, END = "<!-- results: written by `mafr tables --readme`, not by hand -->", "<!-- end of results -->"


def results_block(tables: Path) -> str:
    """The measured means of table1.csv … table5.csv as markdown: what is level with MAFR by tableS5.csv is marked.

    Bold: the highest value; where that is MAFR's or level with it, both, so that no order is shown that is none.

    Raises ResultError if one is missing, or was measured with untrained backbones.
    """
    one, two, three, four, five = (_measured(tables / f"table{number}.csv") for number in range(1, 6))
    level = _level(tables / "tableS5.csv")
    names = {"mean_x": "MVTec 3D-AD stand-in (I)", "mean_y": "Eyecandies stand-in (II)"}
    means = one.merge(two, on="Method", how="outer", sort=False, suffixes=("_x", "_y"))
    order = list(dict.fromkeys([*one["Method"], *two["Method"]]))
    means = means.set_index("Method").loc[order].reset_index()
    few = {name: name.removeprefix("i_auroc_").replace("_", " ") for name in three if name.startswith("i_auroc_")}
    parts = {  # heading -> rows, and the name in Table S5 of each column that it compares
        "Tables I and II: mean I-AUROC over ten categories": (
            means[["Method", *names]].rename(columns=names), dict(zip(names.values(), ("I", "II"), strict=True)),
        ),
        "Table III: mean I-AUROC with few training samples, MVTec 3D-AD stand-in": (
            three[["Method", *few]].rename(columns=few),
            {name: f"III, {name.replace(' shot', '-shot')}" for name in few.values()},
        ),
        "Table IV: the loss terms, MAFR (paper), same data": (_metrics(four), {"I-AUROC": "IV"}),
        "Table V: the anomaly maps, MAFR (paper), same data": (_metrics(five), {"I-AUROC": "V"}),
    }  # fmt: skip
    texts = [f"**{title}**\n\n{_markdown(frame, marked, level)}" for title, (frame, marked) in parts.items()]
    if (seeds := tables / "tableS4.csv").exists():
        texts.insert(1, _over_seeds(_measured(seeds)))
    return "\n\n".join(texts)


def _over_seeds(frame: pd.DataFrame) -> str:
    """Means of Table S4 in a sentence: the order of one seed is not always theirs."""
    means = frame[frame["Category"] == "mean"]
    said = []
    for number, (_, rows) in zip(("I", "II"), means.groupby("Data set", sort=False), strict=True):
        ordered = rows.sort_values("i_auroc", ascending=False)
        said.append(f"{number}: {', '.join(f'{_short(r.Method)} {r.i_auroc:.3f}' for r in ordered.itertuples())}")
    return f"Over {len(means['seeds'].iloc[0].split())} seeds (`tableS4`): {'; '.join(said)}."


def update_readme(readme: Path, tables: Path) -> None:
    """Put the current results between the markers of `readme`. Raises ResultError if they are not there."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultError(f"{readme} lacks the markers {BEGIN!r} and {END!r}")
    write_atomically(readme, f"{before}{begin}\n\n{results_block(tables)}\n\n{end}{after}")


def _short(name: str) -> str:
    method, _, variant = name.partition(", ")
    return f"{method} ({variant})" if variant else method


def _measured(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise ResultError(f"{path} is missing; write it with `mafr tables`")
    frame = pd.read_csv(path)
    frame = frame[frame["kind"] == "measured"].reset_index(drop=True)
    if "data" in frame and frame["data"].str.contains(UNTRAINED, regex=False).any():
        raise ResultError(f"{path}: {UNTRAINED}; the README takes tables of trained backbones only")
    return frame


def _metrics(frame: pd.DataFrame) -> pd.DataFrame:
    """The first column and the four metrics under their titles, AUPRO in its exact form."""
    return frame[[frame.columns[0], *METRIC_TITLES]].rename(columns=METRIC_TITLES)


def _bold(text: str) -> str:
    value, mark, _ = text.partition(LEVEL_MARK)
    return f"**{value}**{mark}" if value else ""


def _level(path: Path) -> set[tuple[str, str]]:
    """(table, row) of what is level with MAFR by Table S5, the rows under the names of the other tables."""
    frame = _measured(path)
    found = frame[(frame["Result"] == SAME) & ~((frame["Table"] == "V") & (frame["Measured"] != PRODUCT))]
    return {(row["Table"], _row_name(row["Table"], row["Held against"])) for row in found.to_dict("records")}


def _row_name(table: str, name: str) -> str:
    if table in ("IV", "V"):
        return name
    return f"MAFR (ours, {name.removeprefix('MAFR, ')})" if name.startswith("MAFR, ") else f"{name} (run here)"


def _markdown(frame: pd.DataFrame, marked: Mapping[str, str], level: set[tuple[str, str]]) -> str:
    """A table whose first column is text and whose others are numbers, NaN where there is none.

    marked: column -> its name in Table S5; level: (that name, row) of the cells that get `LEVEL_MARK`.
    """
    texts = frame.iloc[:, 1:].map(lambda value: "" if pd.isna(value) else f"{value:.3f}")
    best = texts == texts.max()  # as text: all lie between 0.000 and 1.000
    for column, table in marked.items():
        names = [(table, name) for name in frame.iloc[:, 0]]
        same = np.array([one in level for one in names])
        own = np.array([name in _OWN for _, name in names])
        if (best[column] & (same | own)).any():
            best[column] |= same | own
        texts[column] = texts[column].where(~same, texts[column] + LEVEL_MARK)
    texts = texts.where(~best, texts.map(_bold))
    rows = [list(frame.columns), ["---"] * len(frame.columns)]
    names = [str(name).removesuffix(" (run here)") for name in frame.iloc[:, 0]]  # as all rows of the README are
    rows += [[name, *row] for name, row in zip(names, texts.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

"""The README's results: means of the measured rows of the written tables, between two markers."""

from pathlib import Path

import pandas as pd

from mafr.config import UNTRAINED
from mafr.errors import ResultError
from mafr.paths import write_atomically
from mafr.tables.published import METRIC_TITLES

BEGIN, END = "<!-- results: written by `mafr tables --readme`, not by hand -->", "<!-- end of results -->"


def results_block(tables: Path) -> str:
    """The measured means of table1.csv … table5.csv as markdown, the best of each column in bold.

    Raises ResultError if one is missing, or was measured with untrained backbones.
    """
    one, two, three, four, five = (_measured(tables / f"table{number}.csv") for number in range(1, 6))
    names = {"mean_x": "MVTec 3D-AD stand-in (I)", "mean_y": "Eyecandies stand-in (II)"}
    means = one.merge(two, on="Method", how="outer", sort=False, suffixes=("_x", "_y"))
    order = list(dict.fromkeys([*one["Method"], *two["Method"]]))
    means = means.set_index("Method").loc[order].reset_index()
    few = {name: name.removeprefix("i_auroc_").replace("_", " ") for name in three if name.startswith("i_auroc_")}
    parts = {
        "Tables I and II: mean I-AUROC over ten categories": means[["Method", *names]].rename(columns=names),
        "Table III: mean I-AUROC with few training samples, MVTec 3D-AD stand-in": three[["Method", *few]].rename(
            columns=few
        ),
        "Table IV: the loss terms, MAFR (paper), same data": four[[four.columns[0], *METRIC_TITLES]],
        "Table V: the anomaly maps, MAFR (paper), same data": five[[five.columns[0], *METRIC_TITLES]],
    }
    titled = {title: frame.rename(columns=METRIC_TITLES) for title, frame in parts.items()}
    return "\n\n".join(f"**{title}**\n\n{_markdown(frame)}" for title, frame in titled.items())


def update_readme(readme: Path, tables: Path) -> None:
    """Put the current results between the markers of `readme`. Raises ResultError if they are not there."""
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ResultError(f"{readme} lacks the markers {BEGIN!r} and {END!r}")
    write_atomically(readme, f"{before}{begin}\n\n{results_block(tables)}\n\n{end}{after}")


def _measured(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise ResultError(f"{path} is missing; write it with `mafr tables`")
    frame = pd.read_csv(path)
    frame = frame[frame["kind"] == "measured"].reset_index(drop=True)
    if "data" in frame and frame["data"].str.contains(UNTRAINED, regex=False).any():
        raise ResultError(f"{path}: {UNTRAINED}; the README takes tables of trained backbones only")
    return frame


def _markdown(frame: pd.DataFrame) -> str:
    """A table whose first column is text and whose others are numbers, NaN where there is none."""
    texts = frame.iloc[:, 1:].map(lambda value: "" if pd.isna(value) else f"{value:.3f}")
    texts = texts.where(texts != texts.max(), "**" + texts + "**")  # as text: all lie between 0.000 and 1.000
    rows = [list(frame.columns), ["---"] * len(frame.columns)]
    rows += [[str(name), *row] for name, row in zip(frame.iloc[:, 0], texts.to_numpy(), strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)

"""The tables of a checkout beside those of its last commit: the largest difference, in one line."""

import io
import subprocess
from pathlib import Path

import pandas as pd

from mafr.tables.layout import STAMP_COLUMNS

_GROUPS = {"Tables I–V": "table[1-5].csv", "the supplementary ones": "tableS*.csv"}
_OUTCOME = "Result"  # a label column that says what came out, not which row it is
_RESTORE = "`git restore tables figures notebooks/executed` brings the committed ones back"


def committed_difference(tables: Path, root: Path) -> str:
    """One line on how far the written tables are from the committed ones; "" where none are committed.

    tables: folder of the csv files, in the git checkout `root`. Times and sizes (`cost.csv`) do not count.
    """
    parts, texts, compared = [], [], 0
    for title, pattern in _GROUPS.items():
        largest, where, other = 0.0, "", []
        for path in sorted(tables.glob(pattern)):
            committed = _committed(path, root)
            if committed is None:
                continue
            compared += 1
            here, there = _read(path), _read(io.StringIO(committed))
            if not _same_cells(here, there):
                other.append(path.name)
                continue
            texts += [f"{name} of {_rows(count)} of {path.name}" for name, count in _other_texts(here, there).items()]
            gap, cell = _largest_gap(here, there)
            if gap > largest:
                largest, where = gap, f"{path.name}: {cell}"
        parts += [f"{title} by at most {largest:.4f} ({where})"] if largest else []
        parts += [f"{', '.join(other)} by other rows or columns"] if other else []
    parts += [f"by the text in {', '.join(texts)}"] if texts else []
    if not compared:
        return ""
    if not parts:
        return "mafr: the tables equal the committed ones"
    return f"mafr: the tables differ from the committed ones, {', '.join(parts)}; {_RESTORE}"


def _same_cells(here: pd.DataFrame, there: pd.DataFrame) -> bool:
    """Whether two tables have the same columns, the same rows by their labels, and numbers in the same cells."""
    if list(here) != list(there) or len(here) != len(there):
        return False
    labels, numbers = [*_labels(here), "kind"], _numbers(here, there)
    return here[labels].apply(_text).equals(there[labels].apply(_text)) and here[numbers].isna().equals(
        there[numbers].isna()
    )


def _other_texts(here: pd.DataFrame, there: pd.DataFrame) -> dict[str, int]:
    """{column: number of rows that differ} beside labels and numbers: outcomes and stamps."""
    kept = [name for name in here if name not in (*_labels(here), *_numbers(here, there))]
    counts = {name: int((_text(here[name]) != _text(there[name])).sum()) for name in kept}
    return {name: count for name, count in counts.items() if count}


def _largest_gap(here: pd.DataFrame, there: pd.DataFrame) -> tuple[float, str]:
    """The largest difference of two tables with the same cells, and its cell."""
    numbers = _numbers(here, there)
    gaps = (here[numbers] - there[numbers]).abs().stack()
    if gaps.empty or not gaps.max():
        return 0.0, ""
    row, column = gaps.idxmax()
    return float(gaps.max()), ", ".join([*(str(here.loc[row, name]) for name in _labels(here)), str(column)])


def _text(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").astype(str)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _labels(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns[: list(table).index("kind")] if name != _OUTCOME]


def _numbers(here: pd.DataFrame, there: pd.DataFrame) -> list[str]:
    """The columns of numbers in both; a column of numbers in one alone is of text."""
    both = here.select_dtypes("number").columns.intersection(there.select_dtypes("number").columns)
    return [name for name in both if name not in (*_labels(here), _OUTCOME, "kind")]


def _read(table: Path | io.StringIO) -> pd.DataFrame:
    return pd.read_csv(table, dtype=dict.fromkeys(STAMP_COLUMNS, str))


def _committed(path: Path, root: Path) -> str | None:
    """The file as of the last commit, None where it is in none."""
    try:
        name = path.resolve().relative_to(root.resolve()).as_posix()
        command = ["git", "-C", str(root), "show", f"HEAD:./{name}"]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None

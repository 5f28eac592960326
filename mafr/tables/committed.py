"""The tables of a checkout beside those of its last commit: the largest difference, in one line."""

import io
import subprocess
from pathlib import Path

import pandas as pd

from mafr.tables.layout import STAMP_COLUMNS

_GROUPS = {"Tables I–V": "table[1-5].csv", "S1–S7": "tableS*.csv"}
_RESTORE = "`git restore tables figures notebooks/executed` brings the committed ones back"


def committed_difference(tables: Path, root: Path) -> str:
    """One line on how far the written tables are from the committed ones; "" where none are committed.

    tables: folder of the csv files, in the git checkout `root`. Times and sizes (`cost.csv`) do not count.
    """
    parts, compared = [], 0
    for title, pattern in _GROUPS.items():
        largest, where, other = 0.0, "", []
        for path in sorted(tables.glob(pattern)):
            committed = _committed(path, root)
            if committed is None:
                continue
            compared += 1
            gap, cell = _largest_gap(_read(path), _read(io.StringIO(committed)))
            if gap is None:
                other.append(path.name)
            elif gap > largest:
                largest, where = gap, f"{path.name}: {cell}"
        parts += [f"{title} by at most {largest:.4f} ({where})"] if largest else []
        parts += [f"{', '.join(other)} by other rows or columns"] if other else []
    if not compared:
        return ""
    if not parts:
        return "mafr: the tables equal the committed ones"
    return f"mafr: the tables differ from the committed ones, {', '.join(parts)}; {_RESTORE}"


def _largest_gap(here: pd.DataFrame, there: pd.DataFrame) -> tuple[float | None, str]:
    """The largest difference of two tables and its cell; None where they do not have the same rows and columns."""
    if list(here) != list(there) or len(here) != len(there):
        return None, ""
    numbers = here.select_dtypes("number").columns.intersection(there.select_dtypes("number").columns)
    texts = [name for name in here if name not in numbers]
    same_texts = here[texts].astype(str).equals(there[texts].astype(str))
    if not same_texts or not here[numbers].isna().equals(there[numbers].isna()):
        return None, ""
    gaps = (here[numbers] - there[numbers]).abs().stack()
    if gaps.empty or not gaps.max():
        return 0.0, ""
    row, column = gaps.idxmax()
    names = [str(here.loc[row, name]) for name in here.columns[: list(here).index("kind")]]
    return float(gaps.max()), ", ".join([*names, str(column)])


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

"""What the readers of PLY and PCD share: columns of numbers in text, and a word for files that end early."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mafr.errors import DataError


def cut_off(path: Path) -> DataError:
    """The error for a file that ends before its header says."""
    return DataError(f"{path}: the file is cut off: it holds fewer points than its header says; copy it again")


def parse_ascii(body: bytes, rows: int, columns: Sequence[int], path: Path) -> np.ndarray:
    """The numbers in some columns of a text's first `rows` lines, (rows, len(columns)) float64.

    Raises DataError for other text, and for fewer lines.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of no data at all, which the size says
        try:
            values = np.loadtxt(io.BytesIO(body), comments=None, usecols=columns, max_rows=rows, ndmin=2)
        except ValueError as error:
            raise DataError(f"{path}: text that is no number among the points, or a line cut off ({error})") from error
    if len(values) < rows:
        raise cut_off(path)
    return values

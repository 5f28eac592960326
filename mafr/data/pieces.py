"""Pieces that the cleaning leaves out: it keeps the largest one above the table, so parts of several lose others."""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from mafr.errors import notice

PIECE = 0.1  # points per point of the part; smaller pieces are strays or crumbs
_SCANS = 0.5  # of a category's; where few have such a piece, it is something that lay beside the part


def warn_of_pieces(folder: Path, records: Collection[Mapping]) -> None:
    """Print a line where at least half of a category's scans lost a piece of a tenth of the part's points or more.

    folder: the category's raw one. records: of all its samples; `dropped` is `mafr.data.layout.Processed.dropped`.
    """
    shares = [record["dropped"] for record in records if record.get("dropped", 0) >= PIECE]
    if len(shares) >= max(_SCANS * len(records), 1):
        notice(
            f"warning: {folder}: in {len(shares)} of {len(records)} scans a second piece above the table, of "
            f"{np.median(shares):.0%} of the part's points in the median, is left out: only the largest connected "
            "piece is kept, and what rises less than 5 mm above the table counts as table; a part without a table, "
            "its scans cleaned already, is prepared whole with --plane none"
        )

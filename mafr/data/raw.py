"""What preprocessing reads and makes, whichever the data set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RawSample:
    """One raw sample: a key of its own and (role, path relative to the category's folder) of its files."""

    key: str
    files: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Processed:
    """One processed sample: `id` is "<split>/<defect>/<stem>", `xyz` (H, W, 3), `rgb` and `gt` png files."""

    id: str
    rgb: bytes
    xyz: np.ndarray
    gt: bytes | None

"""Where things lie that tests read: the checkout, and real scans that are not part of it.

Tests of real scans skip where these are absent; MAFR_REAL and MAFR_TIRE name them elsewhere.
"""

import os
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def _beside_the_checkout(variable: str, name: str) -> Path:
    return Path(os.environ.get(variable) or CHECKOUT.parent / "shared" / name)


REAL = _beside_the_checkout("MAFR_REAL", "real")  # cable_gland of MVTec 3D-AD, a part of Eyecandies' CandyCane
TIRE = _beside_the_checkout("MAFR_TIRE", "mvtec3d_tire")  # real images and masks of tire, placeholder geometry

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the real scans are not here (set MAFR_REAL)")
needs_tire = pytest.mark.skipif(
    not (TIRE / "tire").is_dir(), reason="the real images of tire are not here (set MAFR_TIRE)"
)

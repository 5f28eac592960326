"""What holds of the mask of every generated defect."""

import numpy as np

from mafr.data.synthetic.mvtec.write import Scan


def check_points_move_inside_the_mask(clean: Scan, spoilt: Scan) -> None:
    """The same part without and with a defect of its shape: points move where the mask says, and hardly elsewhere."""
    mask = spoilt.gt > 0
    both = (clean.xyz != 0).any(-1) & (spoilt.xyz != 0).any(-1)
    moved = np.linalg.norm(clean.xyz - spoilt.xyz, axis=-1)
    assert spoilt.info["geometry_pixels"] > 0
    assert np.quantile(moved[mask & both], 0.75) > 0.0003
    assert (moved[~mask & both] > 0.001).mean() < 0.005

"""Parts of all figures."""

import numpy as np

from mafr.figures.style import Picture, outline


def test_outline_of_nothing_draws_nothing():
    axes = Picture().subplots()
    outline(axes, np.zeros((4, 4), dtype=bool))
    outline(axes, np.ones((4, 4), dtype=bool))
    assert not axes.collections

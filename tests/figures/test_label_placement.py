"""Names beside points: none on another, none on a point, all inside the axes."""

import numpy as np
import pytest
from matplotlib.transforms import Bbox

from mafr.figures.label_placement import label_points
from mafr.figures.style import new_figure


def _labelled(places, names):
    figure = new_figure(4.5, 3.2)
    axes = figure.subplots()
    axes.plot(*np.transpose(places), "o", markersize=5)
    axes.set_xscale("log")
    axes.margins(x=0.18, y=0.1)
    figure.draw_without_rendering()
    label_points(axes, names, np.asarray(places), ["#000000"] * len(names), size=7)
    figure.draw_without_rendering()
    return axes


def _boxes(axes):
    # The text alone: an annotation's own extent holds its line too.
    return [Bbox.from_extents(*super(type(text), text).get_window_extent().extents) for text in axes.texts]


CLOSE = [(0.05, 0.84), (0.055, 0.86), (0.054, 0.82), (0.056, 0.818), (0.07, 0.87), (0.11, 0.75), (0.008, 0.47)]


@pytest.mark.parametrize("places", [CLOSE, [(1.0, 1.0)] * 4, [(0.01, 0.5), (0.1, 0.6)]])
def test_names_keep_clear_of_each_other_and_of_the_points(places):
    names = [f"MAFR, released {k}" for k in range(len(places))]
    axes = _labelled(places, names)
    assert [text.get_text() for text in axes.texts] == names
    boxes, frame = _boxes(axes), axes.get_window_extent()
    points = axes.transData.transform(places)
    for k, box in enumerate(boxes):
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
        assert not any(box.contains(*point) for point in points)
        assert not any(box.overlaps(other) for other in boxes[k + 1 :])


def test_a_lone_point_has_its_name_close_by_and_no_line():
    axes = _labelled([(0.01, 0.5), (0.1, 0.6)], ["a", "b"])
    assert all(text.arrow_patch is None for text in axes.texts)
    for text, box in zip(axes.texts, _boxes(axes), strict=True):
        x, y = axes.transData.transform(text.xy)
        assert abs(box.x0 - x) < 20 and abs((box.y0 + box.y1) / 2 - y) < 20

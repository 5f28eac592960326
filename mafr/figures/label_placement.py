"""Labels of the points of a scatter plot, placed where they cover neither points, nor each other, nor their lines."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

_DIRECTIONS = np.deg2rad(np.arange(0, 360, 22.5))  # from the point to the middle of its label, tried in this order
_DISTANCES = (4.0, 11.0, 19.0, 28.0, 38.0)  # between point and label, in points of 1/72 inch; the nearest free one
_LINE_FROM = 11.0  # labels this far away are tied to their points by a line
_POINT = 4.0  # half the side of the square around a point that no label may touch
_OTHER = 7.0  # the same around another point than the label's, which the label must not seem to name
_GAP = 1.0  # around each label
_LINE_STEPS = 24  # places on a line that are looked at
_LINE_COST = 6.0  # of each that lies in a label or near a point, as an area
_ROUNDING = 1e-6  # of areas


def label_points(axes: Axes, names: Sequence[str], places: np.ndarray, colours: Sequence[str], size: float) -> None:
    """Write `names` beside the points `places`, (n, 2) in data units; size: of the type, in points.

    The axes must have their final limits and place in the figure (`Figure.draw_without_rendering`). Where no place is
    free, the one that covers least is taken.
    """
    pixels = axes.figure.dpi / 72  # per point of 1/72 inch
    points = axes.transData.transform(places) / pixels
    frame = Bbox(axes.get_window_extent().get_points() / pixels)
    extents = [_extent(axes, name, size) / pixels for name in names]
    taken = [_box(point, np.full(2, 2 * _OTHER)) for point in points]
    own = [_box(point, np.full(2, 2 * _POINT)) for point in points]
    lines: list[np.ndarray] = []
    middles = np.zeros_like(points)
    away = np.zeros(len(points), dtype=bool)
    for k in _crowded_first(points):
        least = np.inf
        for distance, direction in product(_DISTANCES, _DIRECTIONS):
            toward = np.array([np.cos(direction), np.sin(direction)])
            # The distance holds between the point and the label's edge, whatever its length.
            middle = points[k] + toward * (distance + _POINT / 2) + np.sign(np.round(toward, 6)) * extents[k] / 2
            box = _box(middle, extents[k] + 2 * _GAP)
            others = [own[k] if number == k else one for number, one in enumerate(taken)]
            covered = sum(_shared(box, other) for other in others) + _area(box) - _shared(box, frame)
            line = _line(points[k], middle) if distance >= _LINE_FROM else points[:0]
            crossed = sum(_inside(line, one) for number, one in enumerate(taken) if number != k)
            crossed += sum(_inside(one, box) for one in lines)
            covered += _LINE_COST * crossed
            if covered < least - _ROUNDING:
                least, middles[k], away[k] = covered, middle, distance >= _LINE_FROM
            if least < _ROUNDING:
                break
        taken.append(_box(middles[k], extents[k] + 2 * _GAP))
        if away[k]:
            lines.append(_line(points[k], middles[k]))
    for k, (name, colour) in enumerate(zip(names, colours, strict=True)):
        line = {"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkA": 0, "shrinkB": 2} if away[k] else None
        axes.annotate(
            name, places[k], middles[k] - points[k], textcoords="offset points", fontsize=size, color=colour,
            ha="center", va="center", arrowprops=line,
        ).set_in_layout(False)  # fmt: skip


def _crowded_first(points: np.ndarray) -> np.ndarray:
    """The order of placement: points with near neighbours have the fewest free places."""
    gaps = np.linalg.norm(points[:, None] - points[None], axis=2) + np.diag(np.full(len(points), np.inf))
    return np.argsort(gaps.min(axis=1, initial=np.inf), kind="stable")


def _extent(axes: Axes, name: str, size: float) -> np.ndarray:
    text = axes.text(0, 0, name, fontsize=size)
    extent = text.get_window_extent()
    text.remove()
    return np.array([extent.width, extent.height])


def _box(middle: np.ndarray, sides: np.ndarray) -> Bbox:
    return Bbox([middle - sides / 2, middle + sides / 2])


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Places between two points, (n, 2)."""
    return start + np.linspace(0, 1, _LINE_STEPS)[:, None] * (end - start)


def _inside(places: np.ndarray, box: Bbox) -> int:
    return int(((places > box.min) & (places < box.max)).all(axis=1).sum())


def _area(box: Bbox) -> float:
    return box.width * box.height


def _shared(a: Bbox, b: Bbox) -> float:
    both = Bbox.intersection(a, b)
    return 0.0 if both is None else _area(both)

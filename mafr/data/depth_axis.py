"""The viewing axis of organised clouds, found from the clouds themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mafr.data.samples import Sample
from mafr.errors import DataError

FIT_POINTS = 2000  # points per sample for `DepthAxis.fit`


@dataclass(frozen=True)
class DepthAxis:
    """The direction to the camera, for clouds whose axes are parallel to the camera's.

    MVTec 3D-AD's clouds are in the camera's own frame; those of Eyecandies come out of preprocessing with swapped and
    shifted axes, so the viewing axis is found from the clouds themselves.
    """

    axis: int  # the coordinate along which the camera looks
    direction: float  # +1 where it grows away from the camera, else -1
    offset: float  # metres, the depth of the points with coordinate zero

    @classmethod
    def fit(cls, samples: Iterable[Sample]) -> DepthAxis:
        """Find it from good samples. Raises DataError if they have no points.

        Two of a pinhole camera's coordinates are nearly linear in the pixel's place; the third, the depth, is the one
        that is least so. A lateral coordinate is x = (d/f)(u - u0), so its growth with u vanishes at depth zero.
        Clouds without any relief do not show it: the camera is then assumed at the origin.
        """
        rows = [_places(sample) for sample in samples]
        rows = np.concatenate(rows) if rows else np.empty((0, 5))
        if len(rows) < 4:
            raise DataError("the samples have no 3D points; depth needs some")
        pixels, points = rows[:, :2] - rows[:, :2].mean(axis=0), rows[:, 2:]
        middle = points.mean(axis=0)
        centred = points - middle
        design = np.column_stack([np.ones(len(pixels)), pixels])
        slopes, *_ = np.linalg.lstsq(design, centred, rcond=None)  # (3, 3): constant, v, u by coordinate
        left = ((centred - design @ slopes) ** 2).sum(axis=0)
        total = (centred**2).sum(axis=0)
        unexplained = np.where(total > 0, left / np.where(total > 0, total, 1), 1)
        axis = int(np.flatnonzero(unexplained == unexplained.max())[-1])
        lateral = min((k for k in range(3) if k != axis), key=lambda k: unexplained[k])
        along = pixels[:, int(np.argmax(np.abs(slopes[1:, lateral])))]
        depth = centred[:, axis]
        design = np.column_stack([np.ones(len(along)), along, depth, along * depth])
        growth = np.linalg.lstsq(design, centred[:, lateral], rcond=None)[0][[1, 3]]
        bend = abs(growth[1]) * np.abs(depth).max()  # how much the growth changes over the cloud's depth
        if not np.isfinite(growth).all() or bend <= 1e-4 * abs(growth[0]):
            return cls(axis, -1.0 if middle[axis] < 0 else 1.0, 0.0)
        distance = growth[0] / growth[1]  # of the mean point from the camera, negative where the axis points to it
        direction = 1.0 if distance > 0 else -1.0
        return cls(axis, direction, float(abs(distance) - direction * middle[axis]))

    def depth(self, xyz: np.ndarray) -> np.ndarray:
        """(3, S, S) metres -> (S, S) depth along the viewing axis, 0 where there is no point."""
        return np.where((xyz != 0).any(axis=0), self.direction * xyz[self.axis] + self.offset, 0).astype(np.float32)


def _places(sample: Sample) -> np.ndarray:
    """(n, 5): row, column and coordinates of some of a sample's points, evenly spread."""
    v, u = np.nonzero(sample.valid[0])
    step = max(1, -(-len(v) // FIT_POINTS))
    v, u = v[::step], u[::step]
    return np.column_stack([v, u, sample.xyz[:, v, u].T.astype(np.float64)])

"""The viewing axis of organised clouds, found from the clouds themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mafr.data.samples import Sample
from mafr.errors import DataError

FIT_POINTS = 2000  # points per sample for `DepthAxis.fit`
NEAR_AN_AXIS = np.cos(np.deg2rad(5))  # a fitted direction this close to a coordinate axis is taken for the axis
RELIEF = 3.0  # the second smallest singular value of clouds with relief, in units of the smallest
CERTAIN = 5.0  # standard deviations by which rays must differ from parallel ones
ROUNDING = 1e-5  # the least of a smallest singular value: coordinates are in single precision


@dataclass(frozen=True)
class DepthAxis:
    """The direction in which the camera looks, in the clouds' own coordinates.

    MVTec 3D-AD's clouds are in the camera's own frame; those of Eyecandies are turned and shifted, so the viewing axis
    is found from the clouds themselves.
    """

    direction: tuple[float, float, float]  # of length one, away from the camera
    offset: float  # metres, the depth of the point at the origin

    @classmethod
    def fit(cls, samples: Iterable[Sample]) -> DepthAxis:
        """Find it from good samples. Raises DataError if they have no points.

        A pinhole camera sees the point X at row v = P₁·(X, 1) / P₃·(X, 1) and column u = P₂·(X, 1) / P₃·(X, 1). The
        rows of P solve linear equations, P₁·(X, 1) = v P₃·(X, 1) and so for u, by least squares (Hartley and Zisserman,
        "Multiple View Geometry", Sec. 7.1: direct linear transformation). With v and u from the image's middle, where
        the camera is taken to look, its direction is at right angles to P₁ and P₂, also for a camera whose rays are
        parallel; P₃·(X, 1) is the depth but for its scale.

        Many clouds are in the camera's frame but for the order and the sign of their axes, and few samples give the
        direction to within a degree or two: within five degrees of a coordinate axis it is that axis. Where rays look
        parallel, the camera is assumed at the origin; where clouds have no relief, looking along the coordinate that is
        least linear in the pixel's place as well.
        """
        rows = [_places(sample) for sample in samples]
        rows = np.concatenate(rows) if rows else np.empty((0, 5))
        if len(rows) < 4:
            raise DataError("the samples have no 3D points; depth needs some")
        middle = rows[:, 2:].mean(axis=0)
        direction, slope = _camera(rows[:, :2], rows[:, 2:] - middle)
        nearest = int(np.argmax(np.abs(direction)))
        if abs(direction[nearest]) >= NEAR_AN_AXIS:
            direction = np.sign(direction) * (np.arange(3) == nearest)
        if slope == 0:
            away = direction if direction @ middle >= 0 else -direction
            return cls(tuple((away + 0.0).tolist()), 0.0)
        away = direction * np.sign(slope)
        return cls(tuple((away + 0.0).tolist()), float(1 / abs(slope) - away @ middle))

    @classmethod
    def of_numbers(cls, numbers: Sequence[float]) -> DepthAxis:
        """The inverse of `numbers`; also of three numbers, as older detectors have them: axis, sign and offset."""
        *direction, offset = numbers
        return cls(_unit(int(direction[0]), direction[1]) if len(direction) == 2 else tuple(direction), offset)

    @property
    def numbers(self) -> list[float]:
        """The direction and the offset, for saved detectors."""
        return [*self.direction, self.offset]

    def along(self, points: np.ndarray) -> np.ndarray:
        """(3, ...) -> (...) float64, how far each lies along the direction from the origin."""
        return np.tensordot(self.direction, points, 1)

    def depth(self, xyz: np.ndarray) -> np.ndarray:
        """(3, S, S) metres -> (S, S) depth along the viewing axis, 0 where there is no point."""
        return np.where((xyz != 0).any(axis=0), self.along(xyz) + self.offset, 0).astype(np.float32)

    def across(self) -> np.ndarray:
        """(2, 3): two directions of length one at right angles to this one and to each other.

        Along a coordinate axis they are the two others, in order.
        """
        away = np.array(self.direction)
        first, second = np.delete(np.eye(3), int(np.argmax(np.abs(away))), axis=0)
        first = first - (first @ away) * away
        first /= np.linalg.norm(first)
        second = second - (second @ away) * away - (second @ first) * first
        return np.stack([first, second / np.linalg.norm(second)])

    def image_axes(self, sample: Sample) -> np.ndarray:
        """(3, 3): directions of length one to the right and down in a sample's image, and away from the camera."""
        away, across = np.array(self.direction), self.across()
        rows = _places(sample)
        if len(rows) < 3:
            return np.stack([*across, away])
        centred = rows - rows.mean(axis=0)
        growth = np.linalg.lstsq(centred[:, :2], centred[:, 2:], rcond=None)[0] @ across.T @ across  # by row, by column
        lengths = np.linalg.norm(growth, axis=1)
        right = growth[1] / lengths[1] if lengths[1] > 0 else across[0]
        turns = across @ right
        nearest = int(np.argmax(np.abs(turns)))
        if abs(turns[nearest]) >= NEAR_AN_AXIS:
            right = np.sign(turns[nearest]) * across[nearest]
        down = np.cross(away, right)
        return np.stack([right, down * (np.sign(down @ growth[0]) or 1.0), away]) + 0.0


def _unit(axis: int, sign: float) -> tuple[float, float, float]:
    x, y, z = (sign if k == axis else 0.0 for k in range(3))
    return x, y, z


def _least_linear(pixels: np.ndarray, centred: np.ndarray) -> np.ndarray:
    """The coordinate axis that the pixels' places explain least: a pinhole camera's two others are nearly linear."""
    design = np.column_stack([np.ones(len(pixels)), pixels])
    slopes, *_ = np.linalg.lstsq(design, centred, rcond=None)
    left = ((centred - design @ slopes) ** 2).sum(axis=0)
    total = (centred**2).sum(axis=0)
    unexplained = np.where(total > 0, left / np.where(total > 0, total, 1), 1)
    return np.eye(3)[np.flatnonzero(unexplained == unexplained.max())[-1]]


def _camera(pixels: np.ndarray, centred: np.ndarray) -> tuple[np.ndarray, float]:
    """The direction of sight up to its sign, and the depth's growth along it in units of the mean point's depth, 1/m.

    pixels: (n, 2) row and column from the image's middle. centred: (n, 3) points, metres, from their mean. The growth
    is 0 where it cannot be told from that of parallel rays.

    Coordinates are divided by their spread first, without which the equations would be badly conditioned.
    """
    spread, near = centred.std(axis=0).max(), pixels.std()
    if spread == 0 or near == 0:
        return _least_linear(pixels, centred), 0.0
    points, places = np.column_stack([centred / spread, np.ones(len(centred))]), pixels / near
    none = np.zeros_like(points)
    equations = np.concatenate([
        np.hstack([points, none, -places[:, :1] * points]), np.hstack([none, points, -places[:, 1:] * points]),
    ])  # fmt: skip
    values, solutions = np.linalg.eigh(equations.T @ equations / len(points))
    values = np.sqrt(np.maximum(values, 0))
    noise = max(values[0], ROUNDING)
    if values[1] < RELIEF * noise:
        return _least_linear(pixels, centred), 0.0
    row, column, plane = solutions[:, 0].reshape(3, 4)
    direction = np.cross(row[:3], column[:3])
    direction /= np.linalg.norm(direction)
    growth = plane[:3] @ direction
    # What the noise of the pixels' places leaves open, to first order: the other solutions' share.
    shares = solutions[8:11, 1:].T @ direction / values[1:]
    if abs(growth) < CERTAIN * noise * np.linalg.norm(shares) / np.sqrt(len(points)):
        return direction, 0.0
    return direction, float(growth / plane[3] / spread)


def _places(sample: Sample) -> np.ndarray:
    """(n, 5): row and column from the image's middle, and coordinates, of some of a sample's points, evenly spread."""
    v, u = np.nonzero(sample.valid[0])
    step = max(1, -(-len(v) // FIT_POINTS))
    v, u = v[::step], u[::step]
    height, width = sample.valid.shape[1:]
    return np.column_stack([v - (height - 1) / 2, u - (width - 1) / 2, sample.xyz[:, v, u].T.astype(np.float64)])

"""Inputs of the depth, voxel and Eyecandies methods, from images and clouds: depth, surface normals, voxel grids."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from mafr.data.depth_axis import DepthAxis
from mafr.errors import DataError

CAMERA = DepthAxis((0.0, 0.0, 1.0), 0.0)  # of clouds in the camera's frame: depth is their third coordinate


def distance(xyz: np.ndarray) -> np.ndarray:
    """(3, S, S) metres -> (S, S) Euclidean distance to the camera's centre, the origin; 0 where there is no point."""
    return np.sqrt((xyz.astype(np.float64) ** 2).sum(axis=0)).astype(np.float32)


@dataclass(frozen=True)
class DepthRange:
    """The nearest and the farthest depth of the training samples, metres."""

    near: float
    far: float

    @classmethod
    def of(cls, depths: Iterable[np.ndarray]) -> DepthRange:
        """Over the valid (non-zero) pixels of depth images. Raises DataError if there are none."""
        ends = [(float(d[d != 0].min()), float(d[d != 0].max())) for d in depths if d.any()]
        if not ends:
            raise DataError("the samples have no 3D points; depth needs some")
        return cls(min(near for near, _ in ends), max(far for _, far in ends))

    def stretch(self, depth: np.ndarray, clamp: bool = False) -> np.ndarray:
        """near..far to 0..1, pixels without a point to 0; clamp: values outside the range to its ends."""
        scaled = (depth - self.near) / max(self.far - self.near, 1e-9)
        return np.where(depth != 0, np.clip(scaled, 0, 1) if clamp else scaled, 0).astype(np.float32)

    def whole(self, depth: np.ndarray) -> np.ndarray:
        """0..far to 0..1: the camera's whole range."""
        return (depth / max(self.far, 1e-9)).astype(np.float32)


def normals(xyz: np.ndarray) -> np.ndarray:
    """Unit surface normals of an organised cloud, towards the camera: (3, S, S) metres -> (3, S, S), 0 where unknown.

    Cross product of the mean tangents along the columns and the rows, each the mean of the differences between valid
    neighbours within 3 x 3 pixels.
    """
    valid = (xyz != 0).any(axis=0)
    down, right = (_tangent(xyz.astype(np.float64), valid, axis) for axis in (0, 1))
    normal = np.cross(down, right, axis=0)
    length = np.linalg.norm(normal, axis=0)
    known = valid & (length > 0)
    return np.where(known, normal / np.where(known, length, 1), 0).astype(np.float32)


def _tangent(xyz: np.ndarray, valid: np.ndarray, axis: int) -> np.ndarray:
    """Mean difference between neighbours along an axis of the image, (3, S, S); 0 where no two are valid."""
    first, second = (slice(None, -1), slice(1, None))
    cut = (lambda part: (part, slice(None))) if axis == 0 else (lambda part: (slice(None), part))
    both = valid[cut(first)] & valid[cut(second)]
    steps = (xyz[:, *cut(second)] - xyz[:, *cut(first)]) * both
    total, count = np.zeros_like(xyz), np.zeros(valid.shape)
    for part in (first, second):  # a pixel has the difference before it and the one behind it
        total[:, *cut(part)] += steps
        count[cut(part)] += both
    total = np.stack([ndimage.uniform_filter(plane, 3, mode="constant") for plane in total])
    count = ndimage.uniform_filter(count, 3, mode="constant")
    return np.where(count > 1e-9, total / np.maximum(count, 1e-9), 0)


def shrink(values: np.ndarray, valid: np.ndarray, side: int) -> tuple[Tensor, Tensor]:
    """Means over the valid pixels of each cell: (C, S, S), (S, S) bool -> (C, side, side) float32, (side, side) bool.

    A cell is valid where one of its pixels is; the others are 0.
    """
    weight = torch.from_numpy(np.ascontiguousarray(valid, dtype=np.float32))[None]
    total = F.adaptive_avg_pool2d(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)) * weight, side)
    share = F.adaptive_avg_pool2d(weight, side)
    return torch.where(share > 0, total / share.clamp_min(1e-6), 0), share[0] > 0


def turn_images(images: Tensor, angles: Tensor, shift: Tensor | None = None, scale: Tensor | None = None) -> Tensor:
    """Turn images (B, C, S, S) around their middles by `angles` (B,), radians; nearest pixel, edges repeated.

    shift: (B, 2) in parts of the side; scale: (B,) magnification. Pixels are not interpolated: the mean of a depth and
    the 0 of "no point" would be no depth.
    """
    zoom = 1.0 if scale is None else 1.0 / scale
    cos, sin = torch.cos(angles) * zoom, torch.sin(angles) * zoom
    x, y = torch.zeros_like(angles).expand(2, -1) if shift is None else 2.0 * shift.T
    rows = [torch.stack([cos, -sin, x], 1), torch.stack([sin, cos, y], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="nearest", padding_mode="border", align_corners=False)


@dataclass(frozen=True)
class Frame:
    """A cube of side³ voxels in space: its lower corner (3,) and its edge, metres."""

    low: tuple[float, float, float]
    edge: float
    side: int

    @classmethod
    def around(cls, clouds: Iterable[np.ndarray], side: int) -> Frame:
        """The cube around the bounding box of all clouds (N, 3), centred on it, with its longest edge.

        Bergmann et al. 2022, Sec. 4. Raises DataError if there are no points.
        """
        ends = [(cloud.min(axis=0), cloud.max(axis=0)) for cloud in clouds if len(cloud)]
        if not ends:
            raise DataError("the samples have no 3D points; a voxel grid needs some")
        low, high = np.min([a for a, _ in ends], axis=0), np.max([b for _, b in ends], axis=0)
        edge = float((high - low).max()) * (1 + 1e-6) + 1e-9  # so that the farthest point is inside
        corner = (low.astype(np.float64) + high) / 2 - edge / 2
        return cls(tuple(float(x) for x in corner), edge, side)

    @property
    def middle(self) -> np.ndarray:
        """(3,) the cube's centre."""
        return np.asarray(self.low) + self.edge / 2

    def cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) -> number of the voxel, x slowest, or of the nearest one (N,) int64; and whether it is inside (N,)."""
        # One coordinate at a time: numpy is slow along an axis of three.
        cell, inside = np.zeros(len(points), dtype=np.int64), np.ones(len(points), dtype=bool)
        for column, low in zip(points.T, self.low, strict=True):
            place = np.floor((column.astype(np.float64) - low) * (self.side / self.edge)).astype(np.int64)
            nearest = np.clip(place, 0, self.side - 1)
            inside &= nearest == place
            cell = cell * self.side + nearest
        return cell, inside

    def grid(self, points: np.ndarray, colours: np.ndarray) -> np.ndarray:
        """Mean colour of each voxel's points, -1 where it has none: (N, 3) twice -> (3, side, side, side) float32."""
        cell, inside = self.cells(points)
        cell = cell[inside]
        count = np.bincount(cell, minlength=self.side**3)
        filled = np.maximum(count, 1)
        planes = [np.bincount(cell, column[inside], self.side**3) / filled for column in colours.T]
        return np.where(count > 0, planes, -1).astype(np.float32).reshape(3, self.side, self.side, self.side)

    def turned_grid(self, points: np.ndarray, colours: np.ndarray, angle: float, view: DepthAxis) -> np.ndarray:
        """`grid` of points (N, 3) float32 turned around the cube's centre as by `turning`, in one pass.

        A point on the edge of a voxel may fall into the next one by rounding.
        """
        from mafr.fast.loops.voxels import turned_grid  # Numba takes half a second

        made = np.empty((3, self.side, self.side, self.side), dtype=np.float32)
        turn, start = turning(angle, view, self.middle)
        turned_grid(points, colours, turn, start, np.array(self.low), self.side / self.edge, made)
        return made


def turning(angle: float, view: DepthAxis, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(3, 3) and (3,) of a turn by `angle` (radians) around the line through `middle` along the viewing axis.

    A point p then lies at the product with the one, plus the other.
    """
    across, along = view.across(), np.asarray(view.direction)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turn = across.T @ rotation @ across + np.outer(along, along)
    return turn, across.T @ (across @ middle - rotation @ (across @ middle))


def without_holes(
    depth: np.ndarray, known: np.ndarray, missing: np.ndarray, passes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Depth and known pixels (H, W) once each missing pixel has the mean of those known around it.

    Each pass goes one pixel into the holes. depth: zero where not known.
    """
    depth, known = np.pad(depth, 1), np.pad(known, 1)
    width = known.shape[1]
    at = np.flatnonzero(np.pad(missing, 1))
    around = at[:, None] + np.add.outer((-width, 0, width), (-1, 0, 1)).reshape(-1)
    for _ in range(passes):
        count = known.reshape(-1)[around].sum(axis=1)
        new = (count > 0) & ~known.reshape(-1)[at]
        mean = depth.reshape(-1)[around[new]].sum(axis=1) / count[new]
        depth.reshape(-1)[at[new]], known.reshape(-1)[at[new]] = mean, True
    return depth[1:-1, 1:-1], known[1:-1, 1:-1]

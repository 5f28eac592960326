"""A pinhole camera. See `render` for the conventions.

`Camera`: focal, cx, cy (pixels), width, height, rotation (3, 3; columns are the camera's axes in the world), origin.
`unit(v)`: v / |v| along the last axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mafr.data.synthetic.core.rows import row_dot

Array = np.ndarray


def unit(v: object) -> Array:
    """v / |v| along the last axis, float32; zero vectors stay zero."""
    v = np.asarray(v, np.float32)
    return v / np.maximum(np.sqrt(row_dot(v, v))[..., None], 1e-12)


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; see the module's text."""

    focal: float
    cx: float
    cy: float
    width: int
    height: int
    rotation: Array
    origin: Array

    @classmethod
    def look_at(
        cls, eye: object, target: object, roll: float, focal: float, width: int, height: int,
        shift: tuple[float, float] = (0.0, 0.0),
    ) -> Camera:  # fmt: skip
        """From `eye` towards `target`, image centre at W/2, H/2 (plus `shift` pixels), rolled by radians.

        At roll 0 the world's y axis points up in the image (x to the right, seen from above).
        """
        eye, forward = np.asarray(eye, float), np.asarray(target, float) - np.asarray(eye, float)
        forward /= np.linalg.norm(forward)
        up = np.array([0.0, 1.0, 0.0]) if abs(forward[1]) < 0.95 else np.array([0.0, 0.0, 1.0])
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        c, s = np.cos(roll), np.sin(roll)
        rotation = np.stack([c * right + s * down, c * down - s * right, forward], axis=1)
        return cls(
            float(focal), width / 2 + shift[0], height / 2 + shift[1], int(width), int(height),
            rotation.astype(np.float32), eye.astype(np.float32),
        )  # fmt: skip

    def directions(self) -> Array:
        """Unit directions of all pixels' rays in the world, (H·W, 3) float32."""
        v, u = np.mgrid[0 : self.height, 0 : self.width].astype(np.float32).reshape(2, -1)
        rays = np.stack([(u - self.cx) / self.focal, (v - self.cy) / self.focal, np.ones_like(u)]).T
        return (self.rotation @ unit(rays.astype(np.float32)).T).T

    def to_camera(self, points: Array) -> Array:
        """World to camera coordinates, (..., 3)."""
        return (points - self.origin) @ self.rotation

    def project(self, points: Array) -> tuple[Array, Array, Array]:
        """Pixel coordinates u, v and depth z of world points."""
        q = self.to_camera(points)
        z = q[..., 2]
        return q[..., 0] / z * self.focal + self.cx, q[..., 1] / z * self.focal + self.cy, z

    def pose(self) -> Array:
        """Camera to world, (4, 4) float64."""
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.rotation, self.origin
        return pose

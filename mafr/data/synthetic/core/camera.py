"""The generated scans' pinhole camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mafr.data.synthetic.core.rows import Array, unit


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion: x right, y down, z forward.

    Pixel (row v, column u) looks along ((u - cx)/focal, (v - cy)/focal, 1): rays pass through integer coordinates.

    Attributes:
        focal, cx, cy, width, height: pixels.
        rotation: (3, 3), the camera's axes in the world as columns.
        origin: (3,), the camera's place in the world.
    """

    focal: float
    cx: float
    cy: float
    width: int
    height: int
    rotation: Array
    origin: Array

    @classmethod
    def look_at(cls, eye: object, target: object, roll: float, focal: float, width: int, height: int) -> Camera:
        """From `eye` towards `target`, principal point at W/2, H/2, rolled by radians.

        At roll 0 the world's y axis points up in the image (x to the right, seen from above).
        """
        eye, forward = np.asarray(eye, float), np.asarray(target, float) - np.asarray(eye, float)
        forward /= np.linalg.norm(forward)
        up = np.array([0.0, 1.0, 0.0]) if abs(forward[1]) < 0.95 else np.array([0.0, 0.0, 1.0])
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        c, s = np.cos(roll), np.sin(roll)
        rotation = np.stack([c * right + s * down, c * down - s * right, forward], axis=1).astype(np.float32)
        return cls(float(focal), width / 2, height / 2, int(width), int(height), rotation, eye.astype(np.float32))

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

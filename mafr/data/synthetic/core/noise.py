"""Seeded noise on points (N, 3) float32, for shapes and textures: (N,) float32.

Seeds are non-negative integers; the same seed gives the same values in every process. Scale the points for size.
"""

import functools
import hashlib

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from mafr.data.synthetic.core import loops
from mafr.data.synthetic.core.rows import Array

_SIDE = 64  # nodes per side of the noise volume
_PER_UNIT = 4.0  # nodes per unit, so the volume repeats every 16 units (each look-up is turned at random)
_CELLS = 12  # unit cubes per side of the tileable Worley pattern


def seed_of(*parts: object) -> int:
    """A seed from anything printable, stable between processes and versions."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 up to `low`, 1 from `high`, 3s²-2s³ between; falling where `low` is above `high`."""
    s = np.clip((x - low) / (high - low), 0.0, 1.0)
    return s * s * (3.0 - 2.0 * s)


@functools.cache
def _volume() -> Array:
    """The noise at (x, y), (x, y + 1), (x + 1, y), (x + 1, y + 1), each with its difference along z: (side³, 8).

    A look-up reads 32 bytes in a row instead of eight places.
    """
    white = np.random.default_rng(20).standard_normal((_SIDE,) * 3).astype(np.float32)
    smooth = gaussian_filter(white, 1.5, mode="wrap")
    volume = np.clip(smooth / smooth.std() * 0.4, -1, 1).astype(np.float32)
    pairs = np.stack([volume, np.roll(volume, -1, axis=2) - volume], axis=-1)
    corners = [np.roll(pairs, (-x, -y), axis=(0, 1)) for x in (0, 1) for y in (0, 1)]
    return np.concatenate(corners, axis=-1).reshape(-1, 8)


@functools.lru_cache(maxsize=512)
def _turn(seed: int) -> tuple[Array, Array]:
    """A random rotation (3, 3) and shift (3,) in nodes."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return (rotation * _PER_UNIT).astype(np.float32), rng.uniform(0, _SIDE, 3).astype(np.float32)


def noise(points: Array, seed: int) -> Array:
    """Band-limited noise of mean 0, features about one unit across. (N, 3) -> (N,) in [-1, 1].

    Linear between its nodes: to bend and swell shapes use `waves`.
    """
    rotation, shift = _turn(int(seed))
    places = rotation @ points.T.astype(np.float32, copy=False)  # (3, N)
    out = np.empty(len(points), np.float32)
    loops.between_nodes(places, shift, _volume(), out)
    return out


def fbm(points: Array, seed: int, octaves: int = 3) -> Array:
    """Fractal noise: `octaves` of `noise`, each half as strong and twice as fine as the one before."""
    total = noise(points, seed)
    for octave in range(1, octaves):
        total += np.float32(0.5**octave) * noise(points * np.float32(2.0**octave), seed + octave)
    return total / np.float32(np.sqrt(sum(0.25**octave for octave in range(octaves))))


def ridged(points: Array, seed: int, octaves: int = 3) -> Array:
    """Noise with sharp crests (1 on the crest, towards 0 away from it)."""
    weights = [0.5**octave for octave in range(octaves)]
    crests = ((1.0 - np.abs(noise(points * np.float32(2.0**k), seed + k))) ** 3 for k in range(octaves))
    total = sum(weight * crest for weight, crest in zip(weights, crests, strict=True))
    return (total / sum(weights)).astype(np.float32)


@functools.lru_cache(maxsize=512)
def _waves(seed: int, count: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    directions = rng.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    numbers = directions * rng.uniform(0.65, 1.35, (count, 1)) * np.pi
    return numbers.astype(np.float32), rng.uniform(0, 2 * np.pi, count).astype(np.float32)


def waves(points: Array, seed: int, count: int = 5) -> Array:
    """A smooth sum of `count` sine waves about two units long, of random direction and phase. (N,) in [-1, 1]."""
    numbers, phases = _waves(int(seed), count)
    # One wave after the other in memory: summed over them one contiguous array at a time.
    return np.sin(numbers @ points.T + phases[:, None]).sum(axis=0) / np.float32(np.sqrt(2.0 * count))


@functools.cache
def _tree() -> cKDTree:
    rng = np.random.default_rng(31)
    corners = np.stack(np.meshgrid(*[np.arange(_CELLS)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return cKDTree((corners + rng.uniform(0, 1, corners.shape)) % _CELLS, boxsize=_CELLS)


def cells(points: Array, seed: int) -> tuple[Array, Array, Array]:
    """Worley noise of one random centre per unit cube, some 1 µs per point.

    Returns the distances to the nearest and the second nearest centre and the number of the nearest, (N,) each.
    """
    # One pattern for all, shifted by the seed, so that the tree is built once per process.
    shift = np.random.default_rng(int(seed)).uniform(0, _CELLS, 3)
    distances, numbers = _tree().query(np.mod(points + shift, _CELLS), k=2)
    return distances[:, 0].astype(np.float32), distances[:, 1].astype(np.float32), numbers[:, 0]


def pick(number: Array, seed: int) -> Array:
    """A uniform number in [0, 1) for each number of `cells`, to vary things from cell to cell."""
    return np.random.default_rng(int(seed)).random(_CELLS**3, dtype=np.float32)[number]

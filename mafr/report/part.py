"""`Part`: what a report shows of one scanned part."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Part:
    """A scored part, or one that could not be read; S is the side of the method's input."""

    name: str  # shown; e.g. the file's stem or its relative path
    score: float
    verdict: str  # "OK" or "not OK"
    rgb: np.ndarray  # (S, S, 3) uint8, the image as the method saw it
    heat: np.ndarray  # (S, S) float32, the final map psi
    xyz: np.ndarray  # (3, S, S) float32, metres, (0, 0, 0) where there is no point
    scored: np.ndarray | None = None  # (S, S) bool, where heat is shown; None: where there is a 3D point
    error: str = ""  # of a scan that could not be read: then score is nan and the arrays are empty

    @classmethod
    def unread(cls, name: str, error: str) -> "Part":
        """A scan that could not be read, with the message that says why."""
        image, heat, cloud = (np.zeros(shape, np.float32) for shape in ((0, 0, 3), (0, 0), (3, 0, 0)))
        return cls(name, float("nan"), "", image.astype(np.uint8), heat, cloud, error=error)

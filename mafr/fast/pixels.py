"""The pixels of one sample that count, as rows, and the smallest rectangle of the image around them."""

from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mafr.device import kernel, send


class Canvas:
    """From rows of pixels to maps over their bounding rectangle and back, with the counts that the losses need."""

    def __init__(self, chosen: Tensor, device: torch.device | None = None) -> None:
        """chosen: (H, W) bool on the CPU with at least one true pixel; device: of the indices."""
        self.whole = bool(chosen.all())  # whether every pixel counts
        lines, columns = chosen.any(dim=1).nonzero(), chosen.any(dim=0).nonzero()
        top, left = int(lines[0]), int(columns[0])
        self.height, self.width = int(lines[-1]) + 1 - top, int(columns[-1]) + 1 - left
        inside = chosen[top : top + self.height, left : left + self.width]
        # All of it is computed on the CPU, so that nothing waits for a GPU.
        self.rows = send(chosen.reshape(-1).nonzero().squeeze(1), device)  # (P,) flat indices in the image
        self.inside = send(inside.contiguous(), device)  # (height, width) bool, the pixels that count
        self._place = send(inside.reshape(-1).nonzero().squeeze(1), device)  # (P,) flat indices in the rectangle
        # (height · width,) the row of each pixel in the rectangle; P, one beyond the last, where none counts
        numbers = torch.cumsum(inside.reshape(-1), dim=0) - 1
        self._source = send(numbers.where(inside.reshape(-1), len(self.rows)), device)
        self._counts: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def spread(self, rows: Tensor) -> Tensor:
        """(P, C) -> (height, width, C), zero at pixels that do not count."""
        if not self.whole:
            rows = F.pad(rows, (0, 0, 0, 1)).index_select(0, self._source)
        return rows.view(self.height, self.width, rows.shape[1])

    def gather(self, image: Tensor) -> Tensor:
        """(height, width, C) -> (P, C)."""
        flat = image.reshape(self.height * self.width, image.shape[2])
        return flat if self.whole else flat.index_select(0, self._place)

    @cached_property
    def places(self) -> tuple[np.ndarray, np.ndarray]:
        """(P,) int64 each: y and x in the rectangle, of a canvas on the CPU."""
        flat = self._place.numpy()
        return flat // self.width, flat % self.width

    @cached_property
    def lower(self) -> np.ndarray:
        """(P,) int64, of a canvas on the CPU: the row of the pixel below one that is a corner (see there), else -1."""
        y, x = self.places
        below = np.zeros(len(y), dtype=bool)
        inner = (y < self.height - 1) & (x < self.width - 1)
        below[inner] = self.corners.numpy()[y[inner], x[inner], 0] > 0
        rows = self._source.numpy().reshape(self.height, self.width)
        found = np.full(len(y), -1)
        found[below] = rows[y[below] + 1, x[below]]
        return found

    @cached_property
    def corners(self) -> Tensor:
        """(height - 1, width - 1, 1) float32: 1 where a pixel and its right and lower neighbours count."""
        inside = self.inside
        corner = inside[:-1, :-1] & inside[:-1, 1:] & inside[1:, :-1]
        return corner.float()[:, :, None]

    def window_counts(self, side: int) -> Tensor:
        """(P, 1) float32: the number of counting pixels in the side x side window around each."""
        if side not in self._counts:
            self._counts[side] = self.gather(window_sum(self.inside.float()[:, :, None], side))
        return self._counts[side]


@kernel
def window_sum(image: Tensor, side: int) -> Tensor:
    """Sum over the side x side window around each pixel, zeros beyond the border: (h, w, C) -> (h, w, C)."""
    return _line_sum(_line_sum(image, side, 1), side, 0)


def _line_sum(image: Tensor, side: int, dim: int) -> Tensor:
    total, size = image.clone(), image.shape[dim]
    for shift in range(1, min(side // 2, size - 1) + 1):
        total.narrow(dim, shift, size - shift).add_(image.narrow(dim, 0, size - shift))
        total.narrow(dim, 0, size - shift).add_(image.narrow(dim, shift, size - shift))
    return total

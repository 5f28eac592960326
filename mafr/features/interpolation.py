"""From tokens to pixels, a fixed sparse linear function (Sec. III-A): as dense maps, and as the matrix itself.

Training and scoring use the matrix, `Rows`, so that a linear layer may be applied to the tokens first. `densify` makes
the maps that `mafr.model` takes. The two sum a cell's three tokens in a different order and differ in the last digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor

from mafr.device import send

if TYPE_CHECKING:
    from mafr.config import Config
    from mafr.features.extract import Tokens


@dataclass(frozen=True)
class Rows:
    """A sparse (P, columns) matrix in compressed rows; row p holds entries offsets[p] to offsets[p + 1]."""

    index: Tensor  # (nnz,) int32, the columns, rising within a row
    weight: Tensor  # (nnz,) float32
    offsets: Tensor  # (P + 1,) int32
    columns: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def from_scipy(cls, matrix: sparse.csr_matrix) -> Rows:
        """The same matrix; duplicates are summed and zeros dropped."""
        matrix = sparse.csr_matrix(matrix)
        matrix.sum_duplicates()  # which also sorts the columns
        matrix.eliminate_zeros()
        return cls(
            torch.from_numpy(matrix.indices.astype(np.int32, copy=False)),
            torch.from_numpy(matrix.data.astype(np.float32, copy=False)),
            torch.from_numpy(matrix.indptr.astype(np.int32, copy=False)),
            matrix.shape[1],
        )

    def to_scipy(self) -> sparse.csr_matrix:
        """The same matrix for scipy (on the CPU)."""
        parts = (self.weight.cpu().numpy(), self.index.cpu().numpy(), self.offsets.cpu().numpy())
        return sparse.csr_matrix(parts, shape=(len(self), self.columns))

    @classmethod
    def stack(cls, parts: Sequence[Rows]) -> Rows:
        """Several samples as one block-diagonal matrix: their tokens and their pixels one after the other."""
        index, offsets, columns, entries = [], [parts[0].offsets[:1]], 0, 0
        for part in parts:
            index.append(part.index + columns)
            offsets.append(part.offsets[1:] + entries)
            columns, entries = columns + part.columns, entries + len(part.index)
        return cls(torch.cat(index), torch.cat([part.weight for part in parts]), torch.cat(offsets), columns)

    @classmethod
    def beside(cls, left: Rows, right: Rows) -> Rows:
        """(P, a) and (P, b) as one (P, a + b) matrix, on the CPU."""
        return cls.from_scipy(sparse.hstack([left.to_scipy(), right.to_scipy()], format="csr"))

    def to(self, device: torch.device) -> Rows:
        """The same matrix on another device."""
        parts = (send(part, device) for part in (self.index, self.weight, self.offsets))
        moved = Rows(*parts, self.columns)
        if "_transposed" in self.__dict__:
            moved.__dict__["_transposed"] = self.transposed.to(device)
        return moved

    @property
    def transposed(self) -> Rows:
        """The (columns, P) matrix; kept, since every backward pass needs it."""
        # Not a cached_property: before Python 3.12 all instances share its lock, and threads prepare scenes.
        if "_transposed" not in self.__dict__:
            self.__dict__["_transposed"] = self._transpose()
        return self.__dict__["_transposed"]

    def _transpose(self) -> Rows:
        device, entries = self.index.device, len(self.index)
        # All sizes are known beforehand, so that nothing waits for a GPU.
        rows = torch.repeat_interleave(
            torch.arange(len(self), dtype=torch.int32, device=device), self.offsets.diff(), output_size=entries
        )
        order = torch.argsort(self.index, stable=True)
        counts = torch.zeros(self.columns, dtype=torch.int64, device=device)
        counts.scatter_add_(0, self.index.long(), torch.ones(entries, dtype=torch.int64, device=device))
        offsets = F.pad(counts.cumsum(0), (1, 0)).to(torch.int32)
        return Rows(rows[order], self.weight[order], offsets, len(self))

    def part(self, first: int, last: int) -> Rows:
        """Rows `first` to `last`, as views."""
        if (first, last) == (0, len(self)):  # without reading the offsets, which may lie on a GPU
            return self
        begin, end = int(self.offsets[first]), int(self.offsets[last])
        offsets = self.offsets[first : last + 1] - begin
        return Rows(self.index[begin:end], self.weight[begin:end], offsets, self.columns)

    def apply(self, tokens: Tensor) -> Tensor:
        """tokens (columns, D) float32 -> (P, D) float32; differentiable in the tokens."""
        if tokens.requires_grad and torch.is_grad_enabled():
            return _Product.apply(tokens, self)
        return _product(self, tokens)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, tokens: Tensor, rows: Rows) -> Tensor:
        ctx.rows = rows
        return _product(rows, tokens)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        # A product with the transposed matrix has no atomic additions, so it repeats exactly.
        return _product(ctx.rows.transposed, gradient.contiguous()), None


def _product(rows: Rows, dense: Tensor) -> Tensor:
    return F.embedding_bag(
        rows.index, dense, rows.offsets, mode="sum", per_sample_weights=rows.weight.to(dense.dtype),
        include_last_offset=True,
    )  # fmt: skip


def xyz_rows(
    index: Tensor, weight: Tensor, grid: int, pool: int = 1, *, groups: int, only_valid: bool = False
) -> tuple[Rows, np.ndarray]:
    """The matrix from the cloud's tokens to the cells, average pools included, as `densify_xyz` applies them.

    index, weight: (grid², 3), as stored; groups: number of tokens. Returns the rows of all grid² cells, or of
    the valid ones only, and valid (grid, grid) bool, false where all weights are zero.
    """
    cells, offsets = len(index), np.arange(0, index.numel() + 1, index.shape[1])
    columns, values = index.numpy().reshape(-1).astype(np.int32), weight.numpy().reshape(-1).astype(np.float64)
    matrix = sparse.csr_matrix((values, columns, offsets), shape=(cells, groups))
    matrix.eliminate_zeros()
    if pool > 1:
        matrix = _pool_matrix(grid, pool) @ matrix
    valid = np.diff(matrix.indptr) > 0
    if only_valid:
        matrix = matrix[np.flatnonzero(valid)]
    return Rows.from_scipy(matrix), valid.reshape(grid, grid)


def rgb_rows(height: int, width: int, grid: int, selected: np.ndarray | None = None) -> Rows:
    """The bilinear matrix from the image's (height, width) tokens to all cells, or to `selected` ones (bool)."""
    matrix = _bilinear_matrix(height, width, grid)
    return Rows.from_scipy(matrix if selected is None else matrix[np.flatnonzero(selected)])


@lru_cache(maxsize=8)
def _bilinear_matrix(height: int, width: int, grid: int) -> sparse.csr_matrix:
    return sparse.csr_matrix(sparse.kron(_bilinear(height, grid), _bilinear(width, grid)), dtype=np.float32)


def _bilinear(tokens: int, grid: int) -> sparse.csr_matrix:
    # (grid, tokens): along one axis, cell centres fall at (i + 1/2)·tokens/grid − 1/2, clamped at the edges
    place = np.clip((np.arange(grid) + 0.5) * tokens / grid - 0.5, 0, tokens - 1)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, tokens - 1)
    rows = np.arange(grid)
    matrix = sparse.coo_matrix(
        (np.concatenate([1 - (place - low), place - low]), (np.tile(rows, 2), np.concatenate([low, high]))),
        shape=(grid, tokens),
    )
    matrix = matrix.tocsr()
    matrix.eliminate_zeros()
    return matrix


@lru_cache(maxsize=8)
def _pool_matrix(grid: int, pool: int) -> sparse.csr_matrix:
    """(grid², grid²): an average pool without padding, then an adaptive one back to the grid, both separable."""
    inner = grid - pool + 1
    plain = sparse.diags([1.0 / pool] * pool, range(pool), shape=(inner, grid))
    adaptive = sparse.lil_matrix((grid, inner))
    for cell in range(grid):
        first, last = cell * inner // grid, -(-(cell + 1) * inner // grid)
        adaptive[cell, first:last] = 1.0 / (last - first)
    line = sparse.csr_matrix(adaptive) @ sparse.csr_matrix(plain)
    return sparse.csr_matrix(sparse.kron(line, line))


def densify_rgb(rgb: Tensor, grid: int) -> Tensor:
    """Tokens (B, C, h, w) -> (B, C, grid, grid) float32, bilinear between the tokens' centres."""
    rgb = rgb.float()
    if rgb.shape[-2:] == (grid, grid):
        return rgb
    return F.interpolate(rgb, size=(grid, grid), mode="bilinear", align_corners=False)


def densify_xyz(xyz: Tensor, index: Tensor, weight: Tensor, grid: int, pool: int = 1) -> Tensor:
    """Tokens (B, G, D) -> (B, D, grid, grid) float32: three tokens' weighted sum, zero in cells without a point.

    index, weight: (B, grid², 3). pool > 1: average pool of that side without padding, then adaptive average
    pool back to the grid (released code: 3).
    """
    B, G, D = xyz.shape
    rows = index.long() + G * torch.arange(B, device=xyz.device).view(B, 1, 1)
    summed = F.embedding_bag(
        rows.flatten(0, 1), xyz.float().reshape(B * G, D), mode="sum", per_sample_weights=weight.float().flatten(0, 1)
    )
    dense = summed.view(B, grid, grid, D).permute(0, 3, 1, 2).contiguous()
    if pool > 1:
        dense = F.adaptive_avg_pool2d(F.avg_pool2d(channels_last(dense), pool, stride=1), grid).contiguous()
    return dense


def channels_last(maps: Tensor) -> Tensor:
    """The same maps (B, C, H, W) with a pixel's channels side by side in memory: a CPU pools them some 30 times faster.

    The values of a pooling are the same.
    """
    rows = maps.permute(0, 2, 3, 1).flatten(0, 2).contiguous()  # also where a lone dimension's stride is unusual
    return rows.view(maps.shape[0], *maps.shape[2:], maps.shape[1]).permute(0, 3, 1, 2)


def densify(tokens: Tokens, config: Config) -> tuple[Tensor, Tensor, Tensor]:
    """The dense maps of Sec. III-A: e_rgb (B, C, g, g), e_xyz (B, D, g, g), float32, and valid (B, 1, g, g) bool.

    A cell is valid where its 3D feature vector is not exactly zero. With `xyz_pool` 1 these are the cells with
    a point; a larger pool spreads features, and thus validity, to neighbouring cells.
    """
    e_rgb = densify_rgb(tokens.rgb, config.grid)
    e_xyz = densify_xyz(tokens.xyz, tokens.index, tokens.weight, config.grid, config.xyz_pool)
    return e_rgb, e_xyz, (e_xyz != 0).any(dim=1, keepdim=True)

"""The greedy choice of a memory bank in half precision, as the authors of BTF make it (3D-ADS, features.py).

Their code halves the features and takes half-precision distances: differences and norms are rounded to 11 bits, the
sums inside a norm are float32. Of the many features that are then equally far the first is chosen. The distances to
the very first feature are rounded only at their end.

Distances only fall, so those of an earlier moment bound the later ones from above, and what is said of the choice in
`memory_bank` holds: it is made among the features with the largest bounds. Here all features at the pool's least bound
belong to it, for of equals the first counts.
"""

import torch
from torch import Tensor

from mafr.errors import MafrError

POOL = 1024  # candidates, and more where bounds are equal
BLOCK = {"cpu": 2**18, "cuda": 2**25}  # approximate distances held at a time
PAIRS = 2**16  # pairs of features whose differences are held at a time


def half_coreset(rows: Tensor, count: int) -> Tensor:
    """Indices (count,) int64 of rows (N, D): the first, then each the farthest from those chosen before it.

    A feature is chosen again, namely the first, when all lie at distance 0 from a chosen one. Raises MafrError for a
    count that does not fit.
    """
    total = len(rows)
    if not 0 < count <= total:
        raise MafrError(f"cannot choose {count} of {total} features")
    start = _rounded((rows - rows[:1]).norm(dim=1)).float()
    rows = _rounded(rows)
    bound = torch.minimum(start, distances(rows, rows[:1]))
    chosen = [0]
    while len(chosen) < count:
        if not bound.any():
            chosen += [0] * (count - len(chosen))
            break
        least = bound.topk(min(POOL, total)).values[-1]
        pool = (bound >= least).nonzero()[:, 0]
        below = bound[bound < least]
        rest = float(below.max()) if len(below) else -1.0
        new = pool[_choose(rows[pool], bound[pool], rest, count - len(chosen))]
        chosen += new.tolist()
        if len(chosen) < count:
            _follow(bound, rows, new)
    return torch.tensor(chosen)


def _choose(rows: Tensor, current: Tensor, rest: float, limit: int) -> Tensor:
    """Greedy choices among a pool's rows, as long as the farthest is farther than `rest`."""
    chosen: list[int] = []
    places = torch.arange(len(rows), 0, -1, device=rows.device)
    while len(chosen) < limit:
        farthest = current.max()
        if float(farthest) <= max(rest, 0):
            break
        best = int((places * (current == farthest)).argmax())  # the first of them
        chosen.append(best)
        torch.minimum(current, distances(rows, rows[best]), out=current)
        current[best] = 0
    return torch.tensor(chosen, device=rows.device)


def _follow(bound: Tensor, rows: Tensor, chosen: Tensor) -> None:
    """Lower the bounds of all rows by newly chosen ones, in place.

    Products of matrices tell which of the chosen may be the nearest; only to these the rounded distances are taken.
    """
    bound[chosen] = 0
    alive = bound.nonzero()[:, 0]  # a bound of 0 cannot fall
    if not len(alive):
        return
    middle = rows[alive].mean(dim=0)  # around it the expanded squares lose least to rounding
    centres = rows[chosen] - middle
    own = centres.square().sum(dim=1)
    for part in alive.split(max(1, BLOCK[rows.device.type] // len(chosen))):
        near = rows[part] - middle
        size = near.square().sum(dim=1, keepdim=True)
        squared = torch.addmm(own, near, centres.T, alpha=-2).add_(size).clamp_min_(0)
        reach = torch.minimum(squared.amin(dim=1), bound[part].square())[:, None]
        # Four roundings to half precision, 2^-11 each and doubled by the square; and those of the products.
        near_enough = squared <= reach * (1 + 2**-7) + 2**-17 * (size + own.max())
        for row, column in (pair.T for pair in near_enough.nonzero().split(PAIRS)):
            bound.scatter_reduce_(0, part[row], distances(rows[part[row]], rows[chosen[column]]), "amin")


def distances(rows: Tensor, others: Tensor) -> Tensor:
    """Half-precision distances (N,), as float32, of features (N, D) that are halved already from others."""
    return _rounded(_rounded(rows - others).square_().sum(dim=1).sqrt_())


def _rounded(values: Tensor) -> Tensor:
    """Half-precision values as float32, in which the arithmetic is faster."""
    return values.half().float()

"""Memory banks of normal features (PatchCore, CVPR 2022, Sec. 3), shared by BTF, its single features and M3DM.

A bank is a greedy coreset of the training features: beginning with the first feature, the one farthest from all chosen
so far is added until `bank_ratio` of them are kept (10 %, as both methods publish). Distances for the choice are taken
after a sparse random projection, whose width follows from the Johnson-Lindenstrauss lemma at the published eps 0.9;
where a feature is no wider than that, the published code does not project.

Departures. The projection is seeded, and by default the choice, too, is made by distances in float32. The authors' code
makes it in float16, which `bank_choice` "float16" follows (`mafr.baselines.parts.half_coreset`).

Nearest neighbours are found by exact search, which for features of a hundred dimensions and more is faster than any
tree: by blocks of matrix products. The distances returned are computed from the differences themselves, and on the CPU
these decide wherever the products' rounding might; of equally near features the first is taken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from mafr.baselines.parts.half_coreset import half_coreset
from mafr.config import Config
from mafr.device import gpu_products
from mafr.errors import MafrError

POOL = 1024  # candidates among which the farthest is searched before all distances are updated
BLOCK = {"cpu": 2**18, "cuda": 2**27}  # distances held at a time; on a CPU as many as its cache holds
SEARCHED = 2**21  # products held at a time in a search on a CPU
SLACK = 2.0**-18  # of expanded squares by rounding, in parts of the largest squared lengths
REWEIGHT = 3  # neighbours of the reweighted image score, the nearest itself among them (both methods' code)


@dataclass(frozen=True)
class MemoryBank:
    """The kept features, on the device where distances are computed."""

    vectors: Tensor  # (M, D) float32
    searches: list[float] = field(default_factory=list, compare=False, repr=False)  # seconds of each call of `nearest`

    @classmethod
    def build(cls, rows: Tensor, config: Config) -> MemoryBank:
        """A coreset of the training features rows (N, D) float32, on their device, in the order of its choice.

        It keeps `bank_ratio` of them, at least 1. Raises MafrError for no features, or for a ratio above 1.
        """
        if rows.ndim != 2 or not len(rows):
            raise MafrError(f"a memory bank needs features of shape (N, D), not {tuple(rows.shape)}")
        choose = half_coreset if config.bank_choice == "float16" else greedy_coreset
        with gpu_products("float32"):
            kept = choose(projected(rows, config), max(1, int(config.bank_ratio * len(rows))))
        return cls(rows[kept].contiguous())

    @classmethod
    def restore(cls, state: dict[str, Tensor], name: str = "bank", device: torch.device | str = "cpu") -> MemoryBank:
        """From saved `vectors`. Raises KeyError where `name` is missing, RuntimeError for no (M, D) tensor."""
        vectors = state[name]
        if vectors.ndim != 2 or not len(vectors):
            raise RuntimeError(f"{name} has shape {tuple(vectors.shape)}, no memory bank")
        return cls(vectors.to(device, torch.float32))

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def centred(self) -> Centred:
        """The features as the search on a CPU takes them."""
        return Centred.of(self.vectors)

    @property
    def megabytes(self) -> float:
        """Size of the kept features, 10⁶ bytes."""
        return self.vectors.numel() * self.vectors.element_size() / 1e6

    def nearest(self, queries: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
        """Euclidean distances (Q, count) float32 and indices (Q, count) int64 of the nearest features, nearest first.

        queries: (Q, D). Raises MafrError for a bank of fewer features or of another width.
        """
        if not 0 < count <= len(self):
            raise MafrError(f"cannot take {count} neighbours of a memory bank of {len(self)} features")
        if queries.shape[1] != self.vectors.shape[1]:
            raise MafrError(f"features of {queries.shape[1]} values do not fit a bank of {self.vectors.shape[1]}")
        start = time.perf_counter()
        if self.vectors.device.type == "cpu":
            distance, index = search_cpu(self.vectors, queries.float(), count, self.centred)
        else:
            with gpu_products("float32"):
                index = search_products(self.vectors, queries.float(), count)
            distance = torch.stack([(queries - self.vectors[column]).norm(dim=1) for column in index.T], dim=1)
            if count > 1:  # rounding may have changed the order
                distance, order = distance.sort(dim=1, stable=True)
                index = index.gather(1, order)
        if distance.device.type == "cuda":
            torch.cuda.synchronize()
        self.searches.append(time.perf_counter() - start)
        return distance, index

    def image_score(self, queries: Tensor, distance: Tensor, index: Tensor) -> float:
        """The reweighted largest distance of an image's features, PatchCore eq. 7.

        queries: (Q, D); distance, index: (Q, 1), as `nearest` gives them. The largest distance s is multiplied by
        1 - exp(s/√D) / Σ exp(dᵢ/√D), dᵢ being the distances from that query to the `REWEIGHT` - 1 features of the bank
        that are nearest to its own nearest one. A bank of fewer than `REWEIGHT` features gives s itself.
        """
        worst = int(distance[:, 0].argmax())
        star = distance[worst, 0]
        if len(self) < REWEIGHT:
            return float(star)
        around = self.nearest(self.vectors[index[worst]], REWEIGHT)[1][0]
        others = around[around != index[worst, 0]][: REWEIGHT - 1]
        near = (queries[worst] - self.vectors[others]).norm(dim=1)
        # Exponents relative to star: the same quotient, and no overflow.
        return float(star * (1 - 1 / torch.exp((near - star) / queries.shape[1] ** 0.5).sum()))


@dataclass(frozen=True)
class Centred:
    """A bank around its mean, where the expanded squares lose least to rounding."""

    middle: Tensor  # (D,)
    transposed: Tensor  # (D, M), the features minus their mean
    squares: Tensor  # (M,), their squared lengths

    @classmethod
    def of(cls, bank: Tensor) -> Centred:
        middle = bank.mean(dim=0)
        centred = bank - middle
        return cls(middle, centred.T, centred.square().sum(dim=1))

    def partial(self, moved: Tensor) -> Tensor:
        """Squared distances (Q, M) of queries minus the mean, (Q, D), from all features, less the queries' squares."""
        return torch.addmm(self.squares, moved, self.transposed, alpha=-2)


def search_cpu(bank: Tensor, queries: Tensor, count: int, centred: Centred | None = None) -> tuple[Tensor, Tensor]:
    """Distances and indices (Q, count) as `MemoryBank.nearest` gives them, for float32 on the CPU.

    bank: (M, D), queries: (Q, D), many where count is 1, else few; centred: that of the bank, if it is known.
    """
    centred, queries = centred or Centred.of(bank), queries.contiguous()
    largest, size = centred.squares.max(), max(1, SEARCHED // len(bank))
    if count > 1:
        pairs = [_few_nearest(bank, query, count, centred, largest) for query in queries]
        distance, index = (torch.stack(parts) for parts in zip(*pairs, strict=True))
        return distance, index
    from mafr.fast.loops.nearest import nearest  # Numba takes half a second

    distance, index = torch.empty(len(queries)), torch.empty(len(queries), dtype=torch.int64)
    for first in range(0, len(queries), size):
        part = slice(first, first + size)
        moved = queries[part] - centred.middle
        partial = centred.partial(moved)
        reach = partial.amin(dim=1) + SLACK * (moved.square().sum(dim=1) + largest)
        nearest(bank.numpy(), *(t.numpy() for t in (queries[part], partial, reach, index[part], distance[part])))
    return distance[:, None], index[:, None]


def _few_nearest(
    bank: Tensor, query: Tensor, count: int, centred: Centred, largest: Tensor
) -> tuple[Tensor, Tensor]:
    """Distances and indices (count,) of the nearest to one query (D,); largest: the largest of `centred.squares`."""
    moved = query - centred.middle
    partial = centred.partial(moved[None])[0]
    reach = partial.kthvalue(count).values + SLACK * (moved.square().sum() + largest)
    near = (~(partial > reach)).nonzero()[:, 0]
    distance, order = (bank[near] - query).norm(dim=1).sort(stable=True)
    return distance[:count], near[order[:count]]


def search_products(bank: Tensor, queries: Tensor, count: int) -> Tensor:
    """Indices (Q, count) int64 of the nearest of bank (M, D) to queries (Q, D), by blocks of matrix products."""
    centred = Centred.of(bank)
    found = []
    for part in queries.split(_block(bank, len(bank))):
        # |q|² is the same for a whole row and decides nothing.
        partial = centred.partial(part - centred.middle)
        nearest = partial.topk(count, dim=1, largest=False).indices if count > 1 else partial.argmin(1, keepdim=True)
        found.append(nearest)
    return torch.cat(found)


def projected(rows: Tensor, config: Config) -> Tensor:
    """rows (N, D) -> (N, P) float32, a sparse random projection seeded by `config.seed`; unchanged where P ≥ D.

    P is the Johnson-Lindenstrauss width at `bank_eps`, 4 ln N / (ε²/2 - ε³/3).
    """
    from sklearn.random_projection import SparseRandomProjection, johnson_lindenstrauss_min_dim

    rows = rows.float()
    width = johnson_lindenstrauss_min_dim(len(rows), eps=config.bank_eps)
    if width >= rows.shape[1]:
        return rows
    projection = SparseRandomProjection(width, random_state=config.seed).fit(rows[:1].cpu().numpy())
    matrix = torch.from_numpy(projection.components_.toarray().T).to(rows)  # (D, P)
    return torch.cat([part @ matrix for part in rows.split(_block(rows, rows.shape[1]))])


def greedy_coreset(rows: Tensor, count: int, start: int = 0) -> Tensor:
    """Indices (count,) int64 of rows (N, D): from `start` on, each the farthest from those chosen before it.

    The result is that of the plain k-centre greedy algorithm. A feature's distance to the chosen ones only falls, so an
    old value bounds it from above: the farthest of the `POOL` features with the largest bounds is the farthest of all
    as long as it lies above the bounds of the rest. So choices are made inside a pool small enough for the cache, and
    all bounds are updated by one matrix product per pool; no (N, count) matrix is ever held. Of equally far features
    always the same is taken. Raises MafrError for a count that does not fit.
    """
    total = len(rows)
    if not 0 < count <= total or not 0 <= start < total:
        raise MafrError(f"cannot choose {count} of {total} features from feature {start} on")
    rows = rows - rows.mean(dim=0)
    squares = rows.square().sum(dim=1)
    bound = torch.full_like(squares, torch.inf)  # of the squared distance to the nearest chosen feature
    chosen = [start]
    _follow(bound, rows, squares, chosen)
    while len(chosen) < count:
        pool = bound.topk(min(POOL + 1, total)).indices
        rest = float(bound[pool[-1]]) if len(pool) > POOL else -torch.inf
        pool = pool[:POOL].sort().values
        new = _choose_in_pool(rows[pool], squares[pool], bound[pool], rest, count - len(chosen))
        new = pool[new].tolist()
        if len(chosen) + len(new) < count:
            _follow(bound, rows, squares, new)
        chosen += new
    return torch.tensor(chosen)


def _choose_in_pool(rows: Tensor, squares: Tensor, current: Tensor, rest: float, limit: int) -> Tensor:
    """Greedy choices among a pool's rows, as long as the farthest is no nearer than `rest`."""
    chosen: list[int] = []
    while len(chosen) < limit:
        distance, best = current.max(dim=0)
        best = int(best)
        if float(distance) < rest:
            break
        chosen.append(best)
        squared = torch.addmv(squares, rows, rows[best], alpha=-2).add_(squares[best])
        torch.minimum(current, squared.clamp_min_(0), out=current)
        current[best] = -1  # never again, whatever rounding says
    return torch.tensor(chosen, device=rows.device)


def _follow(bound: Tensor, rows: Tensor, squares: Tensor, chosen: list[int]) -> None:
    """Lower the bounds of all rows by newly chosen ones, in place."""
    centres, own = rows[chosen].T, squares[chosen]
    size = _block(rows, len(chosen))
    for first in range(0, len(rows), size):
        part = slice(first, first + size)
        near = torch.addmm(own, rows[part], centres, alpha=-2).amin(dim=1)
        torch.minimum(bound[part], near.add_(squares[part]).clamp_min_(0), out=bound[part])
    bound[chosen] = -1


def _block(rows: Tensor, columns: int) -> int:
    """The number of rows of `columns` values that fit a block."""
    return max(1, BLOCK[rows.device.type] // columns)

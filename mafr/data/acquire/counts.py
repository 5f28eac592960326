"""How many samples the published categories hold, and whether raw folders hold them all."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mafr.config import CATEGORIES
from mafr.data import eyecandies, mvtec3d
from mafr.data.formats.images import decode_mask, read_bytes
from mafr.data.layout import subfolders
from mafr.errors import DataError


@dataclass(frozen=True)
class Published:
    """Samples of one category as published, and the size of its images in pixels."""

    train: int
    validation: int
    good: int  # in the test split, as is `anomalous`
    anomalous: int
    width: int
    height: int

    @property
    def samples(self) -> int:
        return self.train + self.validation + self.good + self.anomalous


# MVTec 3D-AD: Bergmann et al. 2022, Table 1. Eyecandies: Bonfiglioli et al. 2022; test_public alone has labels.
PUBLISHED: dict[str, dict[str, Published]] = {
    "mvtec3d": {
        "bagel": Published(244, 22, 22, 88, 800, 800),
        "cable_gland": Published(223, 23, 21, 87, 400, 400),
        "carrot": Published(286, 29, 27, 132, 800, 800),
        "cookie": Published(210, 22, 28, 103, 500, 500),
        "dowel": Published(288, 34, 26, 104, 400, 400),
        "foam": Published(236, 27, 20, 80, 900, 900),
        "peach": Published(361, 42, 26, 106, 600, 600),
        "potato": Published(300, 33, 22, 92, 800, 800),
        "rope": Published(298, 33, 32, 69, 900, 400),
        "tire": Published(210, 29, 25, 87, 600, 800),
    },
    "eyecandies": {name: Published(1000, 100, 25, 25, 512, 512) for name in CATEGORIES["eyecandies"]},
}
_BYTES_A_PIXEL = 12 + 3  # an uncompressed float32 cloud, and at most three bytes of a png


def unpacked_bytes(dataset: str, categories: Sequence[str]) -> int:
    """About the bytes that published categories of MVTec 3D-AD need on disk, from the table; 0 for other ones."""
    if dataset != "mvtec3d":
        return 0
    known = [PUBLISHED[dataset][name] for name in categories if name in PUBLISHED[dataset]]
    return sum(p.samples * p.width * p.height * _BYTES_A_PIXEL for p in known)


def check_counts(
    dataset: str, raw: Path, categories: Sequence[str] | None = None, allow_incomplete: bool = False
) -> None:
    """Compare raw folders with the published table; names that are not published are one's own, and not checked.

    Args:
        raw: holds `<category>/...`.
        categories: default: all that are there.
        allow_incomplete: say it once on stderr instead of raising.

    Raises:
        DataError: a published category has other numbers of samples.
    """
    there = subfolders(raw)
    for category in there if categories is None else categories:
        if category not in PUBLISHED[dataset] or category not in there:
            continue
        problem = _difference(dataset, raw / category)
        if problem is None:
            continue
        if not allow_incomplete:
            raise DataError(
                f"{problem}; the archive was not unpacked whole: delete {raw / category} and unpack it again, or use "
                "--allow-incomplete if it is a part of the data set or data of your own"
            )
        print(f"mafr: {problem}; going on, as --allow-incomplete says: not the published data set", file=sys.stderr)
        return


def _difference(dataset: str, folder: Path) -> str | None:
    expected = PUBLISHED[dataset][folder.name]
    found = _count_mvtec3d(folder) if dataset == "mvtec3d" else _count_eyecandies(folder)
    wanted = {
        "train": expected.train,
        "validation": expected.validation,
        "test (good)": expected.good,
        "test (anomalous)": expected.anomalous,
    }
    for part, count in wanted.items():
        if found.get(part, 0) != count:
            return f"{folder.name}/{part} has {found.get(part, 0)} samples, {count} published"
    return None


def _count_mvtec3d(folder: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in mvtec3d.scan(folder):
        split, defect, _ = sample.key.split("/")
        _add(counts, split, defect != "good")
    return counts


def _count_eyecandies(folder: Path) -> dict[str, int]:
    counts: dict[str, int] = {}
    for sample in eyecandies.scan(folder):
        split = eyecandies.SPLIT_NAMES[sample.key.split("/")[0]]
        mask = dict(sample.files).get("gt")
        _add(counts, split, mask is not None and decode_mask(read_bytes(folder / mask), folder / mask).any())
    return counts


def _add(counts: dict[str, int], split: str, anomalous: bool) -> None:
    name = split if split != "test" else "test (anomalous)" if anomalous else "test (good)"
    counts[name] = counts.get(name, 0) + 1

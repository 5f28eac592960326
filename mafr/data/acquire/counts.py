"""Published numbers of samples per category, and the check that raw folders hold them all."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from mafr.config import CATEGORIES
from mafr.data import eyecandies, mvtec3d
from mafr.data.formats.images import decode_mask, read_bytes
from mafr.data.layout import empty_category, subfolders
from mafr.errors import DataError, notice


class Published(NamedTuple):
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
    "adam3d": {},  # not checked
}
_PARTS = ("train", "validation", "test (good)", "test (anomalous)")  # the first fields of `Published`
_BYTES_PER_PIXEL = 12 + 3  # an uncompressed float32 cloud, and at most three bytes of a png


def unpacked_bytes(dataset: str, categories: Sequence[str]) -> int:
    """About the bytes that published categories of MVTec 3D-AD need on disk, from the table; 0 for other data sets."""
    if dataset != "mvtec3d":
        return 0
    known = [PUBLISHED[dataset][name] for name in categories if name in PUBLISHED[dataset]]
    return sum(p.samples * p.width * p.height * _BYTES_PER_PIXEL for p in known)


def check_counts(
    dataset: str, raw: Path, categories: Sequence[str] | None = None, allow_incomplete: bool = False
) -> None:
    """Compare the raw folders `<raw>/<category>` (default: all) with the published table.

    Categories of other names are the user's own, and not checked. Raises DataError where a published category has
    other numbers of samples, or, with `allow_incomplete`, says so once on stderr.
    """
    there = subfolders(raw)
    for category in there if categories is None else categories:
        if category not in PUBLISHED[dataset] or category not in there:
            continue
        found = Counter(_parts(dataset, raw / category))
        if not found:
            raise empty_category(raw / category, _module(dataset).LAYOUT)
        published = zip(_PARTS, PUBLISHED[dataset][category], strict=False)
        wrong = [(part, count) for part, count in published if found[part] != count]
        if not wrong:
            continue
        part, count = wrong[0]
        problem = f"{category}/{part} has {found[part]} samples, {count} published"
        if not allow_incomplete:
            raise DataError(
                f"{problem}; the archive was not unpacked whole: delete {raw / category} and unpack it again, or use "
                "--allow-incomplete if it is a part of the data set or data of your own"
            )
        notice(f"{problem}; going on, as --allow-incomplete says: not the published data set")
        return


def _module(dataset: str) -> ModuleType:
    return eyecandies if dataset == "eyecandies" else mvtec3d


def _parts(dataset: str, folder: Path) -> Iterator[str]:
    """The part of the published table that each sample of a category belongs to."""
    for sample in _module(dataset).scan(folder):
        split, *others = sample.key.split("/")
        if dataset != "eyecandies":
            is_anomalous = others[0] != "good"
        else:
            split, mask = eyecandies.SPLIT_NAMES[split], dict(sample.files).get("gt")
            is_anomalous = mask is not None and decode_mask(read_bytes(folder / mask), folder / mask).any()
        yield split if split != "test" else "test (anomalous)" if is_anomalous else "test (good)"

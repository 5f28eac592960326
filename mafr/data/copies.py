"""The same scan in two splits of a category, under whatever names: what is then measured or decided is not true."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import combinations
from pathlib import Path

from mafr.data.formats.images import read_bytes
from mafr.data.layout import SPLITS, processed_files
from mafr.errors import notice

_HARM = {
    ("train", "validation"): "a threshold set by them will be too low, and the false-alarm rate it states is not true",
    ("train", "test"): "the metrics will look too good",
    ("validation", "test"): "the metrics at a threshold set by them will look too good",
}


def warn_of_copies(folder: Path, records: Iterable[Mapping]) -> None:
    """Print a line for each two splits of a processed category that share scans: how many, and one of them.

    folder: the category's. records: of its samples, see `mafr.data.manifest.build_manifest`. Image and cloud are
    compared, by SHA-256, where their files' sizes are equal; records of old manifests, without sizes, are passed by.
    """
    alike = defaultdict(list)
    for record in records:
        if record.get("sizes"):
            alike[tuple(record["sizes"][:2])].append(record)
    pairs = defaultdict(list)  # two splits -> two records
    for group in alike.values():
        if len({_split(record) for record in group}) == 1:
            continue
        same = defaultdict(list)
        for record in group:
            files = processed_files(folder, record["id"])[:2]
            same[tuple(hashlib.sha256(read_bytes(path)).digest() for path in files)].append(record)
        for scans in same.values():
            first = {}
            for record in scans:
                first.setdefault(_split(record), record)
            for a, b in combinations([split for split in SPLITS if split in first], 2):
                # as many as the later split holds
                pairs[a, b] += [(first[a], record) for record in scans if _split(record) == b]
    for (a, b), found in sorted(pairs.items()):
        one, other = min(found, key=lambda pair: pair[1]["id"])
        moved = f" ({other['id']} in the processed copy)" if other["key"] != other["id"] and b != "test" else ""
        notice(
            f"warning: {folder.name}: {len(found)} {b} {'scan is' if len(found) == 1 else 'scans are'} also in {a}, "
            f"byte for byte ({other['key']}{moved} is {one['key']}): {_HARM[a, b]}; keep each scan in one split"
        )


def _split(record: Mapping) -> str:
    return record["id"].partition("/")[0]

"""Validation samples for categories that come without any: a tenth of the good training samples is held out.

Thresholds need good samples that no method has learned from. Which ones are held out follows from their names alone, so
that it repeats on every machine and with every seed, and changes little where samples are added.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence

from mafr.data.layout import RawSample, some_of
from mafr.errors import notice

SHARE = 10  # one of ten
RULE = "no validation folder: the tenth of the good training samples whose names have the least SHA-256"
_TRAIN, _VALIDATION = "train/", "validation/"


def held_out(samples: Sequence[RawSample]) -> frozenset[str]:
    """The keys of the training samples that become validation samples: none where there are validation samples.

    At least one, and a tenth rounded to the nearest; none of a single sample, from which all is learned.
    """
    if any(not sample.key.startswith((_TRAIN, "test")) for sample in samples):  # Eyecandies' is named "val"
        return frozenset()
    good = good_training(samples)
    if len(good) < 2:
        return frozenset()
    count = max(1, (len(good) + SHARE // 2) // SHARE)
    return frozenset(sorted(good, key=lambda key: hashlib.sha256(os.fsencode(key)).digest())[:count])


def placed(name: str, is_held_out: bool) -> str:
    """The id "<split>/<defect>/<stem>" of a sample in the processed copy."""
    return _VALIDATION + name.removeprefix(_TRAIN) if is_held_out else name


def is_in_place(name: str, key: str, held: frozenset[str]) -> bool:
    """Whether a processed sample lies in the split where it belongs now."""
    return (name.startswith(_VALIDATION) and key.startswith(_TRAIN)) == (key in held)


def record_of(held: frozenset[str], records: Iterable[Mapping]) -> dict:
    """What a manifest says of the samples that were held out; nothing where there are none."""
    names = sorted(record["id"] for record in records if record["key"] in held)
    return {"held_out": {"rule": RULE, "samples": names}} if names else {}


def announce(categories: Mapping[str, tuple[int, int]]) -> None:
    """Say, on stderr, what was held out. categories: name -> (held out, good training samples that there were)."""
    if categories:
        parts = some_of([f"{name} ({count} of {total})" for name, (count, total) in categories.items()])
        notice(
            f"no validation folder in {parts}: a tenth of the good training samples, chosen by their names, is held "
            "out for validation and not trained on; manifest.json lists them"
        )


def good_training(samples: Sequence[RawSample]) -> list[str]:
    """The keys of the good training samples."""
    parts = [(sample.key, sample.key.split("/")) for sample in samples]  # "train/good/000", Eyecandies' "train/000"
    return [key for key, (split, *names) in parts if split == "train" and (len(names) == 1 or names[0] == "good")]

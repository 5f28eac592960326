"""Whether stored features are what was written: the shapes of the arrays, and a checksum of each sample's part.

CRC-32 finds what a disk does to a file, a flipped byte or a zeroed page, at about 2 GB/s; it is no protection against
forgery. Stores that are older than the checksums have none; of them, the shapes and the indices' range are checked.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from mafr.config import Config
from mafr.errors import DataError
from mafr.features.extract import NEIGHBOURS

CHECKSUMS = "crc32"  # the key in meta.json
_OWN = "meta.json"  # the checksum of meta.json itself, without the others
_DIGITS = 8  # hexadecimal, of one checksum
_KINDS = {
    "ids": list, "labels": list, "defects": list, "weights": dict, "category": str, "split": str, "fingerprint": str,
    "size": int,
}  # fmt: skip


class DamagedStoreError(DataError):
    """A file of a feature store is missing or not as it was written; the text says which, and how."""


def array_shapes(config: Config, count: int) -> dict[str, tuple[tuple[int | None, ...], type]]:
    """{array: (shape, type)} of a store of `count` samples; None: any length."""
    cells, bits = config.grid**2, -(-(config.image_size**2) // 8)
    return {
        "rgb": ((count, None, None, None), np.float16),
        "xyz": ((count, config.groups, None), np.float16),
        "index": ((count, cells, NEIGHBOURS), np.int16),
        "weight": ((count, cells, NEIGHBOURS), np.float16),
        "gt": ((count, bits), np.uint8),
        "mask": ((count, bits), np.uint8),
    }


def open_arrays(folder: Path, config: Config, count: int) -> dict[str, np.ndarray]:
    """The arrays of a store of `count` samples, memory-mapped. Raises DamagedStoreError."""
    arrays = {}
    for name, (shape, kind) in array_shapes(config, count).items():
        path = folder / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r")
        except FileNotFoundError:
            raise DamagedStoreError(f"{path} is missing") from None
        except Exception as error:  # numpy's choice for damaged headers is wide: ValueError, EOFError, SyntaxError, ...
            raise DamagedStoreError(f"{path} is damaged ({error})") from error
        fits = array.ndim == len(shape) and all(b in (None, a) for a, b in zip(array.shape, shape, strict=True))
        if not fits or array.dtype != kind or not array.flags.c_contiguous:
            wanted = " x ".join("any" if length is None else str(length) for length in shape)
            found = " x ".join(map(str, array.shape)) or "one number"
            raise DamagedStoreError(
                f"{path} is damaged (it holds {found} of {array.dtype}; {wanted} of {np.dtype(kind)} expected)"
            )
        arrays[name] = array
    return arrays


_GOOD: set[tuple] = set()  # files, as `_state` tells them apart, that were found good in this process


def _state(path: Path) -> tuple:
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns


class Checksums:
    """The CRC-32 of each sample's part of each array; what was found good is not looked at again."""

    def __init__(self, folder: Path, config: Config, sums: Mapping[str, np.ndarray], ids: list[str]) -> None:
        """sums: {array: (n,) uint32}, empty for a store that has none."""
        self.folder, self.groups, self.sums, self.ids = folder, config.groups, sums, ids
        self._left = {name: np.ones(len(ids), dtype=bool) for name in ("index", *sums)}

    def check(self, name: str, numbers: Iterable[int], row: Callable[[int], np.ndarray]) -> None:
        """Check some samples' parts of an array; row: gives the part of sample k. Raises DamagedStoreError."""
        left = self._left.get(name)
        if left is None:
            return
        for position, k in enumerate(numbers):
            if not left[k]:
                continue
            part = row(position)
            if name in self.sums and zlib.crc32(part) != self.sums[name][k]:
                raise DamagedStoreError(f"{self._named(name, k)} is not as it was written")
            if name == "index" and part.size and (part.min() < 0 or part.max() >= self.groups):
                raise DamagedStoreError(f"{self._named(name, k)} names groups beyond 0 to {self.groups - 1}")
            left[k] = False

    def check_all(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Check all samples' parts of all arrays; files that this process has checked before are not read again."""
        for name, array in arrays.items():
            state = _state(self.folder / f"{name}.npy")
            if state not in _GOOD:
                self.check(name, range(len(self.ids)), array.__getitem__)
                _GOOD.add(state)
            elif name in self._left:
                self._left[name][:] = False

    def _named(self, name: str, k: int) -> str:
        return f"{self.folder / name}.npy is damaged: the part of {self.ids[k]}"


def written_sums(sums: Mapping[str, list[int]]) -> dict[str, str]:
    """Checksums as meta.json keeps them: one word of 8 digits per sample, joined."""
    return {name: "".join(f"{one:0{_DIGITS}x}" for one in values) for name, values in sums.items()}


def read_sums(written: Mapping[str, str], count: int) -> dict[str, np.ndarray]:
    """The inverse of `written_sums`. Raises ValueError for other numbers of checksums than `count`."""
    sums = {}
    for name, text in written.items():
        if len(text) != count * _DIGITS:
            raise ValueError(f"{len(text) // _DIGITS} checksums of {name} for {count} samples")
        values = [int(text[k : k + _DIGITS], 16) for k in range(0, len(text), _DIGITS)]
        sums[name] = np.array(values, dtype=np.uint32)
    return sums


def sealed(meta: Mapping, sums: Mapping[str, list[int]]) -> dict:
    """The content of a meta.json with the checksums of the arrays, and its own."""
    return {**meta, CHECKSUMS: {_OWN: _sum_of(meta), **written_sums(sums)}}


def read_meta(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """A store's meta.json and the arrays' checksums in it, if it has any. Raises DamagedStoreError."""
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        sums = meta.pop(CHECKSUMS, None)
        if sums is not None and sums.pop(_OWN) != _sum_of(meta):
            raise ValueError("it is not as it was written")
        for name, kind in _KINDS.items():
            if not isinstance(meta[name], kind):
                raise TypeError(f"{name} is no {kind.__name__}")
        names, labels = [*meta["ids"], *meta["defects"]], meta["labels"]
        if len(names) != 2 * len(labels) or len(meta["ids"]) != len(labels):
            raise ValueError("ids, labels and defects differ in number")
        if not all(isinstance(name, str) for name in names) or not all(label in (0, 1) for label in labels):
            raise TypeError("ids and defects are texts, labels 0 or 1")
        return meta, read_sums(sums or {}, len(labels))
    except FileNotFoundError:
        raise DamagedStoreError(f"{path} is missing") from None
    except KeyError as error:
        raise DamagedStoreError(f"{path} is damaged ({error} is missing)") from error
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedStoreError(f"{path} is damaged ({error})") from error


def _sum_of(meta: Mapping) -> str:
    return f"{zlib.crc32(json.dumps(meta, sort_keys=True).encode()):0{_DIGITS}x}"

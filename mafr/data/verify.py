"""Processed copies held against the raw files by their contents, where sizes and times say nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mafr.data.formats.images import decode_mask, decode_rgb, decode_xyz, read_bytes
from mafr.data.layout import RawSample, processed_files
from mafr.data.manifest import content_digest
from mafr.errors import DataError
from mafr.parallel.progress import Workers, map_parallel

_CHUNK = 8  # samples per job


@dataclass(frozen=True)
class _Part:
    raw: Path
    out: Path
    samples: tuple[RawSample, ...]
    records: tuple[Mapping, ...]


def changed_samples(
    raw: Path, out: Path, samples: Sequence[RawSample], records: Mapping[str, Mapping], workers: Workers
) -> list[str]:
    """The keys of the samples whose files are not those that a manifest describes.

    Raw files are compared by their SHA-256. Processed images and masks must show the pixels of the raw ones, and
    processed clouds be whole and have as many points as were written.

    raw, out: the category's folders. records: of the processed samples, by key; others are not looked at.
    """
    known = [sample for sample in samples if sample.key in records]
    chunks = [tuple(known[k : k + _CHUNK]) for k in range(0, len(known), _CHUNK)]
    parts = [_Part(raw, out, chunk, tuple(records[sample.key] for sample in chunk)) for chunk in chunks]
    return [key for keys in map_parallel(_changed, parts, workers, f"verifying {raw.name}") for key in keys]


def _changed(part: _Part) -> list[str]:
    pairs = zip(part.samples, part.records, strict=True)
    return [sample.key for sample, record in pairs if not _agrees(part, sample, record)]


def _agrees(part: _Part, sample: RawSample, record: Mapping) -> bool:
    contents = {role: read_bytes(part.raw / name) for role, name in sample.files}
    if content_digest(sample, contents) != record["content"]:
        return False
    rgb, xyz, gt = processed_files(part.out, record["id"])
    try:
        points = int((decode_xyz(read_bytes(xyz), xyz) != 0).any(axis=2).sum())
        alike = [_alike(contents["rgb"], read_bytes(rgb), decode_rgb, rgb)]
        if gt.is_file() and "gt" in contents:
            alike.append(_alike(contents["gt"], read_bytes(gt), decode_mask, gt))
        elif gt.is_file():
            alike.append(not decode_mask(read_bytes(gt), gt).any())
    except DataError:
        return False
    return all(alike) and points == record.get("points", points)


def _alike(first: bytes, second: bytes, decode: Callable[[bytes, Path], np.ndarray], path: Path) -> bool:
    return first == second or np.array_equal(decode(first, path), decode(second, path))

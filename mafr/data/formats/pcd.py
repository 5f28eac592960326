"""PCD point clouds (Point Cloud Library, version 0.7): the coordinates, ascii, binary or compressed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from mafr.data.formats.columns import cut_off, parse_ascii
from mafr.errors import DataError


def is_pcd(content: bytes) -> bool:
    """Whether a file's content is that of a PCD file."""
    return content.startswith((b"# .PCD", b"VERSION"))


def decode_pcd(content: bytes, path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The points (N, 3) float64 of a PCD file, and (height, width) where it is organised (height above 1).

    Raises DataError for damaged files and such without plain x, y, z.
    """
    header, kind, body = _split(content, path)
    try:
        names = header["FIELDS"]
        sizes = [int(text) for text in header["SIZE"]]
        counts = [int(text) for text in header.get("COUNT", ["1"] * len(names))]
        kinds = [{"F": "f", "I": "i", "U": "u"}[letter] for letter in header["TYPE"]]
        types = [np.dtype(f"<{kind}{size}") for kind, size in zip(kinds, sizes, strict=True)]
        width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
        fields = list(zip(names, types, counts, strict=True))
        if min(width, height, *counts) < 1:
            raise ValueError("a size below 1")
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: the header of the PCD file is damaged ({error}); save it again") from error
    if any([count for name, _, count in fields if name == axis] != [1] for axis in "xyz"):
        raise DataError(f"{path}: points with the fields x, y and z, each once, expected, found {', '.join(names)}")
    number = width * height
    if kind == "ascii":
        starts = np.cumsum([0, *counts])
        points = parse_ascii(body, number, [int(starts[names.index(axis)]) for axis in "xyz"], path)
    else:
        points = _binary(body, fields, number, kind == "binary_compressed", path)
    return points, (height, width) if height > 1 else None


def _split(content: bytes, path: Path) -> tuple[dict[str, list[str]], str, bytes]:
    header: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in header:
        end = content.find(b"\n", position)
        if end < 0 or end - position > 10_000:
            raise DataError(f"{path}: the header of the PCD file has no end; copy or save it again")
        words = content[position:end].decode("latin-1").split()
        if words and not words[0].startswith("#"):
            header[words[0]] = words[1:]
        position = end + 1
    kind = " ".join(header["DATA"])
    if kind not in ("ascii", "binary", "binary_compressed"):
        raise DataError(f"{path}: PCD data of kind {kind!r}; ascii, binary or binary_compressed expected")
    return header, kind, content[position:]


def _binary(body: bytes, fields: list, number: int, compressed: bool, path: Path) -> np.ndarray:
    row = np.dtype([(f"{k} {name}", kind, (count,)) for k, (name, kind, count) in enumerate(fields)])
    if not compressed:
        if len(body) < number * row.itemsize:
            raise cut_off(path)
        values = np.frombuffer(body, row, number)
        columns = {name: values[f"{k} {name}"][:, 0] for k, (name, _, _) in enumerate(fields)}
    else:
        if len(body) < 8:
            raise cut_off(path)
        packed, size = struct.unpack_from("<II", body)
        if len(body) < 8 + packed or size != number * row.itemsize:
            raise cut_off(path)
        content = _lzf(body[8 : 8 + packed], size, path)
        columns, begin = {}, 0
        for name, kind, count in fields:  # one field after the other
            columns[name] = np.frombuffer(content, kind, number * count, begin)
            begin += number * count * kind.itemsize
    return np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)


def _lzf(packed: bytes, size: int, path: Path) -> bytes:
    """Decompress LZF: runs of literal bytes, and references to what came before."""
    out = bytearray()
    position, end = 0, len(packed)
    try:
        while position < end:
            control = packed[position]
            position += 1
            if control < 32:
                out += packed[position : position + control + 1]
                position += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[position]
                position += 1
            start = len(out) - ((control & 31) << 8) - packed[position] - 1
            position += 1
            length += 2
            if start < 0:
                raise IndexError
            piece = out[start : start + length]
            while len(piece) < length:  # it reaches into what it makes itself
                piece += piece[: length - len(piece)]
            out += piece
    except IndexError:
        out.clear()
    if len(out) != size:
        raise DataError(f"{path}: the compressed points are damaged; copy the file again, or save it as plain binary")
    return bytes(out)

"""PLY and PCD point clouds: the coordinates, ascii or binary; PCD (Point Cloud Library, version 0.7) compressed too."""

import io
import re
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mafr.errors import DataError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]]  # name, numpy type; "list" as the type of lists


def is_ply(content: bytes) -> bool:
    """Whether a file's content is that of a PLY file."""
    return content.startswith((b"ply\n", b"ply\r\n"))


def decode_ply(content: bytes, path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The vertices (N, 3) float64 of a PLY file, and (height, width) where `obj_info num_rows, num_cols` gives it.

    Raises DataError for damaged files and for files without plain x, y, z.
    """
    end = re.search(rb"end_header\r?\n", content)
    if end is None:
        raise DataError(f"{path}: the header of the PLY file has no end; copy or save it again")
    header, body = content[: end.start()].decode("latin-1").splitlines(), content[end.end() :]
    order, elements, info = _parse_header(header, path)
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise DataError(f"{path}: no `element vertex` in the header; a point cloud expected")
    before, vertex = elements[: names.index("vertex")], elements[names.index("vertex")]
    if "range_grid" in names:
        raise DataError(f"{path}: range grids are not read; save the cloud with one vertex per pixel, NaN for none")
    columns = [name for name, _ in vertex.properties]
    lists = any(kind == "list" for element in (*before, vertex) for _, kind in element.properties)
    if not {"x", "y", "z"} <= set(columns) or lists:
        raise DataError(f"{path}: vertices with the plain properties x, y and z expected, found {', '.join(columns)}")
    if order:
        types = [np.dtype([(name, order + kind) for name, kind in e.properties]) for e in (*before, vertex)]
        begin = sum(e.count * kind.itemsize for e, kind in zip(before, types, strict=False))
        if len(body) < begin + vertex.count * types[-1].itemsize:
            raise _cut_off(path)
        values = np.frombuffer(body, types[-1], vertex.count, begin)
        points = np.stack([values[axis].astype(np.float64) for axis in "xyz"], axis=1)
    else:
        skip = sum(e.count for e in before)
        places = [columns.index(axis) for axis in "xyz"]
        points = _parse_ascii(body.split(b"\n", skip)[-1] if skip else body, vertex.count, places, path)
    size = (info["num_rows"], info["num_cols"]) if {"num_rows", "num_cols"} <= set(info) else None
    return points, size


def _parse_header(lines: list[str], path: Path) -> tuple[str, list[_Element], dict[str, int]]:
    order, elements, info = None, [], {}
    try:
        for line in lines[1:]:
            match line.split():
                case ["format", name, _]:
                    order = _ORDERS[name]
                case ["element", name, count]:
                    elements.append(_Element(name, int(count), []))
                case ["property", "list", _, _, name]:
                    elements[-1].properties.append((name, "list"))
                case ["property", kind, name]:
                    elements[-1].properties.append((name, _TYPES[kind]))
                case ["obj_info", "num_rows" | "num_cols" as name, count]:
                    info[name] = int(count)
        if order is None or any(element.count < 0 for element in elements):
            raise ValueError("no format, or a negative count")
        for element in elements:
            names = [name for name, _ in element.properties]
            if len(set(names)) < len(names):
                raise ValueError(f"a property of {element.name} comes twice: {', '.join(names)}")
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path}: the header of the PLY file is damaged ({error}); save it again") from error
    return order, elements, info


def is_pcd(content: bytes) -> bool:
    """Whether a file's content is that of a PCD file."""
    return content.startswith((b"# .PCD", b"VERSION"))


def decode_pcd(content: bytes, path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The points (N, 3) float64 of a PCD file, and (height, width) where it is organised (height above 1).

    Raises DataError for damaged files and for files without plain x, y, z.
    """
    header, kind, body = _split_pcd(content, path)
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
        points = _parse_ascii(body, number, [int(starts[names.index(axis)]) for axis in "xyz"], path)
    else:
        points = _binary(body, fields, number, kind == "binary_compressed", path)
    return points, (height, width) if height > 1 else None


def _split_pcd(content: bytes, path: Path) -> tuple[dict[str, list[str]], str, bytes]:
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
            raise _cut_off(path)
        values = np.frombuffer(body, row, number)
        columns = {name: values[f"{k} {name}"][:, 0] for k, (name, _, _) in enumerate(fields)}
    else:
        if len(body) < 8:
            raise _cut_off(path)
        packed, size = struct.unpack_from("<II", body)
        if len(body) < 8 + packed or size != number * row.itemsize:
            raise _cut_off(path)
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
            while len(piece) < length:  # it reaches into its own output
                piece += piece[: length - len(piece)]
            out += piece
    except IndexError:
        out.clear()
    if len(out) != size:
        raise DataError(f"{path}: the compressed points are damaged; copy the file again, or save it as plain binary")
    return bytes(out)


def _cut_off(path: Path) -> DataError:
    return DataError(f"{path}: the file is cut off: it holds fewer points than its header says; copy it again")


def _parse_ascii(body: bytes, rows: int, columns: Sequence[int], path: Path) -> np.ndarray:
    """The numbers in some columns of a text's first `rows` lines, (rows, len(columns)) float64."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of no data at all, which the size says
        try:
            values = np.loadtxt(io.BytesIO(body), comments=None, usecols=columns, max_rows=rows, ndmin=2)
        except ValueError as error:
            raise DataError(f"{path}: text that is no number among the points, or a line cut off ({error})") from error
    if len(values) < rows:
        raise _cut_off(path)
    return values

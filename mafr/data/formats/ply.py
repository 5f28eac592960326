"""PLY point clouds: the coordinates of the vertices, ascii or binary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mafr.data.formats.columns import cut_off, parse_ascii
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

    Raises DataError for damaged files and such without plain x, y, z.
    """
    header, body = _split(content, path)
    order, elements, info = _parse_header(header, path)
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise DataError(f"{path}: no `element vertex` in the header; a point cloud expected")
    before, vertex = elements[: names.index("vertex")], elements[names.index("vertex")]
    if "range_grid" in names:
        raise DataError(f"{path}: range grids are not read; save the cloud with one vertex a pixel, NaN where none is")
    columns = [name for name, _ in vertex.properties]
    lists = any(kind == "list" for element in (*before, vertex) for _, kind in element.properties)
    if not {"x", "y", "z"} <= set(columns) or lists:
        raise DataError(f"{path}: vertices with the plain properties x, y and z expected, found {', '.join(columns)}")
    if order:
        types = [np.dtype([(name, order + kind) for name, kind in e.properties]) for e in (*before, vertex)]
        begin = sum(e.count * kind.itemsize for e, kind in zip(before, types, strict=False))
        if len(body) < begin + vertex.count * types[-1].itemsize:
            raise cut_off(path)
        values = np.frombuffer(body, types[-1], vertex.count, begin)
        points = np.stack([values[axis].astype(np.float64) for axis in "xyz"], axis=1)
    else:
        skip = sum(e.count for e in before)
        places = [columns.index(axis) for axis in "xyz"]
        points = parse_ascii(body.split(b"\n", skip)[-1] if skip else body, vertex.count, places, path)
    size = (info["num_rows"], info["num_cols"]) if {"num_rows", "num_cols"} <= set(info) else None
    return points, size


def _split(content: bytes, path: Path) -> tuple[list[str], bytes]:
    for end in (b"end_header\n", b"end_header\r\n"):
        header, found, body = content.partition(end)
        if found:
            return header.decode("latin-1").splitlines(), body
    raise DataError(f"{path}: the header of the PLY file has no end; copy or save it again")


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

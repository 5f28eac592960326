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


_BOM = b"\xef\xbb\xbf"  # of text saved as UTF-8


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str, str]]  # name, numpy type of the values, of a list's length or ""

    @property
    def has_lists(self) -> bool:
        return any(length for _, _, length in self.properties)


def is_ply(content: bytes) -> bool:
    """Whether a file's content is that of a PLY file."""
    return content.removeprefix(_BOM).startswith((b"ply\n", b"ply\r"))


def decode_ply(content: bytes, path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The vertices (N, 3) float64 of a PLY file, and (height, width) where `obj_info num_rows, num_cols` gives it.

    Lines may end as anywhere: line feed, both, or carriage return alone. Raises DataError for damaged files and for
    files without plain x, y, z.
    """
    content = content.removeprefix(_BOM)
    # Where the first line ends in a return alone, a line feed after the header is data already.
    end = re.search(rb"end_header\r?\n" if re.match(rb"ply\r?\n", content) else rb"end_header\r", content)
    if end is None:
        raise DataError(f"{path}: the header of the PLY file has no end; copy or save it again")
    header, body = re.split("\r\n|\r|\n", content[: end.start()].decode("latin-1")), content[end.end() :]
    order, elements, info = _parse_header(header, path)
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise DataError(f"{path}: no `element vertex` in the header; a point cloud expected")
    before, vertex = elements[: names.index("vertex")], elements[names.index("vertex")]
    if "range_grid" in names:
        raise DataError(f"{path}: range grids are not read; save the cloud with one vertex per pixel, NaN for none")
    columns = {name: length for name, _, length in vertex.properties}
    if not {"x", "y", "z"} <= set(columns):
        raise DataError(f"{path}: vertices with the plain properties x, y and z expected, found {', '.join(columns)}")
    if lists := [axis for axis in "xyz" if columns[axis]]:
        raise DataError(f"{path}: {', '.join(lists)} of a vertex is a list; one number each expected: save it again")
    if order:
        begin = 0
        for element in before:
            begin = _read_rows(body, begin, element, order, path)[1]
        values = _read_rows(body, begin, vertex, order, path)[0]
        points = np.stack([values[axis].astype(np.float64) for axis in "xyz"], axis=1)
    else:
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        skip = sum(e.count for e in before)
        body = body.split(b"\n", skip)[-1] if skip else body
        points = _parse_vertices(body, vertex, path)
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
                case ["property", "list", length, kind, name]:
                    elements[-1].properties.append((name, _TYPES[kind], _TYPES[length]))
                case ["property", kind, name]:
                    elements[-1].properties.append((name, _TYPES[kind], ""))
                case ["obj_info", "num_rows" | "num_cols" as name, count]:
                    info[name] = int(count)
        if order is None or any(element.count < 0 for element in elements):
            raise ValueError("no format, or a negative count")
        for element in elements:
            names = [name for name, _, _ in element.properties]
            if len(set(names)) < len(names):
                raise ValueError(f"a property of {element.name} comes twice: {', '.join(names)}")
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path}: the header of the PLY file is damaged ({error}); save it again") from error
    return order, elements, info


def _read_rows(body: bytes, begin: int, element: _Element, order: str, path: Path) -> tuple[np.ndarray, int]:
    """The rows of an element as a structured array of its plain properties, and where it ends.

    Lists are passed over. Mostly all rows have lists of one length, as triangles do; else they are walked one by one.
    """
    kinds = [(name, np.dtype(order + kind), length and np.dtype(order + length)) for name, kind, length in
             element.properties]  # fmt: skip
    fields, place = [], begin
    for k, (name, kind, length) in enumerate(kinds):
        if not length:
            fields.append((name, kind))
            place += kind.itemsize
            continue
        count = _list_length(body, place, length, path) if element.count else 0
        fields += [(f"{k} length", length), (f"{k} list", kind, (count,))]
        place += length.itemsize + count * kind.itemsize
    row = np.dtype(fields)
    end = begin + element.count * row.itemsize
    plain = [name for name, _, length in kinds if not length]
    if end <= len(body):
        some = element.count and row.itemsize
        rows = np.frombuffer(body, row, element.count, begin) if some else np.zeros(element.count, row)
        lists = [k for k, (_, _, length) in enumerate(kinds) if length]
        if all((rows[f"{k} length"] == rows[f"{k} list"].shape[1]).all() for k in lists):
            return rows[plain], end
    elif not element.has_lists:
        raise _cut_off(path)
    rows, place = [], begin
    for _ in range(element.count):
        pieces = []
        for _, kind, length in kinds:
            if length:
                place += length.itemsize + _list_length(body, place, length, path) * kind.itemsize
            else:
                pieces.append(body[place : place + kind.itemsize])
                place += kind.itemsize
        rows += pieces
    if place > len(body):
        raise _cut_off(path)
    return np.frombuffer(b"".join(rows), [(name, kind) for name, kind, length in kinds if not length]), place


def _list_length(body: bytes, place: int, kind: np.dtype, path: Path) -> int:
    if place + kind.itemsize > len(body):
        raise _cut_off(path)
    count = int(np.frombuffer(body, kind, 1, place)[0])
    if count < 0:
        raise DataError(f"{path}: a list of {count} numbers in the PLY file: it is damaged; copy or save it again")
    return count


def _parse_vertices(body: bytes, vertex: _Element, path: Path) -> np.ndarray:
    """x, y and z of the vertices that a text begins with, (N, 3) float64."""
    names = [name for name, _, _ in vertex.properties]
    places = [names.index(axis) for axis in "xyz"]
    lists = [k for k, (_, _, length) in enumerate(vertex.properties) if length]
    if lists and lists[0] < max(places):  # columns behind a list are not the same in every row
        lines = body.split(b"\n", vertex.count)[: vertex.count]
        body = b"\n".join(_without_lists(line, vertex, path) for line in lines)
        names = [name for name, _, length in vertex.properties if not length]
        places = [names.index(axis) for axis in "xyz"]
    return _parse_ascii(body, vertex.count, places, path)


def _without_lists(line: bytes, vertex: _Element, path: Path) -> bytes:
    words, kept, place = line.split(), [], 0
    try:
        for _, _, length in vertex.properties:
            if length:
                place += 1 + int(words[place])
            else:
                kept.append(words[place])
                place += 1
    except (IndexError, ValueError) as error:
        raise DataError(f"{path}: text that is no number among the points, or a line cut off ({error})") from error
    return b" ".join(kept)


def is_pcd(content: bytes) -> bool:
    """Whether a file's content is that of a PCD file."""
    begin = content[:4096].removeprefix(_BOM)
    # The header's comments may come first, and older writers leave VERSION out.
    return begin.startswith(b"# .PCD") or re.match(rb"(#[^\r\n]*[\r\n]+)*(VERSION|FIELDS)\b", begin) is not None


def decode_pcd(content: bytes, path: Path) -> tuple[np.ndarray, tuple[int, int] | None]:
    """The points (N, 3) float64 of a PCD file, and (height, width) where it is organised (height above 1).

    Raises DataError for damaged files and for files without plain x, y, z.
    """
    header, kind, body = _split_pcd(content.removeprefix(_BOM), path)
    try:
        names = header["FIELDS"]
        counts = [int(text) for text in header.get("COUNT", ["1"] * len(names))]
        width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
        if min(width, height) < 1 or min(counts) < 0:
            raise ValueError("a size below 1")
        rows = zip(names, header["TYPE"], header["SIZE"], counts, strict=True)
        # A field that counts 0 is padding without a byte or a word, whatever its type.
        fields = [(name, _pcd_type(letter, size), count) for name, letter, size, count in rows if count]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise DataError(f"{path}: the header of the PCD file is damaged ({error}); save it again") from error
    if any([count for name, _, count in fields if name == axis] != [1] for axis in "xyz"):
        raise DataError(f"{path}: points with the fields x, y and z, each once, expected, found {', '.join(names)}")
    number = width * height
    if kind == "ascii":
        names = [name for name, _, _ in fields]
        starts = np.cumsum([0, *(count for _, _, count in fields)])
        body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        points = _parse_ascii(body, number, [int(starts[names.index(axis)]) for axis in "xyz"], path)
    else:
        points = _binary(body, fields, number, kind == "binary_compressed", path)
    return points, (height, width) if height > 1 else None


def _pcd_type(letter: str, size: str) -> np.dtype:
    kind = {"F": "f", "I": "i", "U": "u"}[letter]
    return np.dtype(f"<{kind}{int(size)}")


def _split_pcd(content: bytes, path: Path) -> tuple[dict[str, list[str]], str, bytes]:
    header: dict[str, list[str]] = {}
    position = 0
    # Where the first line ends in a return alone, a line feed after the last one is data already.
    newline = b"\n" if re.match(rb"[^\r\n]*\r?\n", content) else b"\r"
    while "DATA" not in header:
        end = content.find(newline, position)
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

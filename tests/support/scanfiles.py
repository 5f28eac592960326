"""Files of single scans in the forms that cameras and programs write."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import tifffile
from PIL import Image
from support import rawdata

from mafr.data.formats.clouds import Intrinsics, decode_intrinsics

SCENE = rawdata.scene(4)
POINTS = SCENE.reshape(-1, 3)
CAMERA = {"fx": 333.0, "fy": 331.0, "cx": 30.2, "cy": 19.7, "depth_scale": 0.001}


def saved(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="rgb" if array.ndim == 3 else "minisblack", metadata=None, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def camera(**changes: object) -> Intrinsics:
    """`CAMERA` with changes; None leaves a number out."""
    values = {key: value for key, value in (CAMERA | changes).items() if value is not None}
    return decode_intrinsics(json.dumps(values).encode(), "intrinsics.json")


def ply_of(points: np.ndarray, order: str = "<", before: tuple = (), vertex: str = "xyz", newline: str = "\n") -> bytes:
    """Vertices with the properties x, y, z and, where `vertex` says l, a list of 16-bit numbers of changing length.

    before: the lists of a face element in front. order: "" for ascii.
    """
    kind = {"": "ascii", "<": "binary_little_endian", ">": "binary_big_endian"}[order]
    header = ["ply", f"format {kind} 1.0"]
    if before:
        header += [f"element face {len(before)}", "property list uchar int vertex_indices", "property float quality"]
    header.append(f"element vertex {len(points)}")
    header += ["property list uint ushort seen" if p == "l" else f"property float {p}" for p in vertex]
    rows = []
    for face in before:
        row = [("B", len(face)), *(("i", k) for k in face), ("f", 0.5)]
        rows.append(row)
    for n, point in enumerate(points.tolist()):
        values = dict(zip("xyz", point, strict=True))
        some = [("I", n % 3), *(("H", k) for k in range(n % 3))]
        rows.append([item for p in vertex for item in (some if p == "l" else [("f", values[p])])])
    text = newline.join([*header, "end_header", ""]).encode()
    if not order:
        return text + newline.join(" ".join(f"{v:.9g}" for _, v in row) for row in rows).encode() + newline.encode()
    return text + b"".join(struct.pack(order + "".join(k for k, _ in row), *(v for _, v in row)) for row in rows)


def pcd_of(
    points: np.ndarray, kind: str, fields: str = "x y z", newline: str = "\n", first: str = "VERSION .7"
) -> bytes:
    """x, y and z as floats; other fields count 0."""
    names = fields.split()
    header = [first, f"FIELDS {fields}", "SIZE " + " ".join("4" if n in "xyz" else "1" for n in names),
              "TYPE " + " ".join("F" if n in "xyz" else "U" for n in names),
              "COUNT " + " ".join("1" if n in "xyz" else "0" for n in names),
              "WIDTH 60", "HEIGHT 40", f"POINTS {len(points)}", f"DATA {kind}", ""]  # fmt: skip
    begin, rows = newline.join(header).encode(), points.astype("<f4")
    if kind == "ascii":
        return begin + "".join(" ".join(f"{v:.9g}" for v in row) + newline for row in rows.tolist()).encode()
    if kind == "binary":
        return begin + rows.tobytes()
    content = rows.T.tobytes()
    pieces = (content[k : k + 32] for k in range(0, len(content), 32))  # LZF's literals, nothing packed
    packed = b"".join(bytes([len(piece) - 1]) + piece for piece in pieces)
    return begin + struct.pack("<II", len(packed), len(content)) + packed

"""Files as cameras and programs write them: read as what they show, or refused with the reason."""

import io
import json
import logging
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import rawdata

from mafr.data import load_pair, open_dataset, preprocess
from mafr.data.formats import gaps, tiffs
from mafr.data.formats.clouds import decode_cloud, decode_depth_image, decode_intrinsics, decode_scan
from mafr.data.formats.images import decode_image, decode_mask, decode_rgb, decode_xyz, encode_xyz
from mafr.errors import DataError

SCENE = rawdata.scene(4)
POINTS = SCENE.reshape(-1, 3)
DEFECT = rawdata.mask(True) > 0
CAMERA = {"fx": 333.0, "fy": 331.0, "cx": 30.2, "cy": 19.7, "depth_scale": 0.001}


def saved(image: Image.Image, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="rgb" if array.ndim == 3 else "minisblack", metadata=None, **options)
    return buffer.getvalue()


# ------------------------------------------------------------------- masks


def palettes() -> dict[str, bytes]:
    grey = Image.fromarray(np.where(DEFECT, 255, 0).astype(np.uint8))
    black_last = Image.fromarray(np.where(DEFECT, 0, 1).astype(np.uint8), mode="P")
    black_last.putpalette([255, 255, 255, 0, 0, 0])
    labels = Image.fromarray(np.where(DEFECT, 7, 0).astype(np.uint8), mode="P")
    labels.putpalette([0, 0, 0] * 7 + [0, 128, 0])
    gif = Image.open(io.BytesIO(saved(grey.convert("RGB").quantize(4), "gif")))
    return {
        "quantised": saved(grey.convert("RGB").quantize(4)),
        "adaptive": saved(grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE, colors=2)),
        "white is index 0": saved(black_last),
        "transparent": saved(black_last, transparency=bytes([0, 255])),
        "labels": saved(labels),
        "by way of a gif": saved(gif),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", palettes())
def test_colours_of_a_palette_mask_decide_not_its_indices(kind, tmp_path):
    content = palettes()[kind]
    assert Image.open(io.BytesIO(content)).mode == "P"
    np.testing.assert_array_equal(decode_mask(content, tmp_path), DEFECT)


def test_a_palette_with_an_alpha_beside(tmp_path):
    """Pillow writes no such file; a tiff may hold one."""
    plain = Image.open(io.BytesIO(palettes()["white is index 0"])).convert("PA")
    content = saved(plain, "tiff")
    np.testing.assert_array_equal(decode_mask(content, tmp_path), DEFECT)


def test_a_palette_of_nothing_but_black_is_refused(tmp_path):
    image = Image.fromarray(DEFECT.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 0, 0, 0])
    with pytest.raises(DataError, match=r"m.png: a palette image whose colours are all black.*indices run from 0 to 1"):
        decode_mask(saved(image), tmp_path / "m.png")


def test_a_mask_without_a_zero_is_refused_where_its_values_differ(tmp_path):
    for low, high in ((4, 255), (1, 2)):
        content = saved(Image.fromarray(np.where(DEFECT, high, low).astype(np.uint8)))
        with pytest.raises(DataError, match=rf"m.png: no pixel of the mask is zero, .* run from {low} to {high}"):
            decode_mask(content, tmp_path / "m.png")
    for values in (np.full((4, 4), 255), np.array([[253, 255]])):  # all of it anomalous: unlikely, but possible
        assert decode_mask(saved(Image.fromarray(values.astype(np.uint8))), tmp_path).all()


@pytest.mark.parametrize("dataset", ["mvtec3d", "eyecandies"])
def test_preprocessing_names_a_mask_that_marks_nearly_all_of_its_image(dataset, tmp_path, capsys):
    eyecandies = dataset == "eyecandies"
    folder = (rawdata.write_eyecandies if eyecandies else rawdata.write_mvtec3d)(tmp_path / "raw")
    name = "test_public/data/01_mask.png" if eyecandies else "test/crack/gt/009.png"
    config = rawdata.config()
    preprocess(dataset, tmp_path / "raw", tmp_path / "first", config)
    assert "warning" not in capsys.readouterr().err
    mask = np.asarray(Image.open(folder / name))
    rawdata.write_png(folder / name, np.where(mask, 0, 255).astype(np.uint8))
    preprocess(dataset, tmp_path / "raw", tmp_path / "second", config)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert str(folder / name) in line and "the mask marks 9" in line and "inverted?" in line


# ------------------------------------------------------------------- tiffs

PACKINGS = {
    "lzw": {"compression": "lzw"},
    "lzw, floating-point predictor": {"compression": "lzw", "predictor": 3},
    "zlib, floating-point predictor": {"compression": "zlib", "predictor": 3},
    "tiles": {"compression": "lzw", "tile": (16, 16)},
    "zstd": {"compression": "zstd"},
    "BigTIFF": {"bigtiff": True},
}


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_packed_tiffs_are_read(packing, kind, tmp_path):
    content = tiff(SCENE.astype(kind), **PACKINGS[packing])
    np.testing.assert_array_equal(decode_cloud(content, tmp_path, (40, 60), tmp_path), SCENE)
    depth = SCENE[..., 2].astype(kind)
    found = decode_scan(tiff(depth, **PACKINGS[packing]), tmp_path, (40, 60), tmp_path, camera())
    np.testing.assert_array_equal(found[..., 2], SCENE[..., 2])
    assert found[..., 0].any()


@pytest.mark.parametrize(("predictor", "kind"), [(1, "I;16"), (2, "I;16"), (3, "F")])
def test_depth_tiffs_as_libtiff_packs_them(predictor, kind, tmp_path):
    """OpenCV's imwrite uses libtiff, and so does Pillow: LZW, with the predictor for differences or for floats."""
    steps = np.round(SCENE[..., 2] * 1000).astype(np.uint16)
    image = Image.fromarray(steps if kind == "I;16" else steps / np.float32(1000))
    assert image.mode == kind
    content = saved(image, "tiff", compression="tiff_lzw", tiffinfo={317: predictor})
    found = decode_depth_image(content, tmp_path, camera())
    np.testing.assert_allclose(found[..., 2], steps / 1000, rtol=1e-6)


def test_processed_clouds_have_the_same_bytes_whatever_library_could_pack_them():
    """Strips of at most 256 KiB, each as zlib itself packs it: what tifffile writes where imagecodecs is not there."""
    big = np.tile(SCENE, (5, 10, 1))
    content = encode_xyz(big)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        rows, places = page.rowsperstrip, list(zip(page.dataoffsets, page.databytecounts, strict=True))
    assert rows == 2**18 // (600 * 12) and len(places) == -(-200 // rows)
    for k, (begin, count) in enumerate(places):
        assert content[begin : begin + count] == zlib.compress(big[k * rows : (k + 1) * rows].tobytes(), 1)


@pytest.mark.parametrize("packing", [{}, *PACKINGS.values()])
def test_a_cut_off_tiff_is_one_error_and_no_remark_of_the_reader(packing, tmp_path, caplog):
    depth = SCENE[..., 2]
    by_libtiff = saved(Image.fromarray(depth), "tiff", compression="tiff_lzw")  # its directory comes last
    for content in (tiff(SCENE, **packing), tiff(depth, **packing), by_libtiff):
        for part in (0.9, 0.5, 0.02):
            cut = content[: int(part * len(content))]
            with pytest.raises(DataError, match=r"a.tiff: not a complete tiff \(.*\); copy or download it again"):
                decode_depth_image(cut, tmp_path / "a.tiff", camera())
            with pytest.raises(DataError, match=r"a.tiff: not a complete tiff|a.tiff: not a tiff but the text"):
                decode_xyz(cut, tmp_path / "a.tiff")
            assert tiffs.tiff_shape(cut) in ((), (40, 60), (40, 60, 3))
    assert not caplog.records
    logging.getLogger("tifffile").warning("of another file")  # is said as ever
    assert [record.getMessage() for record in caplog.records] == ["of another file"]
    with pytest.raises(DataError, match="invalid offset to first page"):
        decode_xyz(by_libtiff[: len(by_libtiff) // 2], tmp_path / "a.tiff")


def test_compressions_that_are_not_read_are_named(tmp_path, monkeypatch):
    content = bytearray(tiff(SCENE, compression="zlib"))
    place = content.index(struct.pack("<HH", 259, 3)) + 8
    for code, message in ((34713, "packed by NIKON_NEF, which is not read"), (12345, "packed by method 12345, which")):
        content[place : place + 2] = struct.pack("<H", code)
        with pytest.raises(DataError, match=rf"a.tiff: a tiff {message}.*save it by LZW, zlib or not packed"):
            decode_xyz(bytes(content), tmp_path / "a.tiff")

    def without(_: object) -> None:
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile, "imread", without)
    with pytest.raises(DataError, match=r"a.tiff: .*LZW.* requires the 'imagecodecs' package; install it"):
        decode_xyz(bytes(content), tmp_path / "a.tiff")


# ------------------------------------------------------------------ cameras


def camera(**changes):
    values = {key: value for key, value in (CAMERA | changes).items() if value is not None}
    return decode_intrinsics(json.dumps(values).encode(), "intrinsics.json")


def of_matrix(matrix, name="camera_matrix"):
    return camera(fx=None, fy=None, cx=None, cy=None, **{name: matrix})


MATRIX = np.array([[333.0, 0, 30.2], [0, 331.0, 19.7], [0, 0, 1]])


@pytest.mark.parametrize("name", ["camera_matrix", "K", "intrinsic_matrix", "cam_K"])
def test_camera_matrices_row_by_row(name):
    flat = MATRIX.ravel().tolist()
    for matrix in (MATRIX.tolist(), flat, {"rows": 3, "cols": 3, "data": flat}):
        assert of_matrix(matrix, name) == camera()


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (MATRIX.T.tolist(), "camera_matrix is transposed, or column by column: rows fx, .* found .*30.2, 19.7"),
        (MATRIX.T.ravel().tolist(), "camera_matrix is transposed, or column by column"),
        ({"data": MATRIX.T.ravel().tolist()}, "camera_matrix is transposed, or column by column"),
        (np.diag([333.0, 331.0, 2.0]).tolist(), "camera_matrix: rows fx"),
        ([[333.0, 0, 30.2], [2.0, 331.0, 19.7], [0, 0, 1]], "camera_matrix: rows fx"),
        (np.hstack([MATRIX, np.zeros((3, 1))]).tolist(), "camera_matrix has 12 numbers instead of 3 x 3"),
        ("wide", "ValueError"),
    ],
)
def test_camera_matrices_in_another_order_are_refused(matrix, message):
    with pytest.raises(DataError, match=rf"intrinsics.json: no camera parameters \(.*{message}"):
        of_matrix(matrix)


def test_skew_is_used(tmp_path):
    skewed = MATRIX.copy()
    skewed[0, 1] = 25.0
    cameras = of_matrix(skewed.tolist()), camera(skew=25)
    found = [decode_depth_image(tiff(SCENE[..., 2]), tmp_path, which) for which in cameras]
    v, u = np.indices((40, 60))
    rays = np.stack([u, v, np.ones_like(u)], axis=2) @ np.linalg.inv(skewed).T
    for points in found:
        np.testing.assert_allclose(points, rays * SCENE[..., 2:], atol=1e-7)
    assert np.abs(found[0] - decode_depth_image(tiff(SCENE[..., 2]), tmp_path, camera())).max() > 1e-3


# ---------------------------------------------------- no data, and far points

MILLIMETRES = np.round(SCENE[..., 2] * 1000).astype(np.uint16)


def depth_png(values: np.ndarray) -> bytes:
    return saved(Image.fromarray(values))


def depth_of(content: bytes, path, **settings) -> np.ndarray:
    return decode_depth_image(content, path, camera(**settings))[..., 2]


@pytest.mark.parametrize("scale", [0.001, 0.0001])
def test_one_saturated_pixel_is_no_point(scale, tmp_path, capsys):
    steps = np.round(SCENE[..., 2] / scale).astype(np.uint16)
    expected = depth_of(depth_png(steps), tmp_path / "a.png", depth_scale=scale)
    assert not capsys.readouterr().err
    steps[20, 30] = 65535
    expected[20, 30] = 0
    found = depth_of(depth_png(steps), tmp_path / "b.png", depth_scale=scale)
    np.testing.assert_array_equal(found, expected)
    (line,) = capsys.readouterr().err.splitlines()
    assert "b.png: 1 pixels hold 65535, alone and far from the others' median" in line
    depth_of(depth_png(steps), tmp_path / "c.png", depth_scale=scale)
    assert not capsys.readouterr().err  # said once for a folder


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7])
@pytest.mark.parametrize(
    ("constant", "kind"),
    [
        (65535, np.uint16), (9999, np.uint16), (1, np.uint16), (1e10, np.float32), (9999.0, np.float64),
        (-1.0, np.float32),
    ],
)  # fmt: skip
def test_one_repeated_value_is_no_data(constant, kind, share, tmp_path, capsys):
    gap = np.random.default_rng(0).random((40, 60)) < share
    values = np.where(gap, constant, SCENE[..., 2] * 1000).astype(kind)
    expected = np.where(gap, 0, SCENE[..., 2] * 1000).astype(kind)
    found, wanted = (depth_of(tiff(v), tmp_path / "a.tiff", unit="mm") for v in (values, expected))
    np.testing.assert_array_equal(found, wanted)
    said = capsys.readouterr().err
    assert (f"{np.count_nonzero(gap):,} pixels hold {constant:.9g}" in said) is (constant > 0), said


def test_two_values_of_no_data_and_a_stray(tmp_path):
    values = MILLIMETRES.copy()
    values[:10], values[10:15], values[20, 20] = 65535, 9000, 30_000
    expected = MILLIMETRES.copy()
    expected[:15] = expected[20, 20] = 0
    found, wanted = (depth_of(depth_png(v), tmp_path) for v in (values, expected))
    np.testing.assert_array_equal(found, wanted)


def test_depths_that_repeat_are_measured_all_the_same(tmp_path, capsys):
    """A flat table, a floor behind a hole whose depths differ by a step, one depth only, and values near the end."""
    part = MILLIMETRES.copy()
    table, floor = part.copy(), part.copy()
    table[:15] = 520
    rng = np.random.default_rng(0)
    floor[10:14, 20:30] = 1000 + rng.integers(-1, 2, (4, 10))
    near_end = np.where(part > 0, part + 65535 - part.max(), 0).astype(np.uint16)
    for values in (part, table, floor, np.full((40, 60), 500, np.uint16)):
        np.testing.assert_allclose(depth_of(depth_png(values), tmp_path), values / 1000, rtol=1e-6)
    np.testing.assert_allclose(depth_of(depth_png(near_end), tmp_path, depth_scale=1e-5), near_end * 1e-5, rtol=1e-6)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("form", ["depth", "xyz", "ply"])
def test_a_far_stray_is_counted_and_left_out_whatever_the_form(form, tmp_path, capsys):
    points = SCENE.copy()
    points[5, 5], points[6, 7] = (1, 2, 4e4), (3, 3, 90)
    expected = SCENE.copy()
    expected[5, 5] = expected[6, 7] = 0
    path = tmp_path / "a"
    if form == "depth":
        contents = tiff(points[..., 2] * 1000), tiff(expected[..., 2] * 1000)
        found, expected = (decode_depth_image(content, path, camera(unit="mm")) for content in contents)
    elif form == "xyz":
        found = decode_cloud(tiff(points), path, (40, 60), path)
    else:
        found = decode_cloud(ply_of(points.reshape(-1, 3) * 1000), path, (40, 60), path, camera(unit="mm"))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert "a: 2 pixels lie farther than 20 m, up to 4e+04 m, the median at 0.49" in capsys.readouterr().err


def test_the_unit_is_judged_by_the_median(tmp_path):
    """With a stray or a repeated value beside it, a cloud in millimetres is one all the same."""
    points = SCENE * np.float32(1000)
    points[5, 5] = 65535
    with pytest.raises(DataError, match=r'coordinates reach 6.55\de\+04, half of them 49\d.*put {"unit": "mm"}'):
        decode_cloud(ply_of(points.reshape(-1, 3)), tmp_path, (40, 60), tmp_path)
    metres = SCENE.copy()
    metres[:25] = -9999  # most of the points
    expected = SCENE.copy()
    expected[:25] = 0
    np.testing.assert_array_equal(decode_cloud(tiff(metres), tmp_path, (40, 60), tmp_path), expected)
    assert gaps.drop_far(SCENE, 20.0, tmp_path) is SCENE


# ----------------------------------------------------------------- PLY, PCD


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


FACES = {"none": (), "triangles": ((0, 1, 2),) * 50, "mixed": ((0, 1, 2), (0, 1, 2, 3), (), (4, 5)) * 5}


@pytest.mark.parametrize("vertex", ["xyz", "lxyz", "xlyz", "xyzl"])
@pytest.mark.parametrize("faces", FACES)
@pytest.mark.parametrize("order", ["", "<", ">"])
def test_ply_with_faces_first_and_lists_in_vertices(order, faces, vertex, tmp_path):
    content = ply_of(POINTS, order, FACES[faces], vertex)
    np.testing.assert_array_equal(decode_cloud(content, tmp_path, (40, 60), tmp_path), SCENE)
    if len(content) > 2000:
        with pytest.raises(DataError, match=r"cut off|no number|holds fewer"):
            decode_cloud(content[:-30], tmp_path, (40, 60), tmp_path)


def test_a_ply_whose_coordinate_is_a_list_says_so(tmp_path):
    content = ply_of(POINTS, "").replace(b"property float y", b"property list uchar float y")
    with pytest.raises(DataError, match=r"y of a vertex is a list; one number each expected"):
        decode_cloud(content, tmp_path, (40, 60), tmp_path)
    content = ply_of(POINTS, "<", ((1, 2),)).replace(b"list uchar int", b"list char int", 1)
    damaged = content.replace(b"end_header\n\x02", b"end_header\n\xff")
    with pytest.raises(DataError, match=r"a list of -1 numbers in the PLY file"):
        decode_cloud(damaged, tmp_path, (40, 60), tmp_path)


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("form", ["ascii.ply", "binary.ply", "ascii.pcd", "binary.pcd"])
def test_byte_order_marks_and_line_ends_of_every_kind(form, begin, newline, tmp_path):
    kind, suffix = form.split(".")
    points = POINTS.copy()
    points[0, 0] = np.frombuffer(b"\n\r\n=", "<f4")[0]  # data that begins as a line ends
    if suffix == "ply":
        content = ply_of(points, "" if kind == "ascii" else "<", newline=newline)
    else:
        content = pcd_of(points, kind, newline=newline)
    expected = points.reshape(SCENE.shape)
    np.testing.assert_array_equal(decode_cloud(begin + content, tmp_path, (40, 60), tmp_path), expected)


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


@pytest.mark.parametrize("kind", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("fields", ["_ x y z", "x _ y _ z", "x y z _"])
def test_pcd_fields_that_count_0_take_no_bytes(fields, kind, tmp_path):
    found = decode_cloud(pcd_of(POINTS, kind, fields), tmp_path, (40, 60), tmp_path)
    np.testing.assert_array_equal(found, SCENE)


def test_pcd_headers_with_other_beginnings(tmp_path):
    for first in ("# made by a scanner\n# of ours\nVERSION .7", "#.PCD v.7", "# .PCD v0.7\nVERSION 0.7"):
        found = decode_cloud(pcd_of(POINTS, "binary", first=first), tmp_path, (40, 60), tmp_path)
        np.testing.assert_array_equal(found, SCENE)
    broken = pcd_of(POINTS, "binary", "_ x y z").replace(b"COUNT 0", b"COUNT -1")
    with pytest.raises(DataError, match="header of the PCD file is damaged"):
        decode_cloud(broken, tmp_path, (40, 60), tmp_path)
    without = pcd_of(POINTS, "binary", "_ x y z").replace(b"COUNT 0 1", b"COUNT 0 0")
    with pytest.raises(DataError, match="each once, expected, found _, x, y, z"):
        decode_cloud(without, tmp_path, (40, 60), tmp_path)


# -------------------------------------------------------------- other kinds


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


JPEG = saved(Image.fromarray(rawdata.rgb(0)), "jpeg")
OTHERS = {
    "numpy": (npy(SCENE), r"a NumPy array \(.npy\), not a tiff of coordinates; numpy.load it and write it by tifffile"),
    "exr": (b"\x76\x2f\x31\x01\x02" + bytes(500), "an OpenEXR image, not a tiff of coordinates; save the cloud as"),
    "jpeg": (JPEG, "a JPEG image, not a tiff of coordinates; save the cloud as"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(500), "an HDF5 file"),
    "las": (b"LASF" + bytes(500), "a LAS point cloud"),
    "utf-16": ("ply\nformat ascii 1.0\n".encode("utf-16"), "text in UTF-16, .* save it as ASCII or UTF-8"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_files_of_another_kind_in_place_of_a_cloud_are_named(kind, tmp_path):
    content, message = OTHERS[kind]
    rawdata.write_png(tmp_path / "a.png", rawdata.rgb(0))
    (tmp_path / "a.tiff").write_bytes(content)
    with pytest.raises(DataError, match=rf"a.tiff: {message}"):
        load_pair(tmp_path / "a.png", tmp_path / "a.tiff", rawdata.config(), "none")


def test_files_of_another_kind_in_place_of_an_image_or_depth_are_named(tmp_path):
    for content, message in (
        (npy(SCENE), r"a NumPy array \(.npy\); an 8-bit png or jpg is expected: numpy.load it"),
        (ply_of(POINTS), "a PLY file; an 8-bit png or jpg is expected"),
        (tiff(SCENE), "a tiff; an 8-bit png or jpg is expected"),
        (JPEG[:300], "not a complete image"),
    ):
        with pytest.raises(DataError, match=rf"a.png: {message}"):
            decode_image(content, tmp_path / "a.png")
    for content, message in (
        (npy(SCENE[..., 2]), r"a NumPy array \(.npy\); a depth image, a 16-bit png or a tiff, is expected"),
        (JPEG, r"found uint8 .*\(a JPEG image\)"),
    ):
        with pytest.raises(DataError, match=rf"d.png: .*{message}"):
            decode_depth_image(content, tmp_path / "d.png", camera())


def test_jpg_images_are_taken(tmp_path):
    content = saved(Image.fromarray(rawdata.rgb(0)), "jpeg", quality=95)
    (tmp_path / "part.jpg").write_bytes(content)
    rawdata.write_png(tmp_path / "part.png", decode_rgb(content, tmp_path))
    rawdata.write_tiff(tmp_path / "a.tiff", SCENE)
    first, second = (load_pair(tmp_path / name, tmp_path / "a.tiff", rawdata.config(), "none") for name in
                     ("part.jpg", "part.png"))  # fmt: skip
    np.testing.assert_array_equal(first.rgb, second.rgb)
    grey = decode_rgb(saved(Image.fromarray(rawdata.rgb(0)).convert("L"), "jpeg"), tmp_path)
    assert grey.shape == (40, 60, 3)


def test_a_jpg_that_viewers_turn_is_refused(tmp_path):
    for turned, refused in ((1, False), (6, True)):
        exif = Image.Exif()
        exif[274] = turned
        content = saved(Image.fromarray(rawdata.rgb(0)), "jpeg", exif=exif)
        if refused:
            with pytest.raises(DataError, match=r"a\.jpg: its EXIF orientation 6 has viewers turn the image"):
                decode_rgb(content, tmp_path / "a.jpg")
        else:
            assert decode_rgb(content, tmp_path).shape == (40, 60, 3)


def test_packed_files_go_through_a_folder_as_plain_ones(tmp_path):
    config = rawdata.config()
    folder = rawdata.write_mvtec3d(tmp_path / "raw")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "plain", config)
    for path in folder.rglob("xyz/*.tiff"):
        path.write_bytes(tiff(tifffile.imread(path), compression="lzw", predictor=3))
    for path in folder.rglob("crack/gt/*.png"):
        path.write_bytes(saved(Image.open(path).convert("RGB").quantize(2)))
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "packed", config)
    plain, packed = (open_dataset("mvtec3d", tmp_path / n, "bracket", "test", config) for n in ("plain", "packed"))
    for first, second in zip(plain, packed, strict=True):
        np.testing.assert_array_equal(first.xyz, second.xyz)
        np.testing.assert_array_equal(first.gt, second.gt)
    for path in (tmp_path / "plain").rglob("*.tiff"):
        assert path.read_bytes() == (tmp_path / "packed" / path.relative_to(tmp_path / "plain")).read_bytes()

"""Masks, tiffs and images as cameras and programs write them: read as what they show, or refused with the reason."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from support import rawdata
from support.scanfiles import POINTS, SCENE, camera, npy, ply_of, saved, tiff

from mafr.data import load_pair, open_dataset, preprocess
from mafr.data.formats import tiffs
from mafr.data.formats.clouds import decode_cloud, decode_depth_image, decode_scan
from mafr.data.formats.images import decode_image, decode_mask, decode_rgb, decode_xyz, encode_xyz
from mafr.errors import DataError

DEFECT = rawdata.mask(True) > 0


# ------------------------------------------------------------ deep colours


def png16(values: np.ndarray) -> bytes:
    """Channels (H, W, 2 to 4) uint16 as a png of 16 bits per channel, which Pillow reads but does not write."""
    height, width, channels = values.shape
    rows = values.astype(">u2").reshape(height, -1).view(np.uint8)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(np.insert(rows, 0, 0, axis=1).tobytes())), (b"IEND", b"")
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("content", [
    png16(np.full((4, 5, 3), 3500)), png16(np.full((4, 5, 4), 3500)), png16(np.full((4, 5, 2), 3500)),
    tiff(np.full((4, 5, 3), 3500, np.uint16)),
], ids=["colours", "with alpha", "grey with alpha", "tiff"])  # fmt: skip
def test_colours_of_more_than_8_bits_are_refused_not_cut(content, tmp_path):
    with pytest.raises(DataError, match=r"a.png: a colour image of 16 bits per channel; 8 bits per channel are expec"):
        decode_rgb(content, tmp_path / "a.png")


def test_images_of_8_bits_and_fewer_are_read(tmp_path):
    colours = rawdata.rgb(0)
    for kind in ("png", "tiff", "bmp"):
        np.testing.assert_array_equal(decode_rgb(saved(Image.fromarray(colours), kind), tmp_path), colours)
    bits = Image.fromarray(DEFECT)
    for kind in ("png", "tiff"):
        np.testing.assert_array_equal(decode_rgb(saved(bits, kind), tmp_path)[..., 0] > 0, DEFECT)


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


# -------------------------------------------------------------- other kinds


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

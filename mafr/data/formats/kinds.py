"""What a file is by its first bytes, whatever its name: for messages about files of another kind than expected."""

# First bytes -> kind; the order matters where one begins as another does.
_BEGINNINGS = {
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x76\x2f\x31\x01": "an OpenEXR image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"GIF8": "a GIF image",
    b"BM": "a BMP image",
    b"II*\0": "a tiff",
    b"MM\0*": "a tiff",
    b"II+\0": "a BigTIFF",
    b"MM\0+": "a BigTIFF",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 image",
    b"Pf": "a PFM image",
    b"PF": "a PFM image",
    b"P5": "a PGM image",
    b"P6": "a PPM image",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file (MATLAB 7.3 too)",
    b"MATLAB 5.0": "a MATLAB file",
    b"LASF": "a LAS point cloud",
    b"ASTM-E57": "an E57 point cloud",
    b"glTF": "a glTF model",
    b"ply\n": "a PLY file",
    b"ply\r": "a PLY file",
    b"# .PCD": "a PCD file",
    b"solid ": "an STL mesh",
    b"OFF": "an OFF mesh",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a zip archive (NumPy's .npz too)",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x80\x02": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
}
_ARRAY = 'numpy.load it and write it by tifffile.imwrite("NAME.tiff", array.astype("float32"))'
_ADVICE = {"a NumPy array (.npy)": _ARRAY, "text in UTF-16": "save it as ASCII or UTF-8"}


def kind_of(content: bytes) -> str:
    """What a file's content is, with an article, as "a JPEG image"; "" where it is not known."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "a WebP image"
    return next((kind for begin, kind in _BEGINNINGS.items() if content.startswith(begin)), "")


def advice_for(kind: str, default: str) -> str:
    """How to turn a file of a kind into what is expected, `default` where no way is known."""
    return _ADVICE.get(kind, default)

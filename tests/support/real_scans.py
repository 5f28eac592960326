"""Real scans for tests: chosen files of the packed sets, unpacked by the sets' own script."""

import importlib.util
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import tifffile
from PIL import Image
from support.places import REAL

MVTEC_RAW, MVTEC_PROCESSED, CANDY_RAW = "cable_gland_raw_part", "cable_gland_processed", "CandyCane_raw_part"


def unpacker() -> ModuleType:
    """The script beside the packed scans, which knows their compression."""
    spec = importlib.util.spec_from_file_location("unpack_real_scans", REAL / "unpack.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def unpack(name: str, root: Path, wanted: Callable[[str], bool] = lambda member: True) -> Path:
    """Write the wanted members of a packed set below `root`, in the set's own layout; returns the set's folder."""
    script = unpacker()
    target = root / script.WHERE[name]
    with tarfile.open(REAL / f"{name}.tar") as tar:
        for member in tar:
            if not wanted(member.name):
                continue
            data, path = tar.extractfile(member).read(), target / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name.endswith(".tiff.xz3"):
                cloud = script.cloud(data)
                tifffile.imwrite(path.with_suffix(""), cloud, photometric="minisblack", planarconfig="contig")
            elif path.name.endswith(".webp"):
                Image.open(io.BytesIO(data)).save(path.with_suffix(""))
            else:
                path.write_bytes(data)
    return target

"""The parts in a folder as it is and as it fills: which files make one, and what is said of the others."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from mafr.config import Config
from mafr.data import load_pair
from mafr.errors import DataError
from mafr.predict import command
from mafr.predict.engine import Scored
from mafr.predict.outputs import Outputs, Places
from mafr.predict.parts import find_parts


def test_parts_are_found_at_any_depth_and_paired_by_name(tmp_path):
    for name in ("rgb/2.png", "rgb/10.jpg", "b/test/good/rgb/u\u0308.png", "b/test/good/xyz/\u00fc.ply", "c/rgb/1.PNG",
                 "c/depth/1.png", "xyz/2.tiff", "xyz/10.tif", "b/intrinsics.json", "c/intrinsics.json", "rgb/._2.png",
                 "gt/2.png", ".trash/rgb/1.png", ".trash/xyz/1.tiff"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = {part.name: part for part in find_parts(tmp_path)}
    assert list(found) == ["2", "10", "b/test/good/\u00fc", "c/1"]
    assert not any(part.error for part in found.values())
    cameras = {name: part.camera and part.camera.relative_to(tmp_path).as_posix() for name, part in found.items()}
    assert cameras == {"2": None, "10": None, "b/test/good/\u00fc": "b/intrinsics.json", "c/1": "c/intrinsics.json"}
    (tmp_path / "xyz" / "2.tif").touch()
    assert "both 2.tif and 2.tiff hold part 2" in find_parts(tmp_path)[0].error
    with pytest.raises(DataError, match="name the folder above"):
        find_parts(tmp_path / "c" / "rgb")


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_a_folder_without_the_other_kind_and_names_in_capitals_are_found(tmp_path):
    touched(tmp_path, "a/rgb/0.png", "a/rgb/1.png", "b/RGB/0.png", "b/Xyz/0.tiff", "c/xyz/0.tiff", "d/DEPTH/2.png",
            "XYZ/rgb/0.png", "XYZ/xyz/0.ply")  # fmt: skip
    found = {part.name: part for part in find_parts(tmp_path)}
    assert list(found) == ["XYZ/0", "a/0", "a/1", "b/0", "c/0", "d/2"]
    assert [name for name, part in found.items() if not part.error] == ["XYZ/0", "b/0"]
    assert found["a/1"].error == f"{tmp_path}/a/rgb/1.png: no xyz/ file of this name beside it; add or remove one"
    assert found["d/2"].error.startswith(f"{tmp_path}/d/DEPTH/2.png: no rgb/ image of this name")
    with pytest.raises(DataError, match=r"no parts; expected are .*a/rgb/0.png: no xyz/ file of this name"):
        find_parts(tmp_path / "a")
    assert len(find_parts(tmp_path / "a", missing_ok=True)) == 2


def test_files_of_kinds_that_are_not_read_are_named(tmp_path):
    touched(tmp_path, "rgb/0.png", "xyz/0.npy", "rgb/1.tiff", "xyz/1.tiff", "rgb/2.bmp", "xyz/2.npz", "rgb/Thumbs.db",
            "rgb/3.png", "rgb/3.txt", "xyz/3.tiff", "z/rgb/0.png", "z/depth/0.exr")  # fmt: skip
    errors = {part.name: part.error for part in find_parts(tmp_path)}
    clouds = "not a kind that is read; in xyz/ these are: .tiff, .tif, .ply, .pcd; convert it"
    assert errors == {
        "0": f"{tmp_path}/xyz/0.npy: {clouds}",
        "1": f"{tmp_path}/rgb/1.tiff: not a kind that is read; in rgb/ these are: .png, .jpg, .jpeg; convert it",
        "2": f"{tmp_path}/xyz/2.npz: {clouds}",
        "3": "",
        "z/0": f"{tmp_path}/z/depth/0.exr: not a kind that is read; in depth/ these are: .png, .tiff, .tif; convert it",
    }


def test_a_cleaned_scan_is_told_of_an_option_that_there_is(tmp_path):
    Image.new("RGB", (60, 60)).save(tmp_path / "a.png")
    cloud = np.zeros((60, 60, 3), np.float32)
    cloud[20:40, 20:40] = 0.1
    tifffile.imwrite(tmp_path / "a.tiff", cloud, photometric="rgb")
    with pytest.raises(DataError) as told:
        load_pair(tmp_path / "a.png", tmp_path / "a.tiff", Config.preset("smoke"), "remove", None)
    assert "too few to find the table plane" in str(told.value)
    assert "`mafr predict` takes a scan that is prepared already with --processed" in str(told.value)


class Reader:
    """Stands for a scorer: it reads and scores nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __call__(self, found):
        return (Scored(part, 0.5, "OK") for part in found)


def test_watching_waits_for_a_folder_that_goes_and_names_what_stayed_alone(tmp_path, capsys):
    folder, away, lines, stop = tmp_path / "parts", tmp_path / "away", [], threading.Event()
    touched(folder, "rgb/0.png", "rgb/1.png", "rgb/2.png")
    steps = iter((
        lambda: folder.rename(away), lambda: None, lambda: None, lambda: away.rename(folder),
        lambda: [(folder / "xyz").mkdir(), (folder / "xyz" / "0.tiff").touch()], lambda: None, lambda: None, stop.set,
    ))  # fmt: skip
    stop.wait = lambda _: next(steps)()
    command.watch_folder(folder, Reader(), Outputs(Places(), 1.0), lines.append, stop, 0.0, 0.0)
    assert [line["name"] for line in lines] == ["0"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and "no such folder" in told[0] and told[0].endswith("; watching goes on when it is back")
    assert told[1].endswith("parts is back")
    assert [line.partition("/rgb/")[2][:5] for line in told[2:]] == ["1.png", "2.png"]
    assert all(line.startswith("mafr: not scored: ") for line in told[2:])

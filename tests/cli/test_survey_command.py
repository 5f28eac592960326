"""`mafr survey` on tiny raw folders: published categories beside generated scans, own ones alone, clear refusals."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from support import rawdata

from mafr.cli import main
from mafr.config import Config
from mafr.data.survey import DEFECT_STATISTICS, STATISTICS
from mafr.data.synthetic import generate
from mafr.experiments.survey import GENERATORS, raw_categories, shown_scans
from mafr.paths import Paths


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data root whose raw folder of MVTec 3D-AD's layout is empty; outputs go to the folder beside it."""
    monkeypatch.setenv("MAFR_HOME", str(tmp_path / "home"))
    (tmp_path / "data/raw/mvtec3d").mkdir(parents=True)
    return tmp_path / "data"


def write_bagels(data):
    """Raw scans under a published name, large enough for generated ones of their size."""
    folder = rawdata.write_mvtec3d(data / "raw/mvtec3d", "bagel")
    for number, path in enumerate(sorted(folder.rglob("*.tiff"))):
        rawdata.write_tiff(path, rawdata.scene(number, 100, 100))
        rawdata.write_png(path.parents[1] / "rgb" / f"{path.stem}.png", rawdata.rgb(number, 100, 100))
        if "test" in path.parts:
            defective = path.parents[1].name != "good"
            rawdata.write_png(path.parents[1] / "gt" / f"{path.stem}.png", rawdata.mask(defective, 100, 100))
    return folder


def survey(data, *options):
    return main(["survey", "--data-root", str(data), "--workers", "1", *options])


def refused(data, capsys, *options):
    assert survey(data, *options) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mafr: ")]
    return line


def test_a_published_category_stands_beside_generated_scans(data, capsys):
    write_bagels(data)
    rawdata.write_mvtec3d(data / "raw/mvtec3d", "widget")
    assert survey(data) == 0
    home, out = data.parent / "home", capsys.readouterr().out
    frame = pd.read_csv(home / "tables/real/scans.csv", na_values="n/a")
    assert list(frame["Category"].unique()) == ["bagel"]
    assert list(frame["Statistic"]) == [one.title for one in (STATISTICS | DEFECT_STATISTICS).values()]
    values = frame.set_index("Statistic")[["real", *GENERATORS]]
    title = STATISTICS["table"].title
    assert values.loc[title, "real"] == pytest.approx(98, abs=1) and 50 < values.loc[title, "generated_second"] < 70
    assert values.loc[DEFECT_STATISTICS["share"].title].notna().all()
    size = values.loc["defect", "real"]
    assert size == pytest.approx(8 * 12 * 1.5**2, rel=0.02)
    text = (home / "tables/real/scans.md").read_text()
    assert text in out and "GENERATED second generator, the demo's size" in text
    assert "bagel, 100 × 100 pixels, 3 training scans and 2 anomalous test scans (a part: 244 and 88" in text
    assert "CC BY-NC-SA 4.0" in text and "masks are measured for the sizes of defects alone" in text
    assert (home / "tables/real/scans.tex").is_file()
    with Image.open(home / "figures/real_scans.png") as picture:
        assert (np.asarray(picture) == (255, 0, 255)).all(axis=2).mean() > 0.004  # pixels without a point
    own = pd.read_csv(home / "tables/own_data/scans.csv")
    assert set(own["Category"]) == {"widget"}


def test_own_scans_are_measured_alone(data, capsys):
    folder = rawdata.write_mvtec3d(data / "raw/mvtec3d", "bracket")  # a generated category's name, and not that
    shutil.rmtree(folder / "test")
    write_bagels(data)
    assert survey(data, "--categories", "bracket") == 0
    home, out = data.parent / "home", capsys.readouterr().out
    frame = pd.read_csv(home / "tables/own_data/scans.csv", na_values="n/a")
    assert [name for name in frame if name in ("real", *GENERATORS)] == ["real"]
    assert frame.set_index("Statistic")["real"].isna()["defect at 224 pixels"]
    assert "GENERATED" not in out and "CC BY" not in out and "Own scans" in out
    assert (home / "figures/own_data/scans.png").is_file()
    assert not (home / "tables/real").exists()


def test_a_scan_without_a_table_needs_plane_none(data, capsys):
    folder = rawdata.write_mvtec3d(data / "raw/mvtec3d", "widget")
    for path in folder.rglob("*.tiff"):
        xyz = rawdata.read_tiff(path)
        xyz[:12] = xyz[-12:] = 0
        xyz[:, :12] = xyz[:, -12:] = 0
        rawdata.write_tiff(path, xyz)
    assert "--plane none" in refused(data, capsys)
    assert survey(data, "--plane", "none") == 0
    frame = pd.read_csv(data.parent / "home/tables/own_data/scans.csv", na_values="n/a").set_index("Statistic")
    assert np.isnan(frame.loc["noise of the table", "real"]) and frame.loc["pixels with a point, raw", "real"] < 40


def test_what_is_missing_is_named(data, capsys):
    said = refused(data, capsys)
    assert str(data / "raw/mvtec3d") in said and "no category folders" in said
    shutil.rmtree(data / "raw")
    said = refused(data, capsys)
    assert f"{data / 'raw/mvtec3d'}: no such folder" in said
    assert "<category>/{train,validation,test}" in said and "mafr data mvtec3d --data-root" in said
    folder = rawdata.write_mvtec3d(data / "raw/mvtec3d", "bagel")
    assert "unknown category 'bagle'" in refused(data, capsys, "--categories", "bagle")
    assert "--workers must be at least 1" in refused(data, capsys, "--workers", "0")
    assert "names no category" in refused(data, capsys, "--categories", ",")
    shutil.rmtree(folder / "train")
    assert f"{folder}: no training scans" in refused(data, capsys)


def test_generated_scans_never_stand_for_real_ones(data, capsys):
    small = {"raw_side": 60, "mvtec3d_train": 1, "validation_count": 1, "test_good": 1, "test_defective": 1}
    generate("mvtec3d", data / "raw/mvtec3d", Config.preset("smoke", overrides=small), ["bagel"])
    assert "these scans were generated" in refused(data, capsys)
    assert not (data.parent / "home").exists()


def test_the_picture_shows_the_first_scan_and_the_first_of_three_defects(data):
    folder = write_bagels(data)
    paths = Paths("", "demo", data_root=data)
    shown = shown_scans(paths, "bagel", raw_categories(paths)["bagel"])
    assert [one.name for one in shown["real"]] == ["good", "crack"]
    np.testing.assert_array_equal(shown["real"][0].xyz, rawdata.read_tiff(folder / "train/good/xyz/000.tiff"))
    np.testing.assert_array_equal(shown["real"][1].xyz, rawdata.read_tiff(folder / "test/crack/xyz/009.tiff"))
    for generator in ("first", "second"):
        assert [one.name for one in shown[generator]] == ["good", "combined", "contamination", "crack"]
        assert [bool(one.gt.any()) for one in shown[generator]] == [False, True, True, True]
        assert shown[generator][0].xyz.shape == (100, 100, 3)

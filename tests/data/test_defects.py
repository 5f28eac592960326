"""Test sets that cannot be measured, or of which the sample size hides something: said before the training."""

import shutil

import numpy as np
import pytest
from support import rawdata

from mafr.cli import main
from mafr.data import open_dataset, preprocess
from mafr.data.defects import check_test_set, defects_of
from mafr.errors import DataError


def _test_set(tmp_path, masks: dict[str, np.ndarray], size: int = 28, folder: str = "crack"):
    """A category of 200 x 200 pixels whose masks are given by number, at `size`."""
    base = tmp_path / "raw/bracket"
    for split, defect, names in (("train", "good", "01"), ("validation", "good", "0"), ("test", "good", "0"),
                                 ("test", folder, masks)):  # fmt: skip
        for name in names:
            rawdata.write_png(base / split / defect / f"rgb/{name}.png", rawdata.rgb(0, 200, 200))
            rawdata.write_tiff(base / split / defect / f"xyz/{name}.tiff", rawdata.scene(0, 200, 200) * np.float32(0.3))
            if defect != "good":
                rawdata.write_png(base / split / defect / f"gt/{name}.png", masks[name])
    config = rawdata.config(image_size=size, plane="none")
    preprocess("mvtec3d", tmp_path / "raw", tmp_path / "out", config)
    return open_dataset("mvtec3d", tmp_path / "out", "bracket", "test", config)


def _mask(*corners: tuple[int, int, int]) -> np.ndarray:
    """A mask of 200 x 200 with squares at (row, column) of a side."""
    values = np.zeros((200, 200), np.uint8)
    for row, column, side in corners:
        values[row : row + side, column : column + side] = 255
    return values


def test_defects_that_leave_no_pixel_are_counted_by_region(tmp_path, capsys):
    test = _test_set(tmp_path, {"0": _mask((50, 50, 40), (8, 8, 2), (120, 8, 2)), "1": _mask((8, 8, 2)),
                                "2": _mask((50, 50, 40))})  # fmt: skip
    counts = [(one.count, one.lost) for one in (defects_of(entry, test.rules) for entry in test.entries[:3])]
    assert counts == [(3, 2), (1, 1), (1, 0)]
    capsys.readouterr()
    check_test_set(test)
    error = capsys.readouterr().err
    assert "bracket: 3 of 5 defects leave no pixel at 28 x 28" in error
    assert "one pixel there is 7.1 of the scan's (in test/crack/0, test/crack/1)" in error


def test_a_folder_whose_defects_all_vanish_names_the_size(tmp_path, capsys):
    test = _test_set(tmp_path, {"0": _mask((8, 8, 2)), "1": _mask((50, 8, 2))})
    with pytest.raises(DataError, match=r"crack: none of its 2 defects leaves a pixel at 28 x 28: one .* is 7.1"):
        check_test_set(test)
    larger = open_dataset("mvtec3d", tmp_path / "out", "bracket", "test", rawdata.config(image_size=210, plane="none"))
    check_test_set(larger)
    assert "leave no pixel" not in capsys.readouterr().err


def test_a_damaged_processed_cloud_is_one_error_and_no_remark_of_the_reader(tmp_path, caplog):
    test = _test_set(tmp_path, {"0": _mask((50, 50, 40))})
    cloud = test.entries[0].xyz
    content = cloud.read_bytes()
    for damaged in (content[:4] + b"\xff\xff\xff\x7f" + content[8:], content[:50], b""):
        cloud.write_bytes(damaged)
        with pytest.raises(DataError, match=r"0.tiff: not a complete tiff; delete it and preprocess again"):
            defects_of(test.entries[0], test.rules)
    assert not caplog.records


def test_empty_masks_are_another_matter(tmp_path):
    with pytest.raises(DataError, match=r"crack: all masks are empty; mark the defects, or move samples"):
        check_test_set(_test_set(tmp_path, {"0": _mask()}))


@pytest.mark.parametrize(("gone", "kind"), [("good", "good"), ("crack", "defective")])
def test_a_test_folder_of_one_kind_is_said_before_the_training(gone, kind, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MAFR_HOME", str(tmp_path / "home"))
    shutil.rmtree(rawdata.write_mvtec3d(tmp_path / "raw/mvtec3d") / "test" / gone)
    data = ["data", "mvtec3d", "--root", str(tmp_path), "--workers", "1"]
    assert main(data) == 0
    assert f"bracket: no {kind} test samples: `mafr fit` and `mafr predict` need none" in capsys.readouterr().err
    test = open_dataset("mvtec3d", tmp_path / "processed/mvtec3d", "bracket", "test", rawdata.config())
    with pytest.raises(DataError, match=r"/test: no (good|anomalous) samples, and metrics compare"):
        check_test_set(test)


def test_a_run_checks_its_test_set_before_it_trains(tmp_path, monkeypatch):
    from mafr.experiments import execute as module
    from mafr.experiments.plan import Run
    from mafr.features.sources.splits import Split
    from mafr.paths import Paths

    test = _test_set(tmp_path, {"0": _mask((8, 8, 2))})
    splits = {name: Split(test, None) for name in ("train", "validation", "test")}
    monkeypatch.setattr(module, "run_splits", lambda *_, **__: splits)
    monkeypatch.setattr(module, "finished_record", lambda *_, **__: None)
    monkeypatch.setattr(module, "data_fingerprint", lambda *_: pytest.fail("went on to train"))
    with pytest.raises(DataError, match="leaves a pixel at 28 x 28"):
        module.execute(Run("mvtec3d", "bracket", rawdata.config()), Paths.resolve("smoke", tmp_path))

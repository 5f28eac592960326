"""Statistics of raw scans, on hand-made scans of which each is known, and on real ones where they are."""

from pathlib import Path

import numpy as np
import pytest
from support.places import needs_real
from support.real_scans import MVTEC_RAW, unpack

from mafr.data.formats.images import decode_xyz, read_bytes
from mafr.data.survey import (
    DEFECT_STATISTICS,
    STATISTICS,
    medians,
    pixel_size,
    raggedness,
    survey_defect,
    survey_scan,
)
from mafr.data.synthetic.mvtec.write import make_scan
from mafr.errors import DataError

PATH = Path("scan.tiff")
SIDE, PIXEL, RADIUS = 160, 0.5, 20.0  # pixels, mm, mm
TABLE, TOP = 500.0, 480.0  # mm from the camera


def places(side=SIDE, pixel=PIXEL):
    """x and y of each pixel, mm."""
    y, x = (np.mgrid[:side, :side] - (side - 1) / 2) * pixel
    return x, y


def disc(side=SIDE, pixel=PIXEL):
    return np.hypot(*places(side, pixel)) < RADIUS


def scan(part=None, top=TOP, missing=None, noise=1e-3, table_noise=1e-3, side=SIDE, pixel=PIXEL):
    """A flat part on a table, seen from above; noises in mm along z. (H, W, 3) metres."""
    x, y = places(side, pixel)
    part = disc(side, pixel) if part is None else part
    rng = np.random.default_rng(0)
    z = np.where(part, top, TABLE) + rng.normal(0, 1, x.shape) * np.where(part, noise, table_noise)
    xyz = np.stack([x, y, z], axis=2) * 1e-3
    if missing is not None:
        xyz[missing] = 0
    return xyz.astype(np.float32)


def found(**how):
    return survey_scan(scan(**how), PATH)


def test_a_whole_part_on_a_whole_table():
    values = found()
    share, inside = 100 * disc().mean(), np.flatnonzero(disc().any(axis=0))
    assert list(values) == list(STATISTICS)
    assert values["valid"] == values["table"] == 100
    assert values["kept"] == values["outline"] == pytest.approx(share)
    assert values["frame"] == pytest.approx(100 * (np.ptp(inside) + 1) ** 2 / SIDE**2)
    assert (values["gaps"], values["holes"], values["hole_largest"], values["strays"]) == (0, 0, 0, 0)
    assert values["points"] == pytest.approx(disc().sum() * (224 / 200) ** 2, rel=0.02)  # padded to 200 pixels
    assert values["ragged"] < 0.1 * PIXEL
    nothing = {name for name, value in values.items() if np.isnan(value)}
    assert nothing == {"hole_median", "noise_30", "noise_50"}  # no gap, no slope


def test_the_noise_of_part_and_table_are_told_apart():
    values = found(noise=0.02, table_noise=0.08)
    assert values["noise_0"] == pytest.approx(20, rel=0.05)
    assert values["noise_table"] == pytest.approx(80, rel=0.05)
    assert np.isnan(values["noise_30"])


@pytest.mark.parametrize(("degrees", "name"), [(40, "noise_30"), (60, "noise_50")])
def test_noise_is_sorted_by_the_angle_between_surface_and_ray(degrees, name):
    x, _ = places()
    values = found(part=np.abs(x) < 8, top=TABLE - 30 + x * np.tan(np.radians(degrees)), noise=0.02)
    assert values[name] == pytest.approx(20, rel=0.1)
    assert all(np.isnan(values[other]) for other in ("noise_0", "noise_30", "noise_50") if other != name)


def test_curvature_is_no_noise():
    x, y = places()
    values = found(top=TOP + (x * x + y * y) / 60, noise=0.005)
    assert values["noise_0"] == pytest.approx(5, rel=0.1)


def test_gaps_of_the_table_are_not_the_parts():
    lost = np.random.default_rng(1).random((SIDE, SIDE)) < 0.4
    values = found(missing=lost & ~disc())
    assert values["table"] == pytest.approx(60, abs=1)
    assert values["valid"] == pytest.approx(100 - 40 * (1 - disc().mean()), abs=1)
    assert values["gaps"] == 0 and values["kept"] == pytest.approx(100 * disc().mean())


def test_holes_are_counted_and_measured_in_mm():
    missing = np.zeros((SIDE, SIDE), bool)
    missing[70:76, 60:70] = True
    missing[90:100:2, 70:90:2] = True
    values = found(missing=missing)
    assert values["holes"] == 51
    assert values["gaps"] == pytest.approx(100 * 110 / disc().sum())
    assert values["hole_largest"] == pytest.approx(60 * PIXEL**2, rel=0.01)
    assert values["hole_median"] == values["hole_largest"]  # 60 of 110 missing pixels lie in it
    missing[72, 60:70] = False  # cut into two of 20 and 30 pixels
    assert found(missing=missing)["hole_median"] == pytest.approx(PIXEL**2, rel=0.01)


def test_a_hole_that_shows_the_table_belongs_to_the_outline():
    ring = disc() & (np.hypot(*places()) > 8)
    values = found(part=ring)
    assert values["outline"] == pytest.approx(100 * ring.mean()) and values["gaps"] == 0
    hidden = found(missing=disc() & ~ring)  # a dark middle, where nothing is measured
    assert hidden["outline"] == pytest.approx(100 * disc().mean()) and hidden["gaps"] > 10


def rough(pixel, width):
    """A disc whose radius is smooth over a mm of its rim and moves by `width` mm (standard deviation)."""
    x, y = places(round(48 / pixel), pixel)
    turns = np.arange(60, 140, 4)
    phases = np.random.default_rng(2).uniform(0, 2 * np.pi, len(turns))
    angle = np.arctan2(y, x)[..., None]
    wave = np.cos(angle * turns + phases).sum(axis=2) * np.sqrt(2 / len(turns))
    return np.hypot(x, y) < RADIUS + width * wave


def test_raggedness_grows_with_the_rims_roughness_whatever_the_resolution():
    widths = {p: [raggedness(rough(p, w), rough(p, w), p) for w in (0, 0.2, 0.4)] for p in (0.125, 0.25)}
    for smooth, some, more in widths.values():
        assert smooth < 0.02 and some > 3 * smooth and 1.5 * some < more < 2.5 * some
    for fine, coarse in list(zip(*widths.values(), strict=True))[1:]:
        assert coarse == pytest.approx(fine, rel=0.25)
    # A rim that moves by a normal 0.2 mm leaves its middle by 0.2 * sqrt(2 / pi) on average.
    assert widths[0.125][1] == pytest.approx(0.2 * np.sqrt(2 / np.pi), rel=0.25)


def test_raggedness_knows_missing_rims_from_shape_and_from_inner_holes():
    smooth, rng = disc(), np.random.default_rng(3)
    whole = raggedness(smooth, smooth, PIXEL)
    rim = smooth & (np.hypot(*places()) > RADIUS - PIXEL)
    worn = smooth & ~(rim & (rng.random(smooth.shape) < 0.5))
    assert raggedness(worn, smooth, PIXEL) > whole + 0.2 * PIXEL
    inner = smooth & ~((np.hypot(*places()) < 15) & (rng.random(smooth.shape) < 0.2))
    assert raggedness(inner, smooth, PIXEL) == pytest.approx(whole)
    x, y = places()
    notched = smooth & ~((np.abs(x) < 5) & (y < -10))
    assert raggedness(notched, notched, PIXEL) < whole + 0.1 * PIXEL
    full = np.ones_like(smooth)
    assert np.isnan(raggedness(full, full, PIXEL))  # no rim within the image


def test_strays_hang_in_the_air_and_slopes_do_not():
    rim = disc() & (np.hypot(*places()) > RADIUS - PIXEL)
    chosen = np.argwhere(rim)[::20]
    top = np.full((SIDE, SIDE), TOP)
    top[tuple(chosen.T)] += 4
    # The rim is what lies within half a mm, here one pixel and its diagonal neighbours.
    assert found(top=top)["strays"] == pytest.approx(100 * len(chosen) / rim.sum(), rel=0.4)
    x, _ = places()
    steep = TABLE - 30 + x * np.tan(np.radians(80))
    assert found(part=np.abs(x) < 3, top=steep)["strays"] == 0


def test_a_scan_without_a_table_lacks_what_is_said_of_it():
    values = survey_scan(scan(missing=~disc()), PATH, plane="none")
    assert np.isnan(values["table"]) and np.isnan(values["noise_table"])
    assert values["kept"] == values["valid"] == pytest.approx(100 * disc().mean())


def test_scans_that_cannot_be_measured_are_named():
    with pytest.raises(DataError, match=r"scan\.tiff: no part is left"):
        survey_scan(scan(part=np.zeros((SIDE, SIDE), bool)), PATH)
    lonely = np.ones((SIDE, SIDE), bool)
    lonely[::2, ::2] = False
    with pytest.raises(DataError, match=r"scan\.tiff: no two neighbouring pixels"):
        survey_scan(scan(missing=lonely), PATH, plane="none")


def test_scans_that_are_not_square_are_padded_as_the_pipeline_pads_them():
    wide = scan()[30:130]
    values = survey_scan(wide, PATH)
    assert values["points"] == pytest.approx(disc().sum() * (224 / 200) ** 2, rel=0.02)
    assert values["outline"] == pytest.approx(100 * disc()[30:130].mean())


def test_a_pixel_is_measured_across_the_ray():
    x, _ = places()
    slope = scan(part=np.abs(x) < 8, top=TABLE - 30 + x)
    assert pixel_size(slope, np.abs(x) < 8) == pytest.approx(PIXEL, rel=0.03)
    assert np.isnan(pixel_size(slope, np.zeros((SIDE, SIDE), bool)))


def test_the_size_of_a_defect():
    gt = np.zeros((SIDE, SIDE), bool)
    gt[80:90, 80:88] = True
    values = survey_defect(gt, scan(), PATH)
    scale = 224 / 200  # padded to the next multiple of 100
    assert list(values) == list(DEFECT_STATISTICS)
    assert values["area"] == pytest.approx(80 * PIXEL**2, rel=0.01)
    assert values["share"] == pytest.approx(100 * 80 / disc().sum())
    assert values["pixels"] == pytest.approx(80 * scale**2, rel=0.1)
    # From pixel 100 of 200 on, that is from the edge of a cell: 11 and 9 pixels of the resized image.
    assert values["cells"] == 2 * 2
    gt[80:90, 80:104] = True
    wider = survey_defect(gt, scan(), PATH)
    assert all(wider[name] > values[name] for name in values)


def test_medians_leave_out_what_a_scan_does_not_have():
    some = [{"a": 1.0, "b": np.nan}, {"a": np.nan, "b": np.nan}, {"a": 4.0, "b": np.nan}]
    table = medians(some, ("a", "b"))
    assert table["a"] == 2.5 and np.isnan(table["b"])
    assert np.isnan(medians([], ("a",))["a"])


@needs_real
def test_the_second_generator_is_nearer_to_real_scans_than_the_first(tmp_path):
    root = unpack(MVTEC_RAW, tmp_path, lambda name: "train/good/xyz/00" in name and int(name.split("/00")[1][0]) < 4)
    clouds = [decode_xyz(read_bytes(path), path) for path in sorted(root.rglob("*.tiff*"))[:4]]
    assert len(clouds) == 4
    real = medians([survey_scan(xyz, PATH) for xyz in clouds], STATISTICS)
    made = {}
    for which in ("first", "second"):
        scans = [make_scan("cable_gland", "train", "good", k, 400, generator=which) for k in range(4)]
        made[which] = medians([survey_scan(one.xyz, PATH) for one in scans], STATISTICS)
    for name in ("valid", "table", "gaps", "ragged", "noise_0", "noise_30", "noise_50", "noise_table"):
        first, second = (abs(np.log(made[which][name] / real[name])) for which in ("first", "second"))
        assert second < first, f"{name}: {made['first'][name]:.3g}, {made['second'][name]:.3g}, real {real[name]:.3g}"

"""The transcribed numbers of other papers against what can be recomputed from them."""

import pytest

from mafr.baselines.registry import METHODS
from mafr.config import CATEGORIES
from mafr.tables.published import TABLE_1
from mafr.tables.published_others import AST_DEPTH, FEATURE_STUDY, STUDY_METRICS, STUDY_TITLES

ROWS = ["RGB iNet", "Depth iNet", "Raw", "HoG", "SIFT", "FPFH", "RGB + FPFH"]


def test_rows_metrics_and_categories():
    assert list(FEATURE_STUDY) == ROWS
    for row in FEATURE_STUDY.values():
        assert tuple(row) == STUDY_METRICS
        assert all(tuple(cells) == (*CATEGORIES["mvtec3d"], "mean") for cells in row.values())
        values = [value for cells in row.values() for value in cells.values()]
        assert all(0 < value < 1 and value == round(value, 3) for value in values)
    assert set(STUDY_TITLES) <= set(METHODS) and set(STUDY_TITLES.values()) < set(ROWS)


@pytest.mark.parametrize("metric", STUDY_METRICS)
@pytest.mark.parametrize("row", ROWS)
def test_printed_means_are_those_of_their_rows(row, metric):
    # All 21 agree, which also guards the transcription: the printed mean is a checksum of its row.
    *values, printed = FEATURE_STUDY[row][metric].values()
    assert abs(sum(values) / len(values) - printed) <= 0.0005 + 1e-9


def test_spot_values_and_the_other_run_of_btf():
    fpfh, both = FEATURE_STUDY["FPFH"], FEATURE_STUDY["RGB + FPFH"]
    assert [fpfh[metric]["cable_gland"] for metric in STUDY_METRICS] == [0.534, 0.965, 0.878]
    assert [both[metric]["tire"] for metric in STUDY_METRICS] == [0.881, 0.995, 0.972]
    cable_gland = CATEGORIES["mvtec3d"].index("cable_gland")
    assert (both["i_auroc"]["mean"], TABLE_1["BTF"][-1]) == (0.878, 0.865)
    assert (both["i_auroc"]["cable_gland"], TABLE_1["BTF"][cable_gland]) == (0.770, 0.748)
    assert AST_DEPTH["cable_gland"] == (0.576, 0.069) and AST_DEPTH["mean"][0] == 0.833
    assert set(AST_DEPTH) <= {*CATEGORIES["mvtec3d"], "mean"}

"""The transcribed tables against what can be recomputed from them, and against spot values of the text."""

import pytest

from mafr.config import CATEGORIES, FUSIONS, LOSS_TERMS
from mafr.tables import published as paper


@pytest.mark.parametrize(("number", "rows", "methods"), [(1, paper.TABLE_1, 11), (2, paper.TABLE_2, 7)])
def test_rows_and_columns(number, rows, methods):
    dataset = {1: "mvtec3d", 2: "eyecandies"}[number]
    assert len(rows) == methods
    assert all(len(values) == 11 for values in rows.values())
    named = paper.by_category(number)
    assert list(named) == list(rows)
    assert all(tuple(row) == (*CATEGORIES[dataset], "mean") for row in named.values())
    assert set(paper.HEADINGS) >= set(CATEGORIES[dataset])


def test_every_value_is_a_three_decimal_share():
    values = [v for rows in (paper.TABLE_1, paper.TABLE_2) for row in rows.values() for v in row]
    values += [v for row in paper.TABLE_3.values() for cells in row.values() for v in cells]
    values += [v for rows in (paper.TABLE_4, paper.TABLE_5) for row in rows.values() for v in row]
    assert len(values) == 11 * 11 + 7 * 11 + 5 * 16 + 4 * 4 + 5 * 4
    assert all(0 <= v <= 1 and v == round(v, 3) for v in values)


def test_only_the_means_of_mafr_disagree():
    # This also guards the transcription: the printed mean is a checksum of its row.
    off = {}
    for table, rows in (("I", paper.TABLE_1), ("II", paper.TABLE_2)):
        for method, (*cells, printed) in rows.items():
            mean = sum(cells) / 10
            if abs(mean - printed) > 0.0005 + 1e-9:
                off[table, method] = (round(mean, 4), printed)
    assert off == {("I", "MAFR"): (0.9728, 0.972), ("II", "MAFR"): (0.9018, 0.901)}


def test_tables_3_to_5_have_their_rows():
    assert list(paper.TABLE_3) == ["BTF", "AST", "M3DM", "CFM", "MAFR"]
    assert all(tuple(row) == paper.METRICS for row in paper.TABLE_3.values())
    assert all(len(cells) == len(paper.SHOTS) == 4 for row in paper.TABLE_3.values() for cells in row.values())
    assert [len(terms) for terms in paper.TABLE_4] == [1, 1, 1, 3]
    assert {term for terms in paper.TABLE_4 for term in terms} == set(LOSS_TERMS)
    assert set(paper.TABLE_5) == set(FUSIONS)


def test_full_columns_of_table_3_are_the_means_of_table_1():
    for method, row in paper.TABLE_3.items():
        assert row["i_auroc"][-1] == paper.TABLE_1[method][-1]


def test_numbers_the_text_repeats():
    # Sec. V-B and V-C quote these.
    three, five = paper.TABLE_3, paper.TABLE_5
    assert three["MAFR"]["i_auroc"][0::2] == (0.824, 0.920) and three["M3DM"]["i_auroc"][0::2] == (
        0.822,
        0.907,
    )
    assert three["MAFR"]["aupro_30"][:3] == (0.945, 0.951, 0.968)
    assert three["CFM"]["aupro_30"][:3] == (0.949, 0.954, 0.965)
    assert three["MAFR"]["aupro_01"] == (0.382, 0.383, 0.436, 0.462)
    assert (three["CFM"]["aupro_01"][2], three["CFM"]["aupro_01"][3]) == (0.431, 0.455)
    assert three["MAFR"]["p_auroc"][0] - three["CFM"]["p_auroc"][0] == pytest.approx(0.001)
    assert three["MAFR"]["p_auroc"][2] - three["CFM"]["p_auroc"][2] == pytest.approx(0.007)
    assert [paper.TABLE_4[terms][0] for terms in (("sim",), ("smooth",), ("census",))] == [
        0.540,
        0.566,
        0.957,
    ]
    assert [five[how][0] for how in ("rgb", "xyz", "sum", "product")] == [0.847, 0.802, 0.920, 0.972]


def test_inconsistencies_are_the_known_ones():
    records = paper.inconsistencies()
    found = [(r["kind"], r["tables"], r["metric"], tuple(r["values"].values())) for r in records]
    assert found == [
        ("mean", ("I",), "i_auroc", (0.9728, 0.972)),
        ("mean", ("II",), "i_auroc", (0.9018, 0.901)),
        ("full model", ("III", "IV", "V"), "p_auroc", (0.993, 0.992, 0.992)),
        ("full model", ("III", "IV", "V"), "aupro_30", (0.970, 0.968, 0.968)),
        ("full model", ("III", "IV", "V"), "aupro_01", (0.462, 0.462, 0.457)),
        ("shots", ("III",), "p_auroc", (0.987, 0.983)),
        ("shots", ("III",), "p_auroc", (0.998, 0.993)),
    ]
    assert all(r["method"] == "MAFR" for r in records)
    assert records[0]["text"] == "Table I, MAFR: the row's mean is 0.9728, printed is 0.972."
    assert "0.993 in Table III, 0.992 in Table IV" in records[2]["text"]
    assert "0.998 (50-shot) and 0.993 (all)" in records[-1]["text"]

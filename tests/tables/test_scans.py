"""The table of raw scans, from invented statistics."""

import math

from mafr.data.survey import DEFECT_STATISTICS, STATISTICS
from mafr.experiments.survey import GENERATORS, REAL, Surveyed
from mafr.tables.scans import scans_table


def surveyed(category, train=3, defective=2, columns=(REAL, *GENERATORS)):
    values = dict.fromkeys((*STATISTICS, *DEFECT_STATISTICS), 1.23456) | {"noise_50": math.nan, "points": 4321.0}
    return Surveyed(category, (400, 300), train, defective, dict.fromkeys(columns, values))


def test_each_statistic_has_its_decimals_and_a_dash_where_there_is_none():
    lines = scans_table([surveyed("rope")]).to_markdown().splitlines()
    cells = {line.split(" | ")[1]: line.rstrip("| ").split(" | ")[3:] for line in lines if line.startswith("| rope")}
    assert cells[STATISTICS["ragged"].title] == ["1.235"] * 4
    assert cells[STATISTICS["hole_largest"].title] == ["1.23"] * 4
    assert cells[STATISTICS["valid"].title] == ["1.2"] * 4
    assert cells[STATISTICS["points"].title] == ["4321"] * 4
    assert cells[STATISTICS["noise_50"].title] == ["—"] * 4
    assert len(cells) == len(STATISTICS) + len(DEFECT_STATISTICS)
    csv = scans_table([surveyed("rope")]).to_csv()
    assert "1.23456" in csv and "n/a" in csv


def test_generated_columns_are_marked_and_real_ones_have_their_source():
    table = scans_table([surveyed("rope"), surveyed("tire", train=210, defective=87)])
    text, tex = table.to_markdown(), table.to_latex()
    assert text.count("GENERATED ") >= 3 and r"\multicolumn{3}{c}{GENERATED}" in tex
    assert "rope, 400 × 300 pixels, 3 training scans and 2 anomalous test scans (a part: 298 and 69 are" in text
    assert "210 training scans and 87 anomalous test scans." in text
    assert "(c) MVTec Software GmbH, CC BY-NC-SA 4.0" in text
    assert set(table.frame["data"]) == {"measured on real and generated raw scans"}
    assert r"mm$^2$" in tex and r"$\mu$m" in tex and tex.isascii()


def test_own_scans_have_neither():
    table = scans_table([surveyed("bracket", columns=(REAL,))])
    text = table.to_markdown()
    assert "GENERATED" not in text and "MVTec" not in text and "Own scans: bracket" in text
    assert [column.name for column in table.columns] == [REAL]
    assert set(table.frame["data"]) == {"measured on own raw scans"}

"""Verdicts on the paper's claims: the rules, and that each committed one says what its table says."""

import re

import nbformat
import pandas as pd
import pytest
from support.places import CHECKOUT

from mafr.errors import ResultError
from mafr.intervals import verdict
from mafr.tables import verdicts
from mafr.tables.verdicts import FAILED, OPEN, RETURNED, Evidence

TABLES = CHECKOUT / "tables"
EXECUTED = CHECKOUT / "notebooks" / "executed"
WITH_VERDICT = (
    "02_method", "03_table1_mvtec3d", "04_table2_eyecandies", "05_table3_few_shot", "07_table5_fusion_ablation",
)  # fmt: skip
NUMBER = r"([+−]?\d\.\d{3})"
PAIRED = re.compile(rf"^(S\d) · ([^·]+) · (.+) against (.+): {NUMBER} \({NUMBER} to {NUMBER}\), (\w+)$")
INTERVAL = re.compile(rf"^S1 · ([^·]+) · ([^·]+) · ([^·]+): {NUMBER} \({NUMBER} to {NUMBER}\)$")


def shown(name: str) -> list[list[str]]:
    """The rows of an executed notebook's verdict: claim, result, evidence."""
    notebook = nbformat.read(EXECUTED / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    cell = next(cell for cell in notebook.cells if cell.id == "verdict")
    text = cell.outputs[0]["data"]["text/markdown"]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]


def number(text: str) -> float:
    return float(text.replace("−", "-"))


@pytest.mark.parametrize("name", WITH_VERDICT)
def test_each_piece_of_evidence_is_in_its_table(name):
    rows = shown(name)
    assert rows
    for claim, result, evidence in rows:
        results = set()
        for line in evidence.split("<br>"):
            if found := PAIRED.match(line):
                table, roman, measured, other, *numbers, said = found.groups()
                frame = pd.read_csv(TABLES / f"table{table}.csv")
                chosen = (frame["Table"] == roman) & (frame["Measured"] == measured) & (frame["Held against"] == other)
                row = frame[chosen].iloc[0]
                values = [row["difference"], row["low"], row["high"]]
                assert said == row["Result"] == verdict(row["low"], row["high"])
            else:
                dataset, category, method, *numbers = INTERVAL.match(line).groups()
                frame = pd.read_csv(TABLES / "tableS1.csv")
                row = frame[
                    (frame["Data set"] == dataset) & (frame["Category"] == category) & (frame["Method"] == method)
                ].iloc[0]
                values = [row["i_auroc"], row["i_auroc_low"], row["i_auroc_high"]]
                said = verdict(row["i_auroc_low"] - 0.5, row["i_auroc_high"] - 0.5)
            assert [number(text) for text in numbers] == pytest.approx(values, abs=0.00051)
            results.add(said)
        expected = {FAILED} if "lower" in results else {RETURNED} if results == {"higher"} else {OPEN}
        if claim.startswith("The released code"):
            expected = {OPEN} if results == {"level"} else {FAILED}
        assert {result.strip("*")} == expected, claim


def test_rules():
    higher, level, lower = (Evidence(result, result) for result in ("higher", "level", "lower"))
    assert verdicts.all_higher("", [higher, higher]).result == RETURNED
    assert verdicts.all_higher("", [higher, level]).result == OPEN
    assert verdicts.all_higher("", [higher, level, lower]).result == FAILED
    assert verdicts.all_level("", [level]).result == OPEN  # level is not proof that two are the same
    assert verdicts.all_level("", [higher]).result == FAILED
    text = verdicts.verdict_table([verdicts.all_higher("A claim", [higher])], "GENERATED")
    assert "| A claim | **returned here** | higher |" in text and text.startswith("**GENERATED**")


def test_missing_tables_and_rows_are_named(tmp_path):
    with pytest.raises(ResultError, match=r"tableS5.csv is missing; `mafr tables`"):
        verdicts.paired(tmp_path, "I", "AST")
    with pytest.raises(ResultError, match="held against nothing"):
        verdicts.paired(TABLES, "I", "nothing")
    with pytest.raises(ResultError, match="no row of"):
        verdicts.interval(TABLES, "MVTec 3D-AD stand-in", "bagel", "nothing")

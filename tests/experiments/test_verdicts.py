"""Verdicts on the paper's claims: the rules, and that each committed one says what its table says."""

import json
import re

import nbformat
import pandas as pd
import pytest
from support.places import CHECKOUT

from mafr.errors import ResultError
from mafr.intervals import LOWER, verdict
from mafr.tables import verdicts
from mafr.tables.published import METRIC_TITLES
from mafr.tables.verdicts import ANSWERS, BARELY, FAILED, OPEN, RETURNED, UNTESTED, Evidence

TABLES = CHECKOUT / "tables"
EXECUTED = CHECKOUT / "notebooks" / "executed"
WITH_VERDICT = (
    "02_method", "03_table1_mvtec3d", "04_table2_eyecandies", "05_table3_few_shot", "06_table4_loss_ablation",
    "07_table5_fusion_ablation", "08_figure2_qualitative", "10_paper_and_code", "11_compared_methods", "12_full_size",
)  # fmt: skip
NUMBER = r"([+−]?\d\.\d{3})"
ENDS = rf"{NUMBER} \({NUMBER} to {NUMBER}\)"
SPREAD = re.compile(rf"^(S5 .*), (\w+) \(S4: seeds deviate by {NUMBER}\)$")
PAIRED = re.compile(rf"^(S\d) · ([^·]+) · (.+) against (.+): {ENDS}, (\w+)$")
INTERVAL = re.compile(rf"^S1 · ([^·]+) · ([^·]+) · ([^·]+): {ENDS}$")
CHANGE = re.compile(rf"^S8 · (\w+) · (\w+) = ([^:]+): {ENDS}, (\w+)$")
CORRECTED = re.compile(rf"^S9 · (\w+) · ([^·]+) · (.+) against (as trained|all three): {ENDS}, (\w+)$")
MEAN = re.compile(rf"^S2 · ([^·]+) · mean · (.+): {NUMBER}$")
FUSED = re.compile(rf"^V · (.+) · ([PA][^·]+): {NUMBER}$")
COST = re.compile(r"^cost · ([^·]+) · mean · ([^·]+) · (.+): (\d+\.\d{3}), (\d+\.\d\d) times that of (.+)$")
STEPS = re.compile(r"^(\w+)\.json · (\w+) · (.+) against (.+): (\d+\.\d\d) / (\d+\.\d\d) ms, (\d+\.\d\d) times$")
ALONE = re.compile(r"^no intervals; the means alone speak (for|against) it$")
ABSENT = "its table is not here"


def shown(name: str) -> list[list[str]]:
    """The rows of an executed notebook's verdict: claim, result, evidence."""
    notebook = nbformat.read(EXECUTED / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    cell = next(cell for cell in notebook.cells if cell.id == "verdict")
    text = cell.outputs[0]["data"]["text/markdown"]
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def table(name: str, prefix: str = "table", **cells: str) -> pd.Series:
    """The one row of a committed table with these cells."""
    frame = pd.read_csv(TABLES / f"{prefix}{name}.csv", na_values="n/a", keep_default_na=False)
    for column, value in cells.items():
        frame = frame[frame[column.replace("_", " ")] == value]
    assert len(frame) == 1, (name, cells)
    return frame.iloc[0]


def checked(line: str) -> str:
    """The result that a line of evidence states, "" for a plain value; its numbers are held against their table."""
    if found := SPREAD.match(line):
        start, said, deviation = found.groups()
        low, high = (abs(number(text)) for text in re.search(rf"\({NUMBER} to {NUMBER}\)", start).groups())
        stored = pd.read_csv(TABLES / "tableS4.csv")["i_auroc_std"]
        assert min(low, high) <= number(deviation) in [pytest.approx(value, abs=0.00051) for value in stored]
        return checked(f"{start}, {said}")
    if found := CORRECTED.match(line):  # before the more general form
        variant, loss, score, against, *numbers, said = found.groups()
        if not (TABLES / "tableS9.csv").exists():
            return said
        row = table("S9", Variant=variant, Loss_function=loss, Score=score)
        columns = [f"{'gain' if against == 'as trained' else 'full'}_{part}" for part in ("mean", "low", "high")]
    elif found := PAIRED.match(line):
        name, roman, measured, other, *numbers, said = found.groups()
        row = table(name, Table=roman, Measured=measured, Held_against=other)
        columns = ["difference", "low", "high"]
    elif found := COST.match(line):
        dataset, what, method, value, ratio, other = found.groups()
        column = next(name for name, text in verdicts.COSTS.items() if text == what)
        mean, of_other = (
            table("cost", prefix="", Data_set=dataset, Category="mean", Method=n)[column] for n in (method, other)
        )
        assert number(value) == pytest.approx(mean, abs=6e-4)
        assert number(ratio) == pytest.approx(mean / of_other, abs=6e-3)
        return ""
    elif found := STEPS.match(line):
        file, way, one, other, *numbers = found.groups()
        steps = json.loads((TABLES / "bench" / f"{file}.json").read_text())["steps"]
        ms = {row["method"]: row["product_ms" if way == "fast" else f"{way}_ms"] for row in steps}
        a, b = ms[one], ms[other]
        assert [number(text) for text in numbers] == pytest.approx([a, b, a / b], abs=6e-3)
        return "higher" if a / b > verdicts.LONGER else "lower" if b / a > verdicts.LONGER else "level"
    elif found := CHANGE.match(line):
        start, changed, value, *numbers, said = found.groups()
        row = table("S8", Start=start, Changed=changed, To=value)
        columns = ["difference_mean", "difference_low", "difference_high"]
    elif found := INTERVAL.match(line):
        dataset, category, method, *numbers = found.groups()
        row = table("S1", Data_set=dataset, Category=category, Method=method)
        columns = ["i_auroc", "i_auroc_low", "i_auroc_high"]
        said = verdict(row[columns[1]] - 0.5, row[columns[2]] - 0.5)
    elif found := FUSED.match(line):
        name, title, value = found.groups()
        metric = next(metric for metric, printed in METRIC_TITLES.items() if printed == title)
        assert number(value) == pytest.approx(table("5", Anomaly_map=name, kind="measured")[metric], abs=0.00051)
        return ""
    else:
        dataset, method, value = MEAN.match(line).groups()
        row = table("S2", Data_set=dataset, Category="mean", Method=method)
        assert number(value) in [pytest.approx(row[name], abs=0.00051) for name in ("aupro_30", "aupro_01")]
        return ""
    assert [number(text) for text in numbers] == pytest.approx(row[columns].tolist(), abs=0.00051), line
    assert said == verdict(*row[columns[1:]]) or "i_auroc" in columns
    if "Result" in row and "gain_mean" not in columns:
        assert said == row["Result"]
    return said


@pytest.mark.parametrize("name", WITH_VERDICT)
def test_each_piece_of_evidence_is_in_its_table_and_decides_the_verdict(name):
    rows = shown(name)
    assert rows
    for claim, result, evidence in rows:
        result = {word: name for name, word in ANSWERS.items()}.get(result.strip("*"), result.strip("*"))
        if result == UNTESTED:
            assert not (evidence == ABSENT and (TABLES / "tableS8.csv").exists())
            continue
        *lines, last = evidence.split("<br>")
        if ALONE.match(last):
            means = [number(line.rsplit(": ", 1)[1]) for line in lines]
            own = next(n for n, line in enumerate(lines) if "MAFR, paper" in line or line.startswith("V · Ψ2D · Ψ3D"))
            highest = means[own] > max(value for n, value in enumerate(means) if n != own)
            assert (ALONE.match(last).group(1) == "for") == highest, claim
        else:
            lines.append(last)
        results = {checked(line) for line in lines}
        if all(COST.match(line) for line in lines):
            ratios = [number(COST.match(line).group(5)) for line in lines]
            assert {RETURNED: min(ratios) >= 1, FAILED: max(ratios) < 1, OPEN: True}[result], claim
            continue
        if "·" in evidence and evidence.startswith("S9"):
            continue  # two findings decide it: the next test
        assert (result == BARELY) == (result in (RETURNED, BARELY) and "(S4: seeds" in evidence), claim
        if result in (RETURNED, BARELY):
            assert len(results) == 1 and results <= {"higher", "lower"}, claim
        elif result == OPEN:
            assert results & {"level", ""}, claim
        else:
            assert result == FAILED and results & {"higher", "lower"}, claim


def test_a_loss_that_a_correction_heals_did_not_lack_features():
    columns = ["Variant", "Loss function", "Score", "Result"]
    columns += [f"{part}_{end}" for part in ("gain", "full") for end in ("mean", "low", "high")]

    def result(gain: float, full: float) -> str:
        said = verdict(full - 0.05, full + 0.05)
        ends = [gain, gain - 0.05, gain + 0.05, full, full - 0.05, full + 0.05]
        rows = [["paper", "L_sim", score, said, *ends] for score in ("by one way", "by another")]
        return verdicts.not_corrected("", pd.DataFrame(rows, columns=columns), "L_sim").result

    assert result(gain=0.4, full=0.0) == FAILED  # the correction helps, and nothing is missing
    assert result(gain=0.4, full=-0.2) == OPEN  # it helps, and something is missing
    assert result(gain=0.0, full=-0.4) == RETURNED  # it does not help


def test_rules():
    higher, level, lower = (Evidence(result, result) for result in ("higher", "level", "lower"))
    assert verdicts.all_higher("", [higher, higher]).result == RETURNED
    assert verdicts.all_higher("", [higher, level]).result == OPEN
    assert verdicts.all_higher("", [higher, level, lower]).result == FAILED
    assert verdicts.all_higher("", [lower], LOWER).result == RETURNED
    assert verdicts.all_higher("", [lower, higher], LOWER).result == FAILED
    assert verdicts.all_higher("", []).result == UNTESTED
    assert verdicts.all_level("", [level]).result == OPEN  # level is not proof that two are the same
    assert verdicts.all_level("", [higher]).result == FAILED
    assert verdicts.all_level("", []).result == UNTESTED
    text = verdicts.verdict_table([verdicts.all_higher("A claim", [higher])], "GENERATED")
    assert "| A claim | **reproduced here** | higher |" in text and text.startswith("**GENERATED**")
    assert text.endswith("*reproduced here*: all evidence speaks for it, intervals included.")
    text = verdicts.verdict_table([verdicts.all_higher("A claim", [higher])], "GENERATED", questions=True)
    assert "| A claim | **yes, here** | higher |" in text and "*yes, here*" in text


def test_an_interval_of_one_training_near_zero_is_barely_enough(tmp_path):
    rows = [["I", "MAFR, paper", other, "higher", 0.05, low, 0.1] for other, low in (("A", 0.006), ("B", 0.008))]
    columns = ["Table", "Measured", "Held against", "Result", "difference", "low", "high"]
    for name in ("S5", "S6"):
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / f"table{name}.csv", index=False)
    before = verdicts.paired(tmp_path, "I", "A")
    assert not before.barely  # no deviation is known
    spread = [["MVTec 3D-AD stand-in", "mean", "MAFR, paper", 0.007], ["Eyecandies", "mean", "MAFR, paper", 0.02]]
    frame = pd.DataFrame(spread, columns=["Data set", "Category", "Method", "i_auroc_std"])
    frame.to_csv(tmp_path / "tableS4.csv", index=False)
    near, far = (verdicts.paired(tmp_path, "I", other) for other in "AB")
    assert near.text.endswith("higher (S4: seeds deviate by 0.007)") and far.text.endswith("higher")
    assert verdicts.all_higher("", [near, far]).result == BARELY and verdicts.all_higher("", [far]).result == RETURNED
    assert not verdicts.paired(tmp_path, "I", "A", name="tableS6").barely  # over seeds already


def test_missing_tables_and_rows_are_named(tmp_path):
    with pytest.raises(ResultError, match=r"tableS5.csv is missing; `mafr tables`"):
        verdicts.paired(tmp_path, "I", "AST")
    with pytest.raises(ResultError, match="held against nothing"):
        verdicts.paired(TABLES, "I", "nothing")
    with pytest.raises(ResultError, match="no row of"):
        verdicts.interval(TABLES, "MVTec 3D-AD stand-in", "bagel", "nothing")


def test_costs_and_times_have_rules_of_their_own(tmp_path):
    frame = pd.DataFrame({"Data set": "D", "Category": "mean", "Method": ["A", "B", "C"], "model_mb": [6.0, 3.0, 2.0]})
    frame.to_csv(tmp_path / "cost.csv", index=False)

    def result(methods: list[str], than: str, factor: float = 1.0, dataset: str = "D") -> str:
        return verdicts.costlier("", tmp_path, dataset, "model_mb", methods, than, factor).result

    assert result(["A", "B"], "C") == RETURNED
    assert result(["A", "B"], "C", factor=2.0) == OPEN
    assert result(["B", "C"], "A") == FAILED
    assert result(["A"], "none") == result(["A"], "C", dataset="other") == UNTESTED
    same = {"general_ms": 1.0, "product_ms": 1.0}
    steps = [{"method": name, "plain_ms": ms, **same} for name, ms in (("a", 2.0), ("b", 1.0))]
    found = verdicts.longer({"x.json": {"steps": steps}, "y.json": {}}, "a", "b")
    assert [one.result for one in found] == ["higher", "level", "level"]
    assert found[0].text == "x.json · plain · a against b: 2.00 / 1.00 ms, 2.00 times"
    assert verdicts.longer({"x.json": {"steps": steps}}, "a", "c") == []

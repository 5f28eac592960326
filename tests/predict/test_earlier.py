"""What a call that goes on takes over from the one before: scored parts, once each, by the same threshold."""

import json

import pytest

from mafr.errors import ConfigError, DataError
from mafr.predict.earlier import FIELDS, csv_line, keep_scored


def written(tmp_path, *rows, objects=None):
    lines, other = tmp_path / "a.csv", tmp_path / "a.jsonl"
    lines.write_text("".join(csv_line(row) for row in (FIELDS, *rows)))
    names = [row[0] for row in rows] if objects is None else objects
    other.write_text("".join(json.dumps({"name": name, "k": k}) + "\n" for k, name in enumerate(names)))
    return lines, other


def test_scores_are_kept_and_errors_come_again(tmp_path):
    rows = (("a", "1.5", "2.0", "OK", ""), ("b", "", "2.0", "error", "cut off"), ("c", "3.0", "2.0", "not OK", ""))
    lines, objects = written(tmp_path, *rows)
    with lines.open("a") as file:
        file.write("d,1.")  # killed here
    with objects.open("a") as file:
        file.write('{"name": "d"')
    assert keep_scored(lines, objects, 2.0) == {"a", "c"}
    assert lines.read_text().splitlines() == [",".join(FIELDS), "a,1.5,2.0,OK,", "c,3.0,2.0,not OK,"]
    assert [json.loads(line)["name"] for line in objects.read_text().splitlines()] == ["a", "c"]


def test_of_a_part_that_came_again_the_last_line_counts(tmp_path):
    rows = (("a", "", "2.0", "error", "cut off"), ("a", "1.0", "2.0", "OK", ""), ("b", "1.0", "2.0", "OK", ""),
            ("b", "", "2.0", "error", "gone"))  # fmt: skip
    lines, objects = written(tmp_path, *rows)
    assert keep_scored(lines, objects, 2.0) == {"a"}
    assert [json.loads(line)["k"] for line in objects.read_text().splitlines()] == [1]


def test_a_line_that_csv_lacks_is_taken_out_of_json_as_well(tmp_path):
    lines, objects = written(tmp_path, ("a", "1.0", "2.0", "OK", ""), objects=["a", "x"])
    assert keep_scored(lines, objects, 2.0) == {"a"} and len(objects.read_text().splitlines()) == 1


def test_scores_of_another_detector_are_refused(tmp_path):
    lines, objects = written(tmp_path, ("a", "1.0", "2.0", "OK", ""))
    with pytest.raises(ConfigError, match=r"a.csv: its scores were held against threshold 2.0, not 2.5; go on with"):
        keep_scored(lines, objects, 2.5)
    assert "a,1.0" in lines.read_text()


def test_nothing_yet_and_something_else(tmp_path):
    assert keep_scored(tmp_path / "none.csv", None, 1.0) == set()
    (tmp_path / "other.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match=r"other.csv: not the lines of an earlier call"):
        keep_scored(tmp_path / "other.csv", None, 1.0)

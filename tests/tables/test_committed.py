"""The line that says how far written tables are from the committed ones."""

import subprocess
from pathlib import Path

import pytest

from mafr.tables.committed import committed_difference

TABLE = """Method,kind,bagel,mean,data,seeds
BTF [8],published,0.918,0.865,as published,
BTF (run here),measured,0.5,0.6,measured on generated data,115
"""


AUTHOR = ("-c", "user.name=a", "-c", "user.email=a@example.org")


def _git(folder: Path, *command: str) -> None:
    subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """A git checkout with a main table, a supplementary one and the costs."""

    tables = tmp_path / "tables"
    tables.mkdir()
    for name in ("table1.csv", "tableS1.csv", "cost.csv"):
        (tables / name).write_text(TABLE)
    _git(tmp_path, "init", "-q")
    _git(tmp_path, "add", ".")
    _git(tmp_path, *AUTHOR, "commit", "-q", "-m", "tables")
    return tmp_path


def test_equal_tables_are_said_to_be_equal(checkout):
    (checkout / "tables" / "cost.csv").write_text("times differ each time\n")
    assert committed_difference(checkout / "tables", checkout) == "mafr: the tables equal the committed ones"


def test_the_largest_difference_is_named_with_its_cell(checkout):
    (checkout / "tables" / "table1.csv").write_text(TABLE.replace("0.5,0.6", "0.45,0.613"))
    line = committed_difference(checkout / "tables", checkout)
    assert "Tables I–V by at most 0.0500 (table1.csv: BTF (run here), bagel)" in line
    assert "supplementary" not in line and "git restore" in line and "\n" not in line


@pytest.mark.parametrize(
    "text",
    [
        TABLE + TABLE.splitlines()[2],
        TABLE.replace("run here", "other"),
        TABLE.replace("0.6", ""),
    ],
)
def test_other_rows_are_not_compared(checkout, text):
    (checkout / "tables" / "tableS1.csv").write_text(text)
    assert "tableS1.csv by other rows or columns" in committed_difference(checkout / "tables", checkout)


def test_other_texts_are_said_apart_and_hide_no_number(checkout):
    text = TABLE.replace("Method,kind", "Method,Result,kind").replace(",published", ",higher,published")
    text = text.replace(",measured,", ",level,measured,")
    tables = checkout / "tables"
    for name in ("tableS8.csv", "tableS9.csv"):
        (tables / name).write_text(text)
    _git(checkout, "add", ".")
    _git(checkout, *AUTHOR, "commit", "-q", "-m", "more tables")
    (tables / "tableS8.csv").write_text(text.replace("level", "lower").replace("115", "116"))
    (tables / "tableS9.csv").write_text(text.replace("level", "lower").replace("0.5,0.6", "0.5,0.7"))
    line = committed_difference(tables, checkout)
    assert "the supplementary ones by at most 0.1000 (tableS9.csv: BTF (run here), mean)" in line
    texts = "Result of 1 row of tableS8.csv, seeds of 1 row of tableS8.csv, Result of 1 row of tableS9.csv"
    assert f"by the text in {texts};" in line and "other rows" not in line


def test_without_committed_tables_nothing_is_said(checkout, tmp_path_factory):
    assert committed_difference(checkout / "tables" / "smoke", checkout) == ""
    plain = tmp_path_factory.mktemp("plain")
    (plain / "table1.csv").write_text(TABLE)
    assert committed_difference(plain, plain) == ""

"""The whole reproduction: it repeats byte for byte, and the README shows what the tables hold."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.places import CHECKOUT

from mafr.cli import main
from mafr.cli.reproduce import make_figures, reproduce
from mafr.config import VARIANTS, Config
from mafr.errors import ConfigError, ResultError
from mafr.experiments.notebooks import run_notebooks
from mafr.experiments.plan import all_runs
from mafr.experiments.run_store import read_records
from mafr.paths import Paths
from mafr.tables.comparison import write_tables
from mafr.tables.readme import BEGIN, END, results_block, update_readme


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("table*")}


def test_the_second_time_nothing_is_computed_and_the_tables_are_the_same(smoke, monkeypatch):
    config, paths = smoke
    before = contents(paths.tables)
    assert {f"table{k}.{kind}" for k in range(1, 6) for kind in ("csv", "md", "tex")} <= set(before)
    monkeypatch.setattr("mafr.method.Method.fit_split", lambda *a: pytest.fail("trained again"))
    monkeypatch.setattr("mafr.features.sources.splits.build_store", lambda *a: pytest.fail("extracted again"))
    reproduce(config, paths, workers=1, stages=("data", "features", "runs", "tables"))
    assert contents(paths.tables) == before


@pytest.mark.parametrize("content", ["[1, 2]", '{"data": "long", "runs": 7.0}', '"text"', "{", "null", "[" * 100_000])
def test_damaged_times_of_stages_begin_again(tmp_path, content):
    path = tmp_path / "runs" / "smoke" / "stages.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert reproduce(Config.preset("smoke"), Paths.resolve("smoke", root=tmp_path), stages=()) == {}
    assert json.loads(path.read_text()) == ({"runs": 7.0} if "runs" in content else {})


def test_tables_do_not_depend_on_where_runs_come_from(smoke, tmp_path):
    """Everything again in another folder, from the generator on: the same bytes."""
    config, paths = smoke
    one = replace(config, mvtec3d_categories=("bagel",), eyecandies_categories=("Lollipop",), shots=(2,))
    again = replace(paths, root=tmp_path)
    reproduce(one, again, workers=2, tables=(1, 2), stages=("data", "features", "runs", "tables"))
    other = tmp_path / "from_the_fixture"
    write_tables(read_records(all_runs(one, (1, 2)), paths), one, other, (1, 2), VARIANTS)
    assert contents(again.tables) == contents(other)


def test_figures_do_not_depend_on_the_workers(smoke, tmp_path):
    config, paths = smoke
    drawn = []
    for workers in (1, 2):
        own = replace(paths, root=tmp_path / str(workers))
        own.root.mkdir()
        for name in ("data", "features", "runs"):
            (own.root / name).symlink_to(paths.root / name)
        made = make_figures(config, own, VARIANTS, workers)
        drawn.append({p.name: p.read_bytes() for p in made})
        assert sorted(drawn[-1]) == sorted(p.name for p in own.figures.glob("*.png"))
    assert len(drawn[0]) == 9 and drawn[0] == drawn[1]


def test_fewer_methods_leave_the_readme_and_the_notebooks_alone(smoke, tmp_path, capsys):
    config, paths = smoke
    own = replace(paths, root=tmp_path)
    for name in ("data", "features", "runs"):
        (tmp_path / name).symlink_to(paths.root / name)
    (tmp_path / "README.md").write_text("no markers")
    reproduce(config, own, stages=("tables", "notebooks"), methods=("cfm",))
    text = (own.tables / "table1.md").read_text()
    assert "CFM (run here)" in text and "BTF (run here)" not in text and "MAFR (ours, released)" in text
    assert "--methods" in capsys.readouterr().err and not own.executed.exists()


def test_notebooks_show_a_profile_as_it_is(smoke):
    config, paths = smoke
    with pytest.raises(ConfigError, match="without --set"):
        run_notebooks(replace(config, epochs=3), paths)


def test_the_readme_shows_the_committed_tables():
    _, _, rest = (CHECKOUT / "README.md").read_text().partition(BEGIN)
    block, end, _ = rest.partition(END)
    assert end
    assert block.strip() == results_block(CHECKOUT / "tables")


def test_only_the_option_changes_the_readme(smoke, tmp_path, monkeypatch, capsys):
    config, paths = smoke
    own = replace(paths, root=tmp_path)
    for name in ("data", "features", "runs"):
        (tmp_path / name).symlink_to(paths.root / name)
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}\nold\n{END}\n")
    reproduce(config, own, stages=("tables",))
    assert "old" in readme.read_text() and not capsys.readouterr().err.count("mafr: the tables")
    monkeypatch.setenv("MAFR_HOME", str(tmp_path))
    monkeypatch.setattr("mafr.cli.reproduce.make_tables", lambda *a: [])
    for option in (["--profile", "smoke"], ["--tables", "1"], ["--methods", "cfm"], ["--set", "epochs=3"]):
        assert main(["tables", "--readme", *option]) == 1
        assert "goes with no other option" in capsys.readouterr().err
    shutil.copytree(CHECKOUT / "tables", tmp_path / "tables", dirs_exist_ok=True)
    assert main(["tables"]) == 0 and "old" in readme.read_text()
    assert main(["tables", "--readme"]) == 0 and results_block(CHECKOUT / "tables") in readme.read_text()


def test_updating_a_readme(smoke, tmp_path):
    _, paths = smoke
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    update_readme(readme, paths.tables)
    text = readme.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert text.count("**Table") == 4
    update_readme(readme, paths.tables)
    assert readme.read_text() == text
    readme.write_text("no markers")
    with pytest.raises(ResultError, match="lacks the markers"):
        update_readme(readme, paths.tables)

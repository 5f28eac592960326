"""Data of the user's own, under whatever names: the notebooks and the explorer show what is there."""

import json
import shutil
from pathlib import Path

import pytest
from support import rawdata

from mafr.cli import main
from mafr.config import Config
from mafr.data import preprocess
from mafr.data.manifest import GENERATED
from mafr.errors import ConfigError, MafrError, ResultError
from mafr.experiments.notebooks import is_preset, own_notebooks
from mafr.experiments.prepare import what_is_there
from mafr.experiments.results import stamp
from mafr.explorer import Explorer
from mafr.paths import Paths

OWN = Config.preset("smoke", overrides={"generated": False})


@pytest.fixture(scope="module")
def bracket(smoke, tmp_path_factory) -> Paths:
    """A generated category under another name, as an own one: raw and preprocessed."""
    config, made = smoke
    root = tmp_path_factory.mktemp("own")
    paths = Paths.resolve("smoke", root=root, data_root=root / "work")
    shutil.copytree(made.raw("mvtec3d") / config.mvtec3d_categories[0], paths.raw("mvtec3d") / "bracket")
    (paths.raw("mvtec3d") / "bracket" / GENERATED).unlink()  # else it is refused as real data
    preprocess("mvtec3d", paths.raw("mvtec3d"), paths.processed("mvtec3d"), OWN)
    return paths


def test_what_is_there(bracket, tmp_path):
    config, datasets = what_is_there(OWN, bracket)
    assert datasets == ("mvtec3d",) and config.mvtec3d_categories == ("bracket",)
    assert config.eyecandies_categories == OWN.eyecandies_categories
    generated = Config.preset("smoke")
    assert what_is_there(generated, Paths.resolve("smoke", root=tmp_path)) == (generated, ("mvtec3d", "eyecandies"))
    some = Paths.resolve("full", root=tmp_path, data_root=tmp_path / "work")
    for name in ("mvtec3d/zinc", "mvtec3d/tire", "mvtec3d/bagel", "eyecandies/Lollipop"):
        (some.data / "raw" / name / "train").mkdir(parents=True)
    config, datasets = what_is_there(OWN, some)
    assert config.mvtec3d_categories == ("bagel", "tire", "zinc")  # published ones first, as the paper has them
    assert config.eyecandies_categories == ("Lollipop",) and len(datasets) == 2
    with pytest.raises(MafrError, match=r"holds no category.*mafr data mvtec3d --source"):
        what_is_there(OWN, Paths.resolve("smoke", root=tmp_path, data_root=tmp_path / "nothing"))


def test_own_data_is_named_so(bracket):
    config, datasets = what_is_there(OWN, bracket)
    assert stamp(config, datasets, ["paper"]) == "own data in MVTec 3D-AD layout · smoke profile · paper variant"
    assert stamp(OWN, ["mvtec3d"], ["paper"]).startswith("MVTec 3D-AD ·")
    assert is_preset(config, bracket) and not is_preset(Config.preset("smoke", overrides={"epochs": 9}), bracket)


def test_notebooks_of_the_paper_are_not_for_own_data():
    assert own_notebooks([]) == ["01", "08", "09"] and own_notebooks(["09_heat"]) == ["09_heat"]
    with pytest.raises(ConfigError, match="notebook 03, 10 shows the paper's tables"):
        own_notebooks(["03", "01", "10"])


def test_explorer_and_notebooks_on_own_data(bracket, monkeypatch, capsys):
    with pytest.raises(ResultError, match=r"mafr run .*--data-root .*--dataset mvtec3d --category bracket.* makes it"):
        Explorer(OWN, bracket)
    monkeypatch.setenv("MAFR_HOME", str(bracket.root))
    options = ["--profile", "smoke", "--data-root", str(bracket.data)]
    assert main(["run", *options, "--category", "bracket", "--workers", "1"]) == 0
    explorer = Explorer(OWN, bracket)
    assert explorer.available == {"mvtec3d": ["bracket"]}
    assert explorer.view().sample.category == "bracket"
    assert main(["notebooks", *options, "--workers", "1", "03"]) == 1
    assert "on your own data there are 01, 08, 09" in capsys.readouterr().err
    assert main(["notebooks", *options, "--workers", "2"]) == 0
    for number in ("01", "08", "09"):
        text = next(bracket.executed.glob(f"{number}_*.ipynb")).read_text()
        assert "own data in MVTec 3D-AD layout" in text and "GENERATED" not in text
        assert any(pictures(Path(path)) for path in bracket.executed.glob(f"{number}_*.ipynb"))


def pictures(notebook: Path) -> int:
    cells = json.loads(notebook.read_text())["cells"]
    return sum("image/png" in output.get("data", {}) for cell in cells for output in cell.get("outputs", []))


def test_a_data_set_of_no_table_is_shown_as_well(tmp_path, monkeypatch):
    paths = Paths.resolve("smoke", root=tmp_path, data_root=tmp_path / "work")
    rawdata.write_adam3d(paths.raw("adam3d"))
    monkeypatch.setenv("MAFR_HOME", str(tmp_path))
    options = ["--profile", "smoke", "--data-root", str(paths.data)]
    assert main(["data", "adam3d", "--data-root", str(paths.data), "--source", str(paths.raw("adam3d"))]) == 0
    assert main(["run", *options, "--dataset", "adam3d", "--category", "1m1", "--workers", "1"]) == 0
    explorer = Explorer(OWN, paths)
    assert explorer.available == {"adam3d": ["1m1"]} and explorer.view().sample.category == "1m1"
    assert main(["notebooks", *options, "--workers", "2"]) == 0
    for path in paths.executed.glob("*.ipynb"):
        text = path.read_text()
        assert "3D-ADAM · smoke profile" in text and "own data in" not in text
        assert pictures(path)

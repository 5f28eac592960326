"""The notebooks as a reader meets them: short cells, clean sources, and a clean run from top to bottom."""

import ast
import json
import os
import re
import socket
import statistics
from pathlib import Path

import nbformat
import pytest
from support.places import CHECKOUT

from mafr.config import Config
from mafr.errors import MafrError
from mafr.experiments import notebooks
from mafr.experiments.notebooks import needed_files, run_notebooks, tidied
from mafr.experiments.plan import all_runs
from mafr.paths import Paths

NOTEBOOKS = CHECKOUT / "notebooks"
# Each notebook and what of the paper it must speak of.
SUBJECTS = {
    "01_data_exploration": ("MVTec 3D-AD", "Eyecandies", "2,656"),
    "02_method": tuple(rf"\tag{{{k}}}" for k in range(1, 9)),
    "03_table1_mvtec3d": ("Table I", "MVTec 3D-AD"),
    "04_table2_eyecandies": ("Table II", "Eyecandies"),
    "05_table3_few_shot": ("Table III", "few"),
    "06_table4_loss_ablation": ("Table IV", "loss"),
    "07_table5_fusion_ablation": ("Table V", r"\Psi"),
    "08_figure2_qualitative": ("Fig",),
    "09_heatmap_explorer": ("Fig",),
    "10_paper_and_code": ("released", "Table"),
    "11_compared_methods": ("CFM-M", "BTF", "M3DM", "AST", "RGB-cD-n", "f-AnoGAN", r"\Psi"),
    "12_full_size": ("RTX 4080", "--profile full", "mafr bench"),
    "13_real_scans": ("MVTec 3D-AD", "Eyecandies", "mafr validate", "Point-MAE"),
    "14_beyond_the_paper": ("development", "mafr develop", "`parts`", "real scans"),
}
REAL = ("13_real_scans",)  # shows real scans, which are not part of the repository
TABLES = {"03": "Table I.", "04": "Table II.", "05": "Table III.", "06": "Table IV.", "07": "Table V."}
each_notebook = pytest.mark.parametrize("name", SUBJECTS)


def source(name: str) -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def prose(notebook: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def test_all_notebooks_are_known():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SUBJECTS)


@each_notebook
def test_source_is_stripped_and_stable(name):
    notebook = source(name)
    assert (notebook.nbformat, notebook.nbformat_minor) >= (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in code_cells(notebook):
        assert cell.outputs == []
        assert cell.execution_count is None
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    # Names, not the random ids that editors make: differences between versions stay readable.
    assert not [cell_id for cell_id in ids if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f-]+)?", cell_id)]


@pytest.mark.parametrize("name", [name for name in SUBJECTS if name not in REAL])
def test_committed_pictures_have_an_alternative_text(name):
    copy = nbformat.read(NOTEBOOKS / "executed" / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    outputs = [output for cell in code_cells(copy) for output in cell.outputs]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    for output in pictures:
        assert len(output.metadata.get("image/png", {}).get("alt", "")) > 10


@each_notebook
def test_a_notebook_says_where_it_stands(name):
    title = source(name).cells[0].source
    others = re.findall(r"\]\((\d\d_\w+)\.ipynb\)", title)
    place = sorted(SUBJECTS).index(name)
    neighbours = [sorted(SUBJECTS)[k] for k in (place - 1, place + 1) if 0 <= k < len(SUBJECTS)]
    assert others[: len(neighbours)] == neighbours
    for linked in re.findall(r"\]\((\d\d_\w+\.ipynb)\)", prose(source(name))):
        assert (NOTEBOOKS / linked).is_file()


@each_notebook
def test_parameters(name):
    tagged = [c for c in code_cells(source(name)) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {}
    for statement in ast.parse(tagged[0].source).body:
        assert isinstance(statement, ast.Assign), "the parameters cell only assigns"
        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    assert values["profile"] == "demo"
    assert values["data_root"] is None


@each_notebook
def test_cells_are_short_and_define_no_classes(name):
    cells = code_cells(source(name))
    lengths = [len(cell.source.splitlines()) for cell in cells]
    assert statistics.median(lengths) < 10
    assert max(lengths) <= 25
    for cell in cells:
        tree = ast.parse(re.sub(r"^[%!].*$", "", cell.source, flags=re.MULTILINE))
        for node in ast.walk(tree):
            assert not isinstance(node, ast.ClassDef)
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 20, f"{node.name} belongs into a module"


@each_notebook
def test_prose_names_its_subject_and_the_difference(name):
    text = prose(source(name))
    assert text.lstrip().startswith("# ")
    for subject in SUBJECTS[name]:
        assert subject in text
    assert "Our remark" in text or "our remark" in text
    assert re.search(r"[Ww]hat the paper says|[Tt]he paper", text)


@pytest.mark.parametrize("name", sorted(SUBJECTS))
def test_the_executed_copy_shows_this_source(name):
    copy = nbformat.read(NOTEBOOKS / "executed" / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    shown = [cell.source for cell in copy.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    assert shown == [cell.source for cell in source(name).cells], f"execute {name} again: `mafr notebooks`"


def test_executed_notebooks_hold_nothing_that_changes_with_the_execution():
    """Two executions that differ in paths, times, widget ids and in where the kernel cut the texts."""

    def execution(root, ids, texts):
        state = {ids[0]: {"state": {"value": 1}}, ids[1]: {"state": {"children": [f"IPY_MODEL_{ids[0]}"]}}}
        if ids[1] < ids[0]:
            state = dict(reversed(state.items()))
        said = [{"output_type": "stream", "name": "stdout", "text": text} for text in texts]
        view = {"application/vnd.jupyter.widget-view+json": {"model_id": ids[1]}}
        shown = {"output_type": "display_data", "data": view, "metadata": {}}
        papermill = {"papermill": {"duration": len(texts)}}
        cells = [
            {"cell_type": "markdown", "id": "a", "metadata": {}, "source": f"{root}/runs"},
            {"cell_type": "code", "id": ids[0][:8], "metadata": {**papermill, "tags": ["injected-parameters"]},
             "outputs": [*said, shown, {"output_type": "stream", "name": "stderr", "text": ["x"]}]},
        ]  # fmt: skip
        widgets = {"application/vnd.jupyter.widget-state+json": {"state": state}}
        return json.dumps({"cells": cells, "metadata": {**papermill, "widgets": widgets}})

    one = tidied(execution("/home/a", ["1" * 32, "2" * 32], [["first\n", "sec"], "ond\nthird"]), Path("/home/a"))
    other = tidied(execution("/opt/b", ["f" * 32, "e" * 32], [["first\n"], ["second\n", "third"]]), Path("/opt/b"))
    assert one == other
    cells = json.loads(one)["cells"]
    outputs = cells[1]["outputs"]
    assert cells[0]["source"] == "./runs"
    assert [output.get("text") for output in outputs] == [["first\n", "second\n", "third"], None, ["x"]]
    assert outputs[1]["data"]["application/vnd.jupyter.widget-view+json"]["model_id"] == "0" * 32
    assert "widgets" not in json.loads(one)["metadata"]  # of a kernel that is gone


@pytest.fixture(scope="module")
def executed(smoke):
    """Every notebook, run once in the smoke profile: {name: executed notebook}; those of real scans as committed."""
    config, paths = smoke
    written = run_notebooks(config, paths, workers=2, names=[name for name in SUBJECTS if name not in REAL])
    copies = [*written, *(NOTEBOOKS / "executed" / f"{name}.ipynb" for name in REAL)]
    return {path.stem: nbformat.read(path, as_version=4) for path in copies}


def texts(notebook: nbformat.NotebookNode) -> str:
    """All that its outputs say, as text."""
    parts = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            data = output.get("data", {})
            parts += [output.get("text", ""), data.get("text/plain", ""), data.get("text/markdown", "")]
    return "\n".join(parts)


@pytest.mark.slow
@each_notebook
def test_runs_cleanly(executed, name):
    for cell in code_cells(executed[name]):
        for output in cell.outputs:
            assert output.output_type != "error", f"{cell.id}: {output.get('evalue')}"
            assert output.get("name") != "stderr", f"{cell.id}: {output.get('text')}"
    assert "Warning" not in texts(executed[name])
    assert str(NOTEBOOKS.parent) not in str(executed[name])  # nothing of this machine
    written = [cell for cell in executed[name].cells if "injected-parameters" in cell.metadata.get("tags", [])]
    assert [cell.id for cell in written] == ["injected-parameters"]  # papermill draws another one each time


@pytest.mark.slow
@each_notebook
def test_shows_pictures_and_says_what_the_data_is(executed, name):
    cells = code_cells(executed[name])
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
    origin = "real scans" if name in REAL else "generated"
    assert re.search(origin, texts(executed[name]), flags=re.IGNORECASE)


@pytest.mark.slow
@pytest.mark.parametrize("number", TABLES)
def test_shows_its_table_with_paper_and_ours(executed, number):
    name = next(name for name in SUBJECTS if name.startswith(number))
    shown = texts(executed[name])
    assert f"### {TABLES[number]}" in shown
    assert "Published" in shown
    assert "Measured" in shown


def test_a_notebook_whose_files_are_absent_is_left_as_committed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCANS", str(tmp_path / "scans"))
    (tmp_path / "notebooks" / "executed" / "smoke").mkdir(parents=True)
    needing = nbformat.v4.new_notebook(metadata={"mafr": {"needs": ["tables/*.json", "$SCANS/*.md"]}})
    nbformat.write(needing, tmp_path / "notebooks" / "13_scans.ipynb")
    kept = tmp_path / "notebooks" / "executed" / "smoke" / "13_scans.ipynb"
    kept.write_text("as committed")
    paths = Paths.resolve("smoke", root=tmp_path)
    assert needed_files(tmp_path / "notebooks" / "13_scans.ipynb", tmp_path) == ([], ["tables/*.json", "$SCANS/*.md"])
    assert run_notebooks(Config.preset("smoke"), paths) == []
    said = capsys.readouterr().err
    assert "13_scans.ipynb is left as it is" in said and "$SCANS/*.md" in said and said.count("\n") == 1
    assert kept.read_text() == "as committed"
    for name in ("tables/a.json", "scans/README.md"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    files, absent = needed_files(tmp_path / "notebooks" / "13_scans.ipynb", tmp_path)
    assert [file.name for file in files] == ["a.json", "README.md"] and not absent


def one_notebook(root: Path, code: str) -> Paths:
    """A root whose only notebook runs `code`."""
    (root / "notebooks").mkdir()
    cells = [nbformat.v4.new_code_cell(text) for text in ("profile = 'demo'", code)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, root / "notebooks" / "01_own.ipynb")
    return Paths.resolve("smoke", root=root)


def refused(paths: Paths) -> str:
    with pytest.raises(MafrError) as caught:
        run_notebooks(Config.preset("smoke"), paths)
    assert "\n" not in str(caught.value)
    assert not list(paths.executed.iterdir())
    return str(caught.value)


def test_a_kernel_that_dies_is_named(tmp_path):
    said = refused(one_notebook(tmp_path, "import os; os._exit(9)"))
    assert re.fullmatch(r"01_own\.ipynb: the kernel python3 \(\S+\) died, most likely for lack of memory; .*", said)


def test_a_kernel_whose_interpreter_is_gone_is_named(tmp_path, monkeypatch):
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    gone = {"argv": ["/gone/python", "-f", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(gone))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    said = refused(one_notebook(tmp_path, "1"))
    assert re.match(r"01_own\.ipynb: the kernel python3 \(/gone/python\) could not be started \(.*/gone/python", said)
    assert "-m pip install --force-reinstall ipykernel" in said


def test_what_a_killed_execution_left_is_swept_at_the_next_start(tmp_path):
    paths = one_notebook(tmp_path, "print('done')")
    left = paths.executed / f".01_own.ipynb.{socket.gethostname()}.999999999.tmp"
    left.mkdir(parents=True)
    (left / "01_own.ipynb").write_text("{}")
    running = paths.executed / f".01_own.ipynb.{socket.gethostname()}.{os.getppid()}.tmp"
    running.mkdir()
    assert run_notebooks(Config.preset("smoke"), paths) == [paths.executed / "01_own.ipynb"]
    assert sorted(path.name for path in paths.executed.iterdir()) == [running.name, "01_own.ipynb"]


def test_a_damaged_stamp_or_notebook_is_no_traceback(tmp_path):
    paths = one_notebook(tmp_path, "1")
    run_notebooks(Config.preset("smoke"), paths)
    (stamp,) = (paths.root / "runs").rglob("01_own.json")
    written = stamp.read_text()
    stamp.write_text("[]")
    run_notebooks(Config.preset("smoke"), paths)  # executed again
    assert stamp.read_text() == written
    (paths.notebooks / "01_own.ipynb").write_text("[]")
    with pytest.raises(MafrError, match=r"01_own\.ipynb is no notebook"):
        run_notebooks(Config.preset("smoke"), paths)


@pytest.mark.slow
def test_finished_notebooks_are_not_run_again(executed, smoke):
    config, paths = smoke
    before = {path: path.stat().st_mtime_ns for path in paths.executed.glob("*.ipynb")}
    run_notebooks(config, paths, workers=2)
    assert {path: path.stat().st_mtime_ns for path in paths.executed.glob("*.ipynb")} == before


def test_a_notebook_is_run_again_when_other_commands_tables_change(tmp_path):
    paths, config = Paths(tmp_path, "demo"), Config.preset("demo")
    cell = nbformat.v4.new_code_cell("profile = 'demo'", metadata={"tags": ["parameters"]})
    (tmp_path / "notebooks").mkdir()
    book = nbformat.v4.new_notebook(cells=[cell], metadata=source("01_data_exploration").metadata)
    nbformat.write(book, tmp_path / "notebooks" / "01_small.ipynb")
    (copy,) = run_notebooks(config, paths, workers=1)
    for folder, again in ((paths.tables, True), (tmp_path / "tables" / "development", True), (tmp_path, False)):
        before = copy.stat().st_mtime_ns
        run_notebooks(config, paths, workers=1)
        assert copy.stat().st_mtime_ns == before
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "other.csv").write_text("a\n1\n")
        run_notebooks(config, paths, workers=1)
        assert (copy.stat().st_mtime_ns > before) == again


def test_notebooks_are_out_of_date_when_any_number_of_a_record_or_any_file_of_the_package_changes(
    tmp_path, monkeypatch
):
    config, paths, package = Config.preset("smoke"), Paths.resolve("smoke", root=tmp_path), tmp_path / "package"
    monkeypatch.setattr(notebooks, "PACKAGE", package)
    record = all_runs(config)[0].folder(paths) / "metrics.json"
    files = [record, *(package / name for name in ("a.py", "page/view.js", "page/page.css", "weights/small.bin"))]
    states = [notebooks._state(config, paths)]
    for content in ("0.912", "0.512"):  # of one length
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
            states.append(notebooks._state(config, paths))
    assert len(set(states)) == len(states) == 11
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_text("")
    record.with_name("maps.npz").write_text("")
    for file in files:
        os.utime(file, (0, 0))
    assert notebooks._state(config, paths) == states[-1]


def test_the_notebooks_of_tables_1_and_2_share_their_cells():
    first, second = (source(name).cells for name in ("03_table1_mvtec3d", "04_table2_eyecandies"))
    assert [cell.id for cell in first] == [cell.id for cell in second]
    own = {"title", "parameters", "differs", "verdict"}
    assert {one.id for one, other in zip(first, second, strict=True) if one.source != other.source} == own

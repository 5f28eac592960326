"""The layout of the package: imports go one way, private names stay at home, files can be read in one go."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import mafr

PACKAGE = Path(mafr.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
# What stands further down may import what stands above it, and its neighbours on the same line.
LEVELS = (
    {"errors"},
    {"settings", "disk", "memory", "compiled"},
    {"config", "paths", "processor"},
    {"device", "parallel"},
    {"data", "model", "losses", "metrics", "intervals", "scoring", "calibration", "standardise", "expected"},
    {"features"},
    {"fast"},
    {"training", "released", "method"},
    {"detector"},
    {"baselines"},
    {"experiments"},
    {"tables", "figures", "bench"},
    {"page"},
    {"explorer", "report", "site"},
    {"predict"},
    {"cli"},
)
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}


def imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """(module, name) of every import of this package, those for type checkers aside; functions' own included."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom) and (child.module or "").partition(".")[0] == "mafr":
            yield from ((child.module, alias.name) for alias in child.names)
        yield from imports(child)


def part_of(module: str, name: str) -> str:
    """The door's module or the folder that an import reaches; "" for the package itself."""
    parts = [*module.split("."), name][1:]
    return parts[0] if parts[0] in LEVEL else ""


def test_every_part_has_a_level():
    assert {path.parts[0].removesuffix(".py") for path in MODULES} == {"__init__", *LEVEL}


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_one_way_and_private_names_stay_at_home(path):
    if path == Path("__init__.py"):
        return
    own = path.parts[0].removesuffix(".py")
    for module, name in imports(ast.parse((PACKAGE / path).read_text(encoding="utf-8"))):
        other = part_of(module, name)
        assert not other or LEVEL[other] <= LEVEL[own], f"{path} imports {name} of {module}, which stands further down"
        assert not name.startswith("_") or name == "__version__", f"{path} imports the private {name} of {module}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_file_can_be_read_in_one_go(path):
    text = (PACKAGE / path).read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)), f"{path} says nothing of itself"
    assert len(text.splitlines()) <= 340, path


def test_no_two_files_of_tests_have_one_name():
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names)), "pytest takes two modules of one name for the same"

"""The names that `mafr.figures` offers, and the modules that are loaded for them."""

import pkgutil
import subprocess
import sys

import pytest

import mafr.figures


@pytest.mark.parametrize("name", mafr.figures.__all__)
def test_each_name_is_a_function(name):
    assert getattr(mafr.figures, name).__name__ == name


def test_no_module_has_the_name_of_a_function():
    """It would stand in the function's place as soon as it is imported."""
    assert not {module.name for module in pkgutil.iter_modules(mafr.figures.__path__)} & set(mafr.figures.__all__)


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(mafr.figures, "figure3")


def test_style_loads_no_other_figure():
    code = "import sys, mafr.figures.style; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in told if name.startswith("mafr.figures")} == {"mafr.figures", "mafr.figures.style"}
    assert not {"seaborn", "torch"} & set(told)

"""Parts of all figures, and the files they are written to."""

import io

import numpy as np
import pytest
from PIL import Image

from mafr.cli import main
from mafr.errors import ConfigError
from mafr.figures.style import Picture, new_figure, outline, save_figure, save_png


def test_outline_of_nothing_draws_nothing():
    axes = Picture().subplots()
    outline(axes, np.zeros((4, 4), dtype=bool))
    outline(axes, np.ones((4, 4), dtype=bool))
    assert not axes.collections


def drawn() -> Picture:
    figure = new_figure(3, 2, "title", "stamp", "caption")
    figure.subplots().plot([0, 1], [1, 0])
    return figure


BEGINNINGS = {"a.pdf": b"%PDF", "a.svg": b"<?xml", "a.jpg": b"\xff\xd8", "a.JPEG": b"\xff\xd8", "a.Png": b"\x89PNG"}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_the_suffix_says_the_format(name, tmp_path):
    path = save_figure(drawn(), tmp_path / name)
    content = path.read_bytes()
    assert path.name == name and content.startswith(BEGINNINGS[name])
    assert b"svg" in content or not name.endswith("svg")
    save_figure(drawn(), path)
    assert path.read_bytes() == content  # the same bytes each time
    if content[:1] == b"\x89":
        assert content == save_png(drawn(), tmp_path / "b.png").read_bytes()
    elif content[:1] == b"\xff":
        assert Image.open(io.BytesIO(content)).format == "JPEG"


@pytest.mark.parametrize("name", ["heat", "heat.bmp", "heat.png.txt"])
def test_other_suffixes_are_one_error_before_anything_is_scored(name, tmp_path, capsys):
    with pytest.raises(ConfigError, match=r"must end in \.png, \.pdf, \.svg or \.jpg"):
        save_figure(drawn(), tmp_path / name)
    nothing = str(tmp_path / "nothing")
    command = ["predict", "--detector", nothing, "--rgb", nothing, "--xyz", nothing, "--out", str(tmp_path / name)]
    assert main(command) == 1
    assert f"{name}: a picture's name must end in .png, .pdf, .svg or .jpg" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

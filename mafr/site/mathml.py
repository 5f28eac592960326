"""Formulas as MathML, which browsers draw themselves: no script, no font, no other host. A Sphinx extension."""

from __future__ import annotations

import re

from docutils.nodes import Element, SkipNode
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

_TAG = re.compile(r"\\tag\{(.+?)\}")
_SIZE = re.compile(r"\\[Bb]igg?[lrm]?(?![A-Za-z])")  # brackets stretch by themselves


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mathml(formula: str, display: str = "inline") -> str:
    """LaTeX as a <math> element; a \\tag becomes a number beside the formula. display: "inline" or "block"."""
    return convert(_SIZE.sub("", _TAG.sub(r"\\qquad (\1)", formula)), display=display)


def _inline(writer: HTML5Translator, node: Element) -> None:
    writer.body.append(mathml(node.astext()))
    raise SkipNode


def _block(writer: HTML5Translator, node: Element) -> None:
    writer.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise SkipNode

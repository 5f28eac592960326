"""A finished table and its files: csv for programs, md and tex for readers. Numbers are rounded only here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import pandas as pd

from mafr.errors import ResultError
from mafr.paths import write_atomically

KINDS = ("published", "measured", "difference")
STAMP_COLUMNS = ("data", "profile", "variant", "seeds", "config")
_CSV_DECIMALS = 6
_LONG = 40  # rows from which the tex is a longtable


@dataclass(frozen=True)
class Column:
    """A column of numbers: name in csv, heading in print, a heading over several columns, decimals."""

    name: str
    heading: str
    group: str = ""
    decimals: int = 3


@dataclass(frozen=True)
class Row:
    """One row: label cells, kind, values by column name, standard deviations where several seeds ran, stamp.

    decimals: in print, where a row's numbers differ in kind from the other rows'; None: the columns'.
    """

    labels: tuple[str, ...]
    kind: str
    values: Mapping[str, float]
    stamp: Mapping[str, str]  # STAMP_COLUMNS -> text
    spread: Mapping[str, float] = field(default_factory=dict)
    decimals: int | None = None

    @classmethod
    def measured(
        cls, labels: tuple[str, ...], cells: Mapping[str, np.ndarray], stamp: dict[str, str], exact: Sequence[str] = ()
    ) -> Row:
        """A measured row of cells (seeds,): mean and sample standard deviation, the latter not for columns `exact`."""
        values = {name: float(seeds.mean()) for name, seeds in cells.items()}
        spread = {n: float(seeds.std(ddof=1)) for n, seeds in cells.items() if len(seeds) > 1 and n not in exact}
        return cls(labels, "measured", values, stamp, spread)


@dataclass(frozen=True)
class Table:
    """A table ready to be shown or written. Raises ResultError if a measured row has no value at all.

    number: "1" … "5", "S1" … or "cost"; decides the name of the files. label_heads: headings of the label columns.
    notes: provenance and remarks. sections: kind of row -> heading over its rows.
    """

    number: str
    title: str
    label_heads: Sequence[str]
    columns: Sequence[Column]
    entries: Sequence[Row]
    banner: str = ""
    notes: Sequence[str] = ()
    sections: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.entries:
            if row.kind == "measured" and not row.values:
                raise ResultError(f"table {self.number}: the measured row {' '.join(row.labels)} is empty")

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Full precision: label columns, `kind`, one column per number, STAMP_COLUMNS. NaN: not measured."""
        names = [column.name for column in self.columns]
        blank = dict.fromkeys(names, math.nan) | dict.fromkeys(STAMP_COLUMNS, "")
        records = []
        for row in self._ordered():
            labels = dict(zip(self.label_heads, row.labels, strict=True)) | {"kind": row.kind}
            records.append(labels | blank | row.values | row.stamp)
        frame = pd.DataFrame(records, columns=[*self.label_heads, "kind", *names, *STAMP_COLUMNS])
        return frame.astype(dict.fromkeys(names, float))

    @cached_property
    def spread(self) -> pd.DataFrame:
        """Standard deviations over seeds in the same rows; NaN where there is one seed."""
        blank = {column.name: math.nan for column in self.columns}
        return pd.DataFrame([blank | row.spread for row in self._ordered()], columns=list(blank), dtype=float)

    def _ordered(self) -> list[Row]:
        return sorted(self.entries, key=lambda row: KINDS.index(row.kind))

    @property
    def name(self) -> str:
        """Stem of the files: table1 … table5, tableS1 …, cost."""
        return f"table{self.number}" if self.number[-1].isdigit() else self.number

    @property
    def heading(self) -> str:
        """Number and title, as printed: "Table I. …"."""
        roman = dict(zip("12345", ("I", "II", "III", "IV", "V"), strict=True))
        number = f"Table {roman.get(self.number, self.number)}"
        return f"{number}. {self.title}" if self.number[-1].isdigit() else self.title

    def rows(self, kind: str) -> pd.DataFrame:
        """The label columns and numbers of one kind of row."""
        kept = [*self.label_heads, *(column.name for column in self.columns)]
        return self.frame.loc[self.frame["kind"] == kind, kept].reset_index(drop=True)

    def cells(self) -> list[tuple[str, list[str]]]:
        """(kind, label and number cells as printed) of each row."""
        lines = []
        rows = zip(self._ordered(), self.frame.to_dict("records"), self.spread.to_dict("records"), strict=True)
        for entry, row, spread in rows:
            cells = [str(row[head]) for head in self.label_heads]
            for column in self.columns:
                decimals = column.decimals if entry.decimals is None else entry.decimals
                text = _rounded(row[column.name], decimals, signed=row["kind"] == "difference")
                deviation = spread[column.name]
                cells.append(text if math.isnan(deviation) else f"{text} ± {deviation:.{decimals}f}")
            lines.append((row["kind"], cells))
        return lines

    def to_markdown(self) -> str:
        """GitHub Markdown: heading, banner, table with a heading for each kind of row, notes."""
        heads = [*self.label_heads, *(f"{c.group} {c.heading}".strip() for c in self.columns)]
        align = ["---"] * len(self.label_heads) + ["---:"] * len(self.columns)
        lines = [f"### {self.heading}", ""]
        if self.banner:
            lines += [f"> **{self.banner}**", ""]
        lines += [_pipe(heads), _pipe(align)]
        for kind, rows in groupby(self.cells(), key=itemgetter(0)):
            if section := self.sections.get(kind):
                lines.append(_pipe([f"**{section}**", *[""] * (len(heads) - 1)]))
            lines += [_pipe(cells) for _, cells in rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """As in Markdown, for Jupyter: headings of groups and of kinds of rows span their columns."""
        lines = [f"<h3>{escape(self.heading)}</h3>"]
        lines += [f"<p><b>{escape(self.banner)}</b></p>"] if self.banner else []
        lines += ["<table>", "<thead>"]
        if any(column.group for column in self.columns):
            spans = [(name, len(list(columns))) for name, columns in groupby(c.group for c in self.columns)]
            blank = f'<th colspan="{len(self.label_heads)}"></th>'
            spanned = (f'<th colspan="{size}" style="text-align:center">{escape(name)}</th>' for name, size in spans)
            lines.append(f"<tr>{blank}{''.join(spanned)}</tr>")
        heads = (*self.label_heads, *(column.heading for column in self.columns))
        lines += [f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>", "</thead>", "<tbody>"]
        for kind, rows in groupby(self.cells(), key=itemgetter(0)):
            if section := self.sections.get(kind):
                style = 'style="text-align:left"'
                lines.append(f'<tr><th colspan="{len(heads)}" {style}>{escape(section)}</th></tr>')
            for _, cells in rows:
                row = (
                    f'<td style="text-align:{"left" if k < len(self.label_heads) else "right"}">{escape(cell)}</td>'
                    for k, cell in enumerate(cells)
                )
                lines.append(f"<tr>{''.join(row)}</tr>")
        lines += ["</tbody>", "</table>"]
        if self.notes:
            lines.append(f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in self.notes)}</ul>")
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """Comma-separated, six decimals, n/a where not measured; `<column>_std` where several seeds ran."""
        deviations = self.spread.dropna(axis=1, how="all").add_suffix("_std")
        numbers = pd.concat([self.frame[[column.name for column in self.columns]], deviations], axis=1).map(_plain)
        labels, stamp = self.frame[[*self.label_heads, "kind"]], self.frame[list(STAMP_COLUMNS)]
        return pd.concat([labels, numbers, stamp], axis=1).to_csv(index=False, lineterminator="\n")

    def to_latex(self) -> str:
        """A booktabs table (a longtable from forty rows on); needs the packages booktabs and longtable."""
        width = len(self.label_heads) + len(self.columns)
        form = "l" * len(self.label_heads) + "r" * len(self.columns)
        caption = _latex(" ".join(filter(None, [f"{self.title}.", self.banner])))
        head = [r"\toprule", *self._latex_heads(), r"\midrule"]
        body: list[str] = []
        for kind, rows in groupby(self.cells(), key=itemgetter(0)):
            body += [r"\midrule"] if body else []
            if section := self.sections.get(kind):
                body += [rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_latex(section)}}}}} \\", r"\midrule"]
            body += [" & ".join(_latex(cell) for cell in cells) + r" \\" for _, cells in rows]
        notes = [rf"\par\smallskip\footnotesize {_latex(' '.join(self.notes))}"] if self.notes else []
        banner = [f"% {self.banner}"] if self.banner else []
        label = rf"\label{{tab:{self.name}}}"
        if len(self.frame) >= _LONG:
            lines = [
                *banner, rf"\begin{{longtable}}{{{form}}}", rf"\caption{{{caption}}}{label}\\", *head,
                r"\endhead", *body, r"\bottomrule", r"\end{longtable}", *notes,
            ]  # fmt: skip
        else:
            lines = [
                *banner, r"\begin{table*}[t]", r"\centering", rf"\caption{{{caption}}}", label,
                rf"\begin{{tabular}}{{{form}}}", *head, *body, r"\bottomrule", r"\end{tabular}", *notes,
                r"\end{table*}",
            ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _latex_heads(self) -> list[str]:
        lines = [[_latex(head) for head in (*self.label_heads, *(column.heading for column in self.columns))]]
        if any(column.group for column in self.columns):
            groups = [(name, len(list(columns))) for name, columns in groupby(c.group for c in self.columns)]
            spans = [rf"\multicolumn{{{size}}}{{c}}{{{_latex(name)}}}" for name, size in groups]
            lines.insert(0, [*[""] * len(self.label_heads), *spans])
        return [" & ".join(cells) + r" \\" for cells in lines]

    def _repr_markdown_(self) -> str:  # what Jupyter shows where it has no HTML
        return self.to_markdown()

    def _repr_html_(self) -> str:
        return self.to_html()


def write(table: Table, folder: str | Path) -> list[Path]:
    """Write <name>.csv, .md and .tex into `folder`, each atomically; returns their paths."""
    written = []
    for suffix, text in {"csv": table.to_csv(), "md": table.to_markdown(), "tex": table.to_latex()}.items():
        written.append(Path(folder) / f"{table.name}.{suffix}")
        write_atomically(written[-1], text)
    return written


def _rounded(value: float, decimals: int, signed: bool) -> str:
    if math.isnan(value):
        return "—"
    text = f"{abs(round(value, _CSV_DECIMALS)):.{decimals}f}"  # from the csv's decimals, so that halves round alike
    zero = not text.strip("0.")  # no sign before a rounded zero
    if value < 0 and not zero:
        return f"−{text}"
    return f"+{text}" if signed and not zero else text


def _plain(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    text = f"{value:.{_CSV_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
    "·": r"$\cdot$", "×": r"$\times$", "—": "---", "…": r"\ldots{}", "λ": r"$\lambda$",
    "°": r"$^\circ$", "²": "$^2$", "µ": r"$\mu$",
}  # fmt: skip
_SYMBOLS = re.compile(rf"Ψ(?P<psi>[23]D)|\bL_(?P<loss>\w+)|[{re.escape(''.join(_LATEX))}]")


def _latex(text: str) -> str:
    """Plain text with the symbols of the method as LaTeX."""

    def symbol(found: re.Match[str]) -> str:
        if found["psi"]:
            return rf"$\Psi_{{{found['psi']}}}$"
        return rf"$L_{{\mathrm{{{found['loss']}}}}}$" if found["loss"] else _LATEX[found[0]]

    return _SYMBOLS.sub(symbol, text)

"""A finished table and its files: csv for machines, md and tex for people. Rounding happens here, last."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from mafr.errors import ResultError
from mafr.paths import write_atomically

KINDS = ("published", "measured", "difference")
NO_VALUE = "—"  # in csv: n/a
CSV_DECIMALS = 6
STAMP_COLUMNS = ("data", "profile", "variant", "seeds", "config")
_LONG = 40  # rows from which the tex is a longtable


@dataclass(frozen=True)
class Column:
    """A column of numbers: its name in csv, its head in print, a head over several columns, its decimals."""

    name: str
    heading: str
    group: str = ""
    decimals: int = 3


@dataclass(frozen=True)
class Row:
    """One row: label cells, kind, values by column name, standard deviations where several seeds ran, stamp."""

    labels: tuple[str, ...]
    kind: str
    values: Mapping[str, float]
    stamp: Mapping[str, str]  # STAMP_COLUMNS -> text
    spread: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """A table ready to be shown or written. Build one with `Table.of`.

    Attributes:
        number: "1" … "5", "S1" … or "cost"; decides the name of the files.
        title: what it shows. banner: a warning in plain words, or "". notes: the stamp and remarks.
        sections: kind -> head over its rows.
        label_heads: heads of the label columns. columns: of numbers.
        frame: full precision; label columns, `kind`, a column a number, STAMP_COLUMNS. NaN: not measured.
        spread: standard deviations over seeds in the same rows; NaN where there is one seed.
    """

    number: str
    title: str
    banner: str
    notes: tuple[str, ...]
    sections: Mapping[str, str]
    label_heads: tuple[str, ...]
    columns: tuple[Column, ...]
    frame: pd.DataFrame
    spread: pd.DataFrame

    @classmethod
    def of(
        cls,
        number: str,
        title: str,
        label_heads: Sequence[str],
        columns: Sequence[Column],
        rows: Sequence[Row],
        *,
        banner: str = "",
        notes: Sequence[str] = (),
        sections: Mapping[str, str] | None = None,
    ) -> Table:
        """Put rows together, kinds in the order published, measured, difference.

        Raises ResultError if a measured row has no value at all.
        """
        for row in rows:
            if row.kind == "measured" and not row.values:
                raise ResultError(f"table {number}: the measured row {' '.join(row.labels)} is empty")
        ordered = sorted(rows, key=lambda row: KINDS.index(row.kind))
        names = [column.name for column in columns]
        records, spreads = [], []
        for row in ordered:
            numbers = {name: float(row.values.get(name, math.nan)) for name in names}
            labels = dict(zip(label_heads, row.labels, strict=True))
            stamp = {name: row.stamp.get(name, "") for name in STAMP_COLUMNS}
            records.append(labels | {"kind": row.kind} | numbers | stamp)
            spreads.append({name: float(row.spread.get(name, math.nan)) for name in names})
        frame = pd.DataFrame(records, columns=[*label_heads, "kind", *names, *STAMP_COLUMNS])
        spread = pd.DataFrame(spreads, columns=names)
        return cls(
            number, title, banner, tuple(notes), dict(sections or {}), tuple(label_heads), tuple(columns),
            frame, spread,
        )  # fmt: skip

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
        for k, row in enumerate(self.frame.to_dict("records")):
            cells = [str(row[head]) for head in self.label_heads]
            for column in self.columns:
                signed = row["kind"] == "difference"
                text = _number(row[column.name], column.decimals, signed)
                spread = self.spread[column.name].iloc[k]
                if not math.isnan(spread):
                    text += f" ± {spread:.{column.decimals}f}"
                cells.append(text)
            lines.append((row["kind"], cells))
        return lines

    def to_markdown(self) -> str:
        """GitHub Markdown: heading, banner, table with a head line for each kind of row, notes."""
        heads = [*self.label_heads, *(f"{c.group} {c.heading}".strip() for c in self.columns)]
        align = ["---"] * len(self.label_heads) + ["---:"] * len(self.columns)
        lines = [f"### {self.heading}", ""]
        if self.banner:
            lines += [f"> **{self.banner}**", ""]
        lines += [_pipe(heads), _pipe(align)]
        before = None
        for kind, cells in self.cells():
            if kind != before and self.sections.get(kind):
                lines.append(_pipe([f"**{self.sections[kind]}**", *[""] * (len(heads) - 1)]))
            before = kind
            lines.append(_pipe(cells))
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """Comma-separated, six decimals, n/a where not measured; `<column>_std` where several seeds ran."""
        names = [column.name for column in self.columns]
        with_spread = [name for name in names if self.spread[name].notna().any()]
        stds = [f"{name}_std" for name in with_spread]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([*self.label_heads, "kind", *names, *stds, *STAMP_COLUMNS])
        for k, row in enumerate(self.frame.to_dict("records")):
            numbers = [_plain(row[name]) for name in names]
            numbers += [_plain(self.spread[name].iloc[k]) for name in with_spread]
            labels = [row[head] for head in self.label_heads]
            writer.writerow([*labels, row["kind"], *numbers, *(row[name] for name in STAMP_COLUMNS)])
        return out.getvalue()

    def to_latex(self) -> str:
        """A booktabs table (a longtable from forty rows on); needs the packages booktabs and longtable."""
        width = len(self.label_heads) + len(self.columns)
        form = "l" * len(self.label_heads) + "r" * len(self.columns)
        caption = " ".join(filter(None, [f"{self.title}.", self.banner]))
        head = [r"\toprule", *self._latex_heads(), r"\midrule"]
        body, before = [], None
        for kind, cells in self.cells():
            if kind != before:
                body += [r"\midrule"] if before else []
                if self.sections.get(kind):
                    section = _latex(self.sections[kind])
                    body += [rf"\multicolumn{{{width}}}{{l}}{{\emph{{{section}}}}} \\", r"\midrule"]
            before = kind
            body.append(" & ".join(_latex(cell) for cell in cells) + r" \\")
        notes = [rf"\par\smallskip\footnotesize {_latex(' '.join(self.notes))}"] if self.notes else []
        banner = [f"% {self.banner}"] if self.banner else []
        label = rf"\label{{tab:{self.name}}}"
        if len(self.frame) >= _LONG:
            lines = [
                *banner, rf"\begin{{longtable}}{{{form}}}", rf"\caption{{{_latex(caption)}}}{label}\\", *head,
                r"\endhead", *body, r"\bottomrule", r"\end{longtable}", *notes,
            ]  # fmt: skip
        else:
            lines = [
                *banner, r"\begin{table*}[t]", r"\centering", rf"\caption{{{_latex(caption)}}}", label,
                rf"\begin{{tabular}}{{{form}}}", *head, *body, r"\bottomrule", r"\end{tabular}", *notes,
                r"\end{table*}",
            ]  # fmt: skip
        return "\n".join(lines) + "\n"

    def _latex_heads(self) -> list[str]:
        lines = []
        if any(column.group for column in self.columns):
            cells, k = [""] * len(self.label_heads), 0
            while k < len(self.columns):
                group = self.columns[k].group
                size = sum(1 for column in self.columns if column.group == group)
                cells.append(rf"\multicolumn{{{size}}}{{c}}{{{_latex(group)}}}")
                k += size
            lines.append(" & ".join(cells) + r" \\")
        heads = [*self.label_heads, *(column.heading for column in self.columns)]
        return [*lines, " & ".join(_latex(head) for head in heads) + r" \\"]

    def _repr_markdown_(self) -> str:  # what Jupyter shows
        return self.to_markdown()


def write(table: Table, folder: str | Path) -> dict[str, Path]:
    """Write <name>.csv, .md and .tex into `folder`, each atomically; equal tables give equal bytes.

    Returns {"csv": path, "md": path, "tex": path}.
    """
    folder = Path(folder)
    texts = {"csv": table.to_csv(), "md": table.to_markdown(), "tex": table.to_latex()}
    paths = {suffix: folder / f"{table.name}.{suffix}" for suffix in texts}
    for suffix, text in texts.items():
        write_atomically(paths[suffix], text)
    return paths


def _number(value: float, decimals: int, signed: bool) -> str:
    if math.isnan(value):
        return NO_VALUE
    text = f"{abs(round(value, CSV_DECIMALS)):.{decimals}f}"  # from what the csv says, or halves round either way
    zero = not text.strip("0.")  # no sign before a rounded zero
    if value < 0 and not zero:
        return f"−{text}"
    return f"+{text}" if signed and not zero else text


def _plain(value: float) -> str:
    if math.isnan(value):
        return "n/a"
    text = f"{value:.{CSV_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _pipe(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$",
    "·": r"$\cdot$", "×": r"$\times$", "—": "---", "…": r"\ldots{}", "λ": r"$\lambda$",
}  # fmt: skip
_SYMBOLS = re.compile(r"Ψ([23]D)|\bL_(\w+)")


def _latex(text: str) -> str:
    """Plain text with the symbols of the method as LaTeX."""
    parts, end = [], 0
    for found in _SYMBOLS.finditer(text):
        parts.append("".join(_LATEX.get(letter, letter) for letter in text[end : found.start()]))
        psi, loss = found.groups()
        parts.append(rf"$\Psi_{{{psi}}}$" if psi else rf"$L_{{\mathrm{{{loss}}}}}$")
        end = found.end()
    return "".join([*parts, *(_LATEX.get(letter, letter) for letter in text[end:])])

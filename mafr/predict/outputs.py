"""What is written of scored parts: lines as csv and json, heatmap pictures, the report."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np

from mafr.disk import writing
from mafr.errors import printable
from mafr.predict.earlier import FIELDS, csv_line, keep_scored
from mafr.predict.engine import NOT_OK, OK, UNREADABLE, Scored

if TYPE_CHECKING:
    from mafr.report import Report
    from mafr.report.part import Part


@dataclass(frozen=True)
class Places:
    """Where results go; None: nowhere."""

    csv: Path | None = None
    json: Path | None = None  # one object per line
    report: Path | None = None  # html
    heatmaps: Path | None = None  # folder

    def made(self) -> list[str]:
        """The places in words, for the last line."""
        named = (("lines", self.csv), ("json", self.json), ("heatmaps", self.heatmaps), ("report", self.report))
        return [f"{what} in {printable(str(path))}" for what, path in named if path is not None]


class Outputs:
    """Writes each result as it comes, so that an interrupted run keeps what it has; `counts` are by verdict."""

    def __init__(self, places: Places, threshold: float, warning: str = "", append: bool = False) -> None:
        """warning: a line in every picture. append: to files that are there, instead of writing them anew.

        Raises StorageError where a file cannot be written, as all methods do, and DataError where the csv file to
        append to holds something else, see `keep_scored`.
        """
        self.places, self.threshold, self.warning = places, threshold, warning
        self.verdicts: dict[str, str] = {}  # by name
        self.report: Report | None = None
        # names whose lines are there already
        self.listed = keep_scored(places.csv, places.json, threshold) if append and places.csv else set()
        self._csv, self._json = (_opened(path, append) for path in (places.csv, places.json))
        if self._csv is not None and not self._csv.tell():
            _write(self._csv, places.csv, csv_line(FIELDS))

    @property
    def counts(self) -> Counter[str]:
        """The number of parts by verdict."""
        return Counter(self.verdicts.values())

    def open_report(self, title: str, validation_scores: list[float], notes: list[str]) -> None:
        """Begin the report, if one is wanted."""
        if self.places.report is not None:
            from mafr.report import Report

            warnings = [self.warning] if self.warning else []
            self.report = Report(self.places.report, self.threshold, title, validation_scores, notes, warnings)
            names = {printable(name) for name in self.listed}
            if absent := len(names) - self.report.take_from(self.places.report, names):
                parts = "1 part" if absent == 1 else f"{absent} parts"
                self.report.warnings.append(f"{parts} of an earlier call that left no report: not shown here")

    def add(self, scored: Scored) -> dict[str, object]:
        """Write one result; returns its line as an object."""
        unread, again = bool(scored.error), scored.part.name in self.verdicts
        self.verdicts[scored.part.name] = scored.verdict
        line = {
            "name": scored.part.name, "score": None if unread else scored.score, "threshold": self.threshold,
            "verdict": scored.verdict, "error": scored.error,
        }  # fmt: skip
        if self._csv is not None:
            _write(self._csv, self.places.csv, csv_line("" if value is None else value for value in line.values()))
        if self._json is not None:
            _write(self._json, self.places.json, json.dumps(line) + "\n")
        if self.places.heatmaps is not None and not unread:
            self._picture(scored)
        if self.report is not None:
            part = _report_part(scored)
            if again:
                self.report.forget(part.name)
            self.report.add(part)
        return line

    def finish(self) -> str:
        """Close the files and write the report; returns the count in words."""
        self.close()
        if self.report is not None:
            self.report.finish()
        return self.summary()

    def close(self) -> None:
        """Close the files; the report is left out."""
        for file, path in ((self._csv, self.places.csv), (self._json, self.places.json)):
            if file is not None:
                with writing(path):
                    file.close()

    def summary(self) -> str:
        """The count in words."""
        words = {OK: "OK", NOT_OK: "not OK", UNREADABLE: "could not be read or scored"}
        counted = [f"{self.counts[verdict]} {text}" for verdict, text in words.items() if self.counts[verdict]]
        total = self.counts.total()
        text = f"{total} part{'s' if total != 1 else ''}" + (f": {', '.join(counted)}" if counted else "")
        return f"{text}; scored before: {len(self.listed)}" if self.listed else text

    def _picture(self, scored: Scored) -> None:
        from mafr.figures import plot_heatmap, save_png

        picture = plot_heatmap(scored.sample, scored.prediction, self.threshold, self.warning)
        save_png(picture, self.places.heatmaps / f"{scored.part.name}.png")


def _report_part(scored: Scored) -> Part:
    from mafr.report.part import Part

    name = printable(scored.part.name)
    if scored.error:
        return Part.unread(name, scored.error)
    rgb = np.rint(scored.sample.rgb.transpose(1, 2, 0) * 255).astype(np.uint8)
    prediction, sample = scored.prediction, scored.sample
    return Part(name, scored.score, scored.verdict, rgb, prediction.psi, sample.xyz, prediction.scored)


def _opened(path: Path | None, append: bool) -> TextIO | None:
    if path is None:
        return None
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Names of files may hold bytes of no encoding.
        return path.open("a" if append else "w", encoding="utf-8", errors="backslashreplace", newline="")


def _write(file: TextIO, path: Path, text: str) -> None:
    with writing(path, len(text.encode(errors="backslashreplace"))):
        file.write(text)
        file.flush()

"""`Report`: parts one by one into one HTML file."""

from __future__ import annotations

import json
import math
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path

import numpy as np

from mafr.disk import writing
from mafr.page.files import markup, read, script
from mafr.page.packed import colours
from mafr.paths import temporary_beside
from mafr.report.encode import check_part, encode
from mafr.report.histogram import histogram
from mafr.report.part import Part

_PAGE = Path(__file__).parent
_ITEM = re.compile(
    rb'<li class="part (ok|bad)" data-number="(\d+)" data-name="([^"]*)" data-score="([^"]+)" data-peak="([^"]+)">'
)
_DATA = re.compile(rb'<script type="application/json" id="part-(\d+)">(.*)', re.DOTALL)
_SAME = 1e-3  # relative: by how much the ratio of map and score may differ between parts and still be one


@dataclass(frozen=True)
class _Line:
    """What the page's list says of a part."""

    number: int  # of its data in the page; as added
    name: str
    score: float
    verdict: str
    error: str
    peak: float  # the map's highest value


class Report:
    """A page with many parts: sorted thumbnails, verdicts, a histogram, and each part's image, map and cloud.

    Parts are encoded as they are added, into a file without a name that goes with the object; memory holds a line of
    text for each. The same parts give the same bytes.
    """

    def __init__(
        self,
        path: Path,
        threshold: float,
        title: str,
        validation_scores: Sequence[float] = (),
        notes: Sequence[str] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        """path: of the HTML file, its folder is made. notes, warnings: lines below the title, warnings in colour."""
        self.path, self.threshold, self.title = Path(path), float(threshold), title
        self.validation_scores = [float(score) for score in validation_scores]
        self.notes, self.warnings = list(notes), list(warnings)
        self._lines: list[_Line] = []
        self._count = 0  # of parts that were ever added
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._data = tempfile.TemporaryFile(dir=self.path.parent, prefix=".mafr-report-")  # noqa: SIM115

    def add(self, part: Part) -> None:
        """Encode a part. Raises ValueError for arrays that do not fit together, StorageError as `finish` does."""
        number = self._next()
        error = part.error or ("" if math.isfinite(part.score) else f"the score is {part.score}, no number")
        peak = math.nan
        if not part.error:
            check_part(part)
            data = f'<script type="application/json" id="part-{number}">{encode(part)}</script>\n'.encode()
            with writing(self.path, len(data)):
                self._data.write(data)
            peak = float(np.nan_to_num(part.heat, nan=-np.inf, posinf=np.inf, neginf=-np.inf).max())
        self._lines.append(_Line(number, part.name, float(part.score), part.verdict, error, peak))

    def forget(self, name: str) -> None:
        """Leave out the parts by a name: one of them has been scanned again."""
        self._lines = [one for one in self._lines if one.name != name]

    def take_from(self, path: Path, names: set[str]) -> int:
        """Take the scored parts by these names over from an earlier report; returns how many of them it holds."""
        found: dict[bytes, tuple] = {}  # by their numbers there
        if not names or not path.is_file():
            return 0
        with path.open("rb") as file:
            for line in file:
                if item := _ITEM.match(line):
                    kind, number, name, score, peak = (value.decode() for value in item.groups())
                    if (name := unescape(name)) in names:
                        verdict = "OK" if kind == "ok" else "not OK"
                        found[number.encode()] = name, float(score), verdict, "", float(peak)
                elif (data := _DATA.match(line)) and data[1] in found:  # in the order of scanning
                    one = _Line(self._next(), *found[data[1]])
                    with writing(self.path, len(line)):
                        self._data.write(b'<script type="application/json" id="part-%d">' % one.number + data[2])
                    self._lines.append(one)
        return len({one.name for one in self._lines})

    def _next(self) -> int:
        self._count += 1
        return self._count - 1

    def finish(self) -> Path:
        """Write the page with the parts added so far, whole or not at all; more may be added and written again.

        Raises StorageError where the disk refuses it.
        """
        head, tail = self._page()
        temporary = temporary_beside(self.path)
        with writing(self.path, len(head) + len(tail) + self._data.tell()):
            try:
                with temporary.open("wb") as file:
                    file.write(head.encode())
                    self._data.seek(0)
                    shutil.copyfileobj(self._data, file)
                    file.write(tail.encode())
                temporary.replace(self.path)
            finally:
                temporary.unlink(missing_ok=True)
                self._data.seek(0, 2)
        return self.path

    def _page(self) -> tuple[str, str]:
        """The page before and after the parts' data."""
        scored = sorted((one for one in self._lines if not one.error), key=lambda one: -one.score)
        failed = [one for one in self._lines if one.error]
        level = self._level(scored)
        settings = {
            "threshold": self.threshold, "level": level, "heat": _range(scored, level),
            "validation": [score for score in self.validation_scores if math.isfinite(score)], "colours": colours(),
        }  # fmt: skip
        items = [_item(one, self.threshold) for one in scored] + [_failed(one) for one in failed]
        values = {
            "title": escape(self.title),
            "warnings": "".join(f'<li class="warning">{escape(text)}</li>' for text in self.warnings),
            "notes": "".join(f"<li>{escape(text)}</li>" for text in self.notes),
            "summary": _summary(scored, failed, self.threshold),
            "histogram": histogram([one.score for one in scored], self.validation_scores, self.threshold),
            "items": "\n".join(items),
            "settings": json.dumps(_without_nan(settings), separators=(",", ":")),
            "style": read("explorer.css") + _own("page.css"),
            "frame": markup(_own("head.html")),
            "script": script(_own("page.js")),
        }
        # One pass, so that a mark inside a value, such as a part's name, stays as it is.
        text = _own("page.html").replace("{{frame}}", values.pop("frame"))
        first, *others = text.split("{{")
        sides = [[first], []]  # before and after the parts' data
        for name, _, rest in (piece.partition("}}") for piece in others):
            if name == "data":
                sides.reverse()
            sides[0].append(values.get(name, "") + rest)
        return "".join(sides[1]), "".join(sides[0])

    def _level(self, scored: Sequence[_Line]) -> float | None:
        """The threshold on the maps' own scale; None where the score is not one fixed multiple of the map's maximum."""
        ratios = np.array([one.peak / one.score for one in scored if one.score > 0 and math.isfinite(one.peak)])
        if not len(ratios) or not self.threshold > 0 or np.ptp(ratios) > _SAME * abs(ratios.mean()):
            return None
        return float(self.threshold * np.median(ratios))


def _own(name: str) -> str:
    return (_PAGE / name).read_text(encoding="utf-8")


def _range(scored: Sequence[_Line], level: float | None) -> dict[str, list[float]]:
    """The (lowest, highest) value of the colours: around the threshold's level, and of all parts together."""
    peaks = [one.peak for one in scored if math.isfinite(one.peak)]
    highest = max(peaks, default=1.0)
    whole = [0.0, highest if highest > 0 else 1.0]
    return {"threshold": [0.5 * level, 1.5 * level] if level else whole, "all": whole}


def _summary(scored: Sequence[_Line], failed: Sequence[_Line], threshold: float) -> str:
    count = len(scored) + len(failed)
    wrong = sum(one.verdict != "OK" for one in scored)
    text = f"{count} part{'' if count == 1 else 's'}: {wrong} not OK, {len(scored) - wrong} OK"
    text += f", {len(failed)} could not be scored" if failed else ""
    return escape(f"{text}. Threshold {threshold:.4g}.")


def _item(one: _Line, threshold: float) -> str:
    """A part's entry of the list, which the page's script and `take_from` read."""
    good, name = one.verdict == "OK", escape(one.name)
    share = f", {one.score / threshold:.2f} × threshold" if threshold > 0 else ""
    kind, mark = ("ok", "✓") if good else ("bad", "✕")
    return (
        f'<li class="part {kind}" data-number="{one.number}" data-name="{name}" data-score="{one.score!r}" '
        f'data-peak="{one.peak!r}">'
        f'<span class="name">{name}</span> <span class="verdict"><i aria-hidden="true">{mark}</i> '
        f'{escape(one.verdict)}</span> <span class="score">score {one.score:.4g}{share}</span></li>'
    )


def _failed(one: _Line) -> str:
    name = escape(one.name)
    return (
        f'<li class="part error" data-name="{name}" data-number="{one.number}" data-reason="{escape(one.error)}">'
        f'<span class="name">{name}</span> <span class="verdict"><i aria-hidden="true">!</i> not scored</span> '
        f'<span class="message">{escape(one.error)}</span></li>'
    )


def _without_nan(value: object) -> object:
    """JSON knows no NaN."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value

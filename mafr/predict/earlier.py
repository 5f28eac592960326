"""What an earlier call has written, for a call that goes on from there."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from mafr.errors import ConfigError, DataError
from mafr.paths import write_atomically

FIELDS = ("name", "score", "threshold", "verdict", "error")


def keep_scored(lines: Path, objects: Path | None, threshold: float) -> set[str]:
    """The names of the parts whose scores an earlier call has written to a csv file; other lines are taken out.

    Parts with an error are scored again, and so is what a killed process left half written. The json file is kept in
    step. Raises DataError where the csv file holds something else, ConfigError where its threshold is another one.
    """
    rows = _rows(lines)
    kept = {row[0]: row for row in rows[1:] if len(row) == len(FIELDS)}  # of a part that came again, the last
    kept = {name: row for name, row in kept.items() if not row[-1]}
    if other := {row[2] for row in kept.values()} - {str(threshold)}:
        raise ConfigError(
            f"{lines}: its scores were held against threshold {', '.join(sorted(other))}, not {threshold}; go on with "
            "the same detector and threshold, or choose another place"
        )
    if rows:
        write_atomically(lines, "".join(csv_line(row) for row in (FIELDS, *kept.values())))
    if objects is not None and objects.is_file():
        write_atomically(objects, "".join(_objects(objects, set(kept))))
    return set(kept)


def csv_line(values: object) -> str:
    """A line of a csv file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]  # a killed process may have left half a line
        rows = list(csv.reader(io.StringIO(whole)))
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as csv ({error}); choose another place") from error
    if text and (not rows or tuple(rows[0]) != FIELDS):
        raise DataError(f"{path}: not the lines of an earlier call, {','.join(FIELDS)}; choose another place")
    return rows


def _objects(path: Path, names: set[str]) -> list[str]:
    """The last line of each of these parts."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="backslashreplace").splitlines(keepends=True):
        try:
            name = json.loads(line)["name"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if name in names and line.endswith("\n"):
            found.pop(name, None)
            found[name] = line
    return list(found.values())

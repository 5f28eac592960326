"""On which processors tables were met to the byte: a list of digests, `tests/digests.json`.

An entry: the tables (Tables I-V, S1-S3, S5 and S7, or S4 and S6), the profile, `RESULTS_VERSION`, the digest of the csv
files, and the processor, its instruction sets and the reach of the same bytes (`mafr.processor`; "" without), as the
runs' records say. Times and sizes (`cost`) do not repeat and do not count.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from mafr.config import Config
from mafr.errors import ConfigError, ResultError, StorageError
from mafr.experiments.notebooks import is_preset
from mafr.experiments.plan import RESULTS_VERSION, Run
from mafr.paths import PACKAGE, Paths, write_json

MAIN, SEEDS = "Tables I-V, S1-S3, S5, S7", "Tables S4, S6"
_FILES = {
    MAIN: tuple(f"table{number}.csv" for number in ("1", "2", "3", "4", "5", "S1", "S2", "S3", "S5", "S7")),
    SEEDS: ("tableS4.csv", "tableS6.csv"),
}
_MACHINE = {"processor": str, "instruction_sets": list, "same_bytes": str}
LIST = PACKAGE.parent / "tests" / "digests.json"


def tables_digest(what: str, folder: Path) -> str | None:
    """SHA-256 (hex) of the csv files of `MAIN` or `SEEDS` in a folder, None where one is missing."""
    digest = hashlib.sha256()
    for name in _FILES[what]:
        if not (folder / name).is_file():
            return None
        digest.update(f"{name}\n".encode() + (folder / name).read_bytes())
    return digest.hexdigest()


def machine_of(records: Mapping[Run, Mapping]) -> dict:
    """The one processor that computed all runs, as an entry names it. Raises ResultError for several, or for a GPU."""
    found = []
    for run, record in records.items():
        place = record.get("place", {})
        machine = {name: place.get(name) for name in _MACHINE}
        if place.get("device") != "cpu" or not all(isinstance(machine[n], kind) for n, kind in _MACHINE.items()):
            raise ResultError(
                f"the record of {run} does not name the processor that computed it; make the runs again, on a processor"
            )
        if machine not in found:
            found.append(machine)
    if len(found) != 1:
        names = "; ".join(f"{one['processor']}, same bytes: {one['same_bytes'] or 'no'}" for one in found)
        raise ResultError(f"a digest is of one processor, but the runs were computed on {len(found)}: {names}")
    return found[0]


def read_digests(path: Path | None = None) -> list[dict]:
    """The entries of a list, by default `LIST`; none where there is no file."""
    path = path or LIST
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def note_digest(
    what: str, records: Mapping[Run, Mapping], config: Config, paths: Paths, path: Path | None = None
) -> str:
    """Enter the written tables `what` of `records` into a list, by default `LIST`; returns a line that says so.

    The entry replaces those of the same tables, profile and processor, and of older results. Raises ConfigError for
    changed settings or data of the user's own, ResultError where not one processor computed all.
    """
    path = path or LIST
    if paths.data_root or not is_preset(config, paths) or config.variant != "paper":
        raise ConfigError("--digest is of a profile as it is: it goes with no --set, --variant or --data-root")
    if not path.parent.is_dir():
        raise StorageError(f"{path.parent} is not there: the list of digests lies in a checkout")
    digest, machine = tables_digest(what, paths.tables), machine_of(records)
    if digest is None:
        raise ResultError(f"{paths.tables} lacks some of {what}")
    entry = {"tables": what, "profile": config.profile, "results_version": RESULTS_VERSION, "digest": digest, **machine}
    kept = [one for one in read_digests(path) if not _replaces(entry, one)]
    order = ("profile", "tables", "processor", "same_bytes")
    write_json(path, sorted([*kept, entry], key=lambda one: [str(one[name]) for name in order]))
    limit = f" with --same-bytes {machine['same_bytes']}" if machine["same_bytes"] else ""
    return f"{what} of {config.profile}: {digest[:12]} on {machine['processor']}{limit}, in {path}"


def _replaces(entry: Mapping, old: Mapping) -> bool:
    same = all(entry[name] == old[name] for name in ("tables", "profile"))
    return same and (
        old["results_version"] < entry["results_version"] or all(entry[name] == old[name] for name in _MACHINE)
    )

"""Preprocessing: from raw folders to a processed copy, once; in parallel, resumable, raw files untouched."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from mafr.config import ALL_DATASETS, DATASET_TITLES, Config
from mafr.data import eyecandies, manifest, mvtec3d
from mafr.data.copies import warn_of_copies
from mafr.data.formats.images import encode_xyz, read_bytes
from mafr.data.found import chosen_categories
from mafr.data.held_out import announce, good_training, held_out, is_in_place, placed, record_of
from mafr.data.layout import (
    PROCESSED_SHARE,
    SPLITS,
    RawSample,
    empty_category,
    misnamed,
    processed_files,
    some_of,
    subfolders,
)
from mafr.data.pieces import PIECE, warn_of_pieces
from mafr.data.resolutions import warn_of_sizes
from mafr.data.verify import changed_samples
from mafr.disk import writing
from mafr.errors import DataError, notice
from mafr.parallel.progress import Workers, map_parallel
from mafr.paths import write_atomically, write_json

_MODULES: dict[str, ModuleType] = {"mvtec3d": mvtec3d, "eyecandies": eyecandies, "adam3d": mvtec3d}
_PREVIOUS = ".previous.json"  # the former manifest, while samples are being made again
_JOURNAL = ".journal"  # one file per finished sample, until the manifest holds them all
_CHUNK = 8  # samples per job


@dataclass(frozen=True)
class _Job:
    """A category to preprocess, or some of its samples."""

    dataset: str
    plane: str
    raw: Path
    out: Path
    settings: str
    source: dict | None
    samples: tuple[RawSample, ...]
    held: frozenset[str]  # keys of training samples that become validation samples
    listings: dict[str, str]  # key -> digest of the names, sizes and times of its files
    records: dict[str, dict]  # key -> record of what exists

    @property
    def held_of(self) -> tuple[int, int]:
        """Numbers of good training samples: those held out, and all."""
        return len(self.held), len(good_training(self.samples))

    def parts(self) -> Iterator[_Job]:
        """The work on samples that are not up to date, a few at a time."""
        todo = [s for s in self.samples if self.records.get(s.key, {}).get("listing") != self.listings[s.key]]
        for k in range(0, len(todo), _CHUNK):
            samples = tuple(todo[k : k + _CHUNK])
            listings = {sample.key: self.listings[sample.key] for sample in samples}
            records = {key: self.records[key] for key in listings if key in self.records}
            yield replace(self, samples=samples, listings=listings, records=records)


def preprocess(
    dataset: str, raw_root: str | Path, processed_root: str | Path, config: Config,
    categories: Sequence[str] | None = None, workers: Workers = 1, plane: str | None = None, verify: bool = False,
) -> None:  # fmt: skip
    """Make `<processed_root>/<category>/{train,validation,test}/<good|defect>/{rgb,xyz,gt}` from raw folders.

    Up-to-date files are kept (a matching `manifest.json` takes milliseconds), interrupted work is resumed, and only
    samples whose raw files changed are made again. A raw file counts as changed when its size or time is another one.
    Where a category has no validation samples, a tenth of its training samples become some, see `mafr.data.held_out`.

    Args:
        raw_root: holds `<category>/...` as the data set is published; never written to.
        categories: default: the profile's for generated data, else all in `raw_root`.
        workers: local processes, or a cluster, see `mafr.parallel.progress.map_parallel`.
        plane: "remove" or "none" (MVTec 3D-AD: keep table and strays; Eyecandies: do not crop);
            default: the setting `plane`.
        verify: hold contents, too, against what the manifest says, see `mafr.data.verify`; what has changed with its
            size and time kept is made again, and named on stderr.

    Raises DataError where folders or files are missing, damaged, or not as expected.
    """
    raw_root, processed_root = Path(raw_root), Path(processed_root)
    plane = config.plane if plane is None else plane
    if dataset not in ALL_DATASETS:
        raise DataError(f"unknown data set {dataset!r}; choose one of {', '.join(ALL_DATASETS)}")
    if plane not in ("remove", "none"):
        raise DataError(f"unknown plane mode {plane!r}; choose remove or none")
    if raw_root.resolve() == processed_root.resolve():
        raise DataError(f"{raw_root}: raw and processed data need folders of their own; raw files are never changed")
    names = chosen_categories(dataset, raw_root, config, categories)
    plans: list[_Job] = []
    with writing(processed_root, lambda: _left(plans)):
        for name in names:
            places = raw_root / name, processed_root / name
            plan = _plan(dataset, *places, config, plane, workers, verify)
            plans += [] if plan is None else [plan]
        announce({plan.raw.name: plan.held_of for plan in plans if plan.held})
        jobs = [job for plan in plans for job in plan.parts()]
        finished = map_parallel(_process, jobs, workers, f"preprocessing {DATASET_TITLES[dataset]}")
        made: dict[Path, list[dict]] = {plan.out: [] for plan in plans}
        for job, records in zip(jobs, finished, strict=True):
            made[job.out] += records
        for plan in plans:
            _finish(plan, made[plan.out])


def _left(plans: Sequence[_Job]) -> float:
    """About the bytes that are still to be written."""
    left = 0
    for plan in plans:
        todo = [sample for job in plan.parts() for sample in job.samples if not _journal(plan.out, sample).exists()]
        left += sum((plan.raw / name).stat().st_size for sample in todo for _, name in sample.files)
    return PROCESSED_SHARE * left


def _plan(
    dataset: str, raw: Path, out: Path, config: Config, plane: str, workers: Workers, verify: bool
) -> _Job | None:  # fmt: skip
    """The work on a category, None where all is up to date. workers: for verifying."""
    module = _MODULES[dataset]
    command = manifest.data_command(dataset, config, raw.name)
    source = manifest.read_json(raw / manifest.GENERATED, f"make the data again with `{command}`")
    manifest.check_source(source, raw, dataset, config)
    samples = tuple(module.scan(raw))
    if not samples:
        raise empty_category(raw, module.LAYOUT)
    if not any(sample.key.startswith("train/") for sample in samples):
        raise DataError(
            f"{raw / 'train'}: no samples; every method learns from the good samples of a category: add them in the "
            f"layout of {DATASET_TITLES[dataset]}{misnamed(raw)}"
        )
    listings = {sample.key: _listing(raw, sample) for sample in samples}
    held = held_out(samples)
    settings = manifest.settings_digest(dataset, plane, module.PARAMETERS)
    again = "preprocess again"
    finished = manifest.read_manifest(out / manifest.MANIFEST, again)
    previous = finished or manifest.read_manifest(out / _PREVIOUS, again) or {}
    records = {}
    if previous.get("settings") == settings:
        records = {
            r["key"]: {"id": name, **r}
            for name, r in previous["samples"].items()
            if is_in_place(name, r["key"], held) and _is_whole(out, name, r)
        }
    if verify and finished:
        changed = changed_samples(raw, out, samples, records, workers)
        again_too = f", {len(changed)} have changed and are made again: {some_of(changed)}" if changed else ""
        notice(f"{raw.name}: the contents of {len(records)} of {len(samples)} samples are verified{again_too}")
        records = {key: record for key, record in records.items() if key not in changed}
    if finished and finished.get("settings") == settings and finished.get("source") == source:
        listing = manifest.listing_digest({"key": key, "listing": text} for key, text in listings.items())
        if finished["raw_listing"] == listing and len(records) == len(samples):
            warn_of_copies(out, records.values())
            return None
    for path in (out / _JOURNAL).glob("*.json"):
        entry = manifest.read_json(path, f"delete it and {again}") or {}
        record = entry.get("record")
        whole = manifest.is_record(record) and str(record.get("id")).count("/") == 2
        if entry.get("settings") != settings or not whole:
            path.unlink()
        elif not is_in_place(record["id"], record["key"], held):
            for stale in (*processed_files(out, record["id"]), path):  # samples came or went since
                stale.unlink(missing_ok=True)
        elif _is_whole(out, record["id"], record):
            records[record["key"]] = record
    if module is mvtec3d and (odd := [name for name in subfolders(raw) if name not in SPLITS]):
        notice(f"{raw}: {', '.join(odd)} is not read; the folders of a category are {', '.join(SPLITS)}")
    if previous:
        # Until all is done the category is not to be used. Files of other settings are overwritten one by
        # one from here on: none of them may count as current if this run is interrupted.
        current = previous.get("settings") == settings
        write_json(out / _PREVIOUS, previous if current else previous | {"settings": None})
        (out / manifest.MANIFEST).unlink(missing_ok=True)
    return _Job(dataset, plane, raw, out, settings, source, samples, held, listings, records)


def _process(job: _Job) -> list[dict]:
    return [_process_sample(job, sample, job.records.get(sample.key)) for sample in job.samples]


def _process_sample(job: _Job, sample: RawSample, old: dict | None) -> dict:
    """Make one sample's files, its record last; only the record where the raw contents are as before."""
    contents = {role: read_bytes(job.raw / name) for role, name in sample.files}
    content = manifest.content_digest(sample, contents)
    record = {"key": sample.key, "listing": job.listings[sample.key], "content": content}
    if old and old["content"] == record["content"]:
        record = {**old, **record}
    else:
        made = _MODULES[job.dataset].convert(job.raw, sample, contents, job.plane)
        name = placed(made.id, sample.key in job.held)
        if job.held and made.id.startswith("train/"):
            other = placed(made.id, sample.key not in job.held)
            for stale in processed_files(job.out, other):  # of an interrupted call, before samples came or went
                stale.unlink(missing_ok=True)
        outputs = (made.rgb, encode_xyz(made.xyz), made.gt)
        for path, output in zip(processed_files(job.out, name), outputs, strict=True):
            if output is not None:
                write_atomically(path, output)
            else:
                path.unlink(missing_ok=True)
        sizes = [None if output is None else len(output) for output in outputs]
        record = {"id": name, **record, "points": int((made.xyz != 0).any(axis=2).sum()), "sizes": sizes}
        record |= manifest.reach_of_this_process()
        if made.seed:  # not said by older manifests, whose samples were seeded by their names
            record["seed"] = made.seed
        if made.dropped >= PIECE and not sample.seed_text:
            record["dropped"] = round(made.dropped, 3)
    write_json(_journal(job.out, sample), {"settings": job.settings, "record": record})
    return record


def _finish(plan: _Job, made: list[dict]) -> None:
    records = plan.records | {record["key"]: record for record in made}
    current = [records[sample.key] for sample in plan.samples]
    kept = {record["id"] for record in current}
    previous = manifest.read_manifest(plan.out / _PREVIOUS, "preprocess again") or {}
    for name in {*previous.get("samples", {}), *(r["id"] for r in plan.records.values())} - kept:
        for path in processed_files(plan.out, name):  # its raw files are gone, or now show another defect
            path.unlink(missing_ok=True)
    parameters = _MODULES[plan.dataset].PARAMETERS
    built = manifest.build_manifest(plan.dataset, plan.raw.name, plan.plane, parameters, plan.source, current)
    write_json(plan.out / manifest.MANIFEST, built | record_of(plan.held, current))
    (plan.out / _PREVIOUS).unlink(missing_ok=True)
    shutil.rmtree(plan.out / _JOURNAL, ignore_errors=True)
    warn_of_copies(plan.out, current)
    warn_of_pieces(plan.raw, current)
    if plan.source is None:
        warn_of_sizes(plan.out, current)


def _journal(out: Path, sample: RawSample) -> Path:
    return out / _JOURNAL / f"{manifest.digest([sample.key])[:16]}.json"


def _is_whole(out: Path, name: str, record: dict) -> bool:
    """Whether a sample's files are there, and as large as they were written (old manifests do not say how large)."""
    sizes = [path.stat().st_size if path.is_file() else None for path in processed_files(out, name)]
    needed = sizes if name.startswith("test/") else sizes[:2]
    return None not in needed and record.get("sizes", sizes) == sizes


def _listing(raw: Path, sample: RawSample) -> str:
    lines = []
    for _, name in sorted(sample.files):
        try:
            status = (raw / name).stat()
        except OSError as error:
            raise DataError(f"{raw / name}: cannot be read ({error.strerror}); restore the file") from error
        lines.append(f"{name} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]

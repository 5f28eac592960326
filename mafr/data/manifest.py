"""`manifest.json`, written last beside a category's processed files: the raw files they were made from, and how."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from mafr.config import CATEGORIES, DATASETS, Config
from mafr.data.layout import RawSample, found_in, subfolders, unknown_category
from mafr.errors import DataError
from mafr.processor import common_reach, limited

FORMAT = 1
MANIFEST = "manifest.json"
_KEYS = {  # what is read of a manifest, and what it must be
    "format": int, "dataset": str, "plane": str, "settings": str | None, "counts": dict, "fingerprints": dict,
    "raw_listing": str, "samples": dict,
}  # fmt: skip
GENERATED = "generated.json"  # beside the raw files of a generated category
SAME_BYTES = "same_bytes"  # in it and in samples' records: the reach, see `mafr.processor`, where there was one


def data_command(dataset: str, config: Config, category: str = "", only: bool = False) -> str:
    """The command that prepares a profile's data set; of a real one, of the category `only` where it is asked for.

    A category of a name that was not published is the user's own: it is prepared from their folder, not downloaded.
    """
    if config.generated and dataset in DATASETS:
        return "mafr data generate" + (f" --profile {config.profile}" if config.profile != "demo" else "")
    is_own = category and CATEGORIES[dataset] and category not in CATEGORIES[dataset]
    source = " --source MY_PARTS" if is_own else ""
    return f"mafr data {dataset}{source} --data-root DIR" + (f" --categories {category}" if only else "")


def check_category(dataset: str, root: Path, category: str, config: Config) -> None:
    """Raise DataError where a category has no folder in `root`."""
    if (root / category).is_dir():
        return
    if (root / MANIFEST).is_file():
        raise DataError(f"{root}: this is a category itself; name the folder above it, {root.parent}")
    if category not in CATEGORIES[dataset] and subfolders(root):
        raise unknown_category(dataset, root, category)
    way = data_command(dataset, config, category, only=True)
    raise DataError(f"{root / category}: no such folder ({found_in(root)}); make the data ready with `{way}`")


def digest(lines: Iterable[str]) -> str:
    """SHA-256 (hex) of lines."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def content_digest(sample: RawSample, contents: Mapping[str, bytes]) -> str:
    """SHA-256 (hex) of a raw sample's files, from their contents by role."""
    parts = sorted(sample.files)
    return digest(f"{n} {len(contents[r])} {hashlib.sha256(contents[r]).hexdigest()}" for r, n in parts)


def settings_digest(dataset: str, plane: str, parameters: Mapping) -> str:
    """Digest of everything that decides processed files beside the raw ones."""
    return digest([str(FORMAT), dataset, plane, json.dumps(parameters, sort_keys=True)])


def read_json(path: Path, way_out: str) -> dict | None:
    """A JSON object, None where there is no file. Raises DataError, with `way_out`, for damaged ones."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}); {way_out}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: damaged (not an object); {way_out}")
    return value


def check_source(source: Mapping | None, folder: Path, dataset: str, config: Config) -> None:
    """Raise DataError where data is generated but should not be, the reverse, or of other settings."""
    command = data_command(dataset, config, folder.name)
    if config.generated and source is None:
        other = f", or make the generated data with `{command}`" if dataset in DATASETS else ""
        raise DataError(
            f"{folder}: this data was not generated, but profile {config.profile} expects generated data; set "
            f"generated=False for data of your own{other}"
        )
    if source is not None and not config.generated:
        raise DataError(
            f"{folder}: this data is generated, but the settings say real data (generated=False); point "
            f"--data-root, or data_root in a notebook, at the real data, or prepare it with `{command}`"
        )
    if source is not None and source.get("data_digest") != config.data_digest(dataset):
        raise DataError(
            f"{folder}: generated with other settings (raw_side or sample counts) than profile {config.profile} has "
            f"now; make it again with `{command}`"
        )


def build_manifest(
    dataset: str, category: str, plane: str, parameters: Mapping, source: Mapping | None, records: list[dict]
) -> dict:
    """The manifest of processed samples, from their records (id, key, listing, content, points, sizes, seed).

    `seed` is `Processed.seed`. Records without one, as all older ones are, were seeded by the sample's name; a category
    may hold both kinds, as only samples whose raw files change are made again.
    """
    settings = settings_digest(dataset, plane, parameters)
    counts: dict[str, Counter] = {}
    contents: dict[str, list[str]] = {}
    for record in records:
        split, defect, _ = record["id"].split("/")
        counts.setdefault(split, Counter())[defect] += 1
        line = f"{record['id']} {record['key']} {record['content']}"
        contents.setdefault(split, []).append(f"{line} {seed}" if (seed := record.get("seed")) else line)
    return {
        "format": FORMAT,
        "dataset": dataset,
        "category": category,
        "plane": plane,
        "parameters": dict(parameters),
        "settings": settings,
        "counts": counts,
        # of the raw files alone, then of each split's raw files and the preprocessing
        "raw_fingerprint": digest(sorted(f"{r['key']} {r['content']}" for r in records)),
        "fingerprints": {split: digest([settings, *sorted(lines)]) for split, lines in contents.items()},
        "raw_listing": listing_digest(records),
        "source": source,
        "samples": {r["id"]: {k: v for k, v in r.items() if k != "id"} for r in records},
    }


def reach_of_this_process() -> dict[str, str]:
    """The entry `SAME_BYTES` of what this process makes; empty without a limit. It decides no fingerprint."""
    return {SAME_BYTES: reach} if (reach := limited()) else {}


def split_reach(manifest: Mapping, split: str) -> str:
    """The reach of the same bytes with which a split's files were made, raw ones too where they were generated."""
    made = [record for name, record in manifest["samples"].items() if name.startswith(f"{split}/")]
    made += [manifest["source"]] if manifest.get("source") else []
    return common_reach(one.get(SAME_BYTES, "") for one in made)


def listing_digest(records: Iterable[Mapping]) -> str:
    """Digest of names, sizes and times of raw files, from the samples' own."""
    return digest(sorted(f"{r['key']} {r['listing']}" for r in records))


def read_manifest(path: Path, again: str) -> dict | None:
    """A manifest with all that the code reads of it, None where there is no file.

    Raises DataError for one that is damaged; `again` says how to preprocess again.
    """
    manifest = read_json(path, f"delete it and {again}")
    if manifest is not None and (problem := _problem(manifest)):
        raise DataError(f"{path}: damaged ({problem}); delete it and {again}")
    return manifest


def is_record(record: object) -> bool:
    """Whether a sample's record holds what is read of it: texts, and the sizes of its three files or null."""
    if not isinstance(record, dict) or not all(isinstance(record.get(k), str) for k in ("key", "listing", "content")):
        return False
    sizes = record.get("sizes", [])  # old manifests have none
    return isinstance(sizes, list) and all(size is None or isinstance(size, int) for size in sizes)


def _problem(manifest: Mapping) -> str:
    """What is wrong with the content of a manifest, in words; "" for none."""
    if missing := [name for name in _KEYS if name not in manifest]:
        return f"no {missing[0]!r}"
    if odd := [name for name, kind in _KEYS.items() if not isinstance(manifest[name], kind)]:
        return f"{odd[0]!r} is of another kind"
    for name, record in manifest["samples"].items():
        if name.count("/") != 2 or not is_record(record):
            return f"the record of sample {name}"
        if name.partition("/")[0] not in manifest["fingerprints"]:
            return f"no fingerprint of {name.partition('/')[0]}"
    return ""


def load_manifest(folder: Path, dataset: str, config: Config) -> dict:
    """The manifest of a processed category that fits the settings. Raises DataError otherwise."""
    command = data_command(dataset, config, folder.name)
    again = f"preprocess again with `{command}`"
    manifest = read_manifest(folder / MANIFEST, again)
    if manifest is None:
        raise DataError(
            f"{folder}: no {MANIFEST}: this data is not preprocessed, or not to the end; raw data gives clearly worse "
            f"results. Preprocess it with `{command}`"
        )
    found, plane = (manifest["format"], manifest["dataset"]), manifest["plane"]
    if found != (FORMAT, dataset):
        raise DataError(
            f"{folder / MANIFEST}: format {found[0]} of {found[1]}; format {FORMAT} of {dataset} expected: {again}"
        )
    if plane != config.plane:
        raise DataError(
            f'{folder}: preprocessed with plane="{plane}", but the settings say plane="{config.plane}"; {again}, or '
            f"use --set plane={plane}"
        )
    check_source(manifest.get("source"), folder, dataset, config)
    return manifest

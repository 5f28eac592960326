"""The run store: the record and the arrays of each run, found by its digest.

The record, `metrics.json`, holds everything a table needs; it is written last, so a run is finished when it exists.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from mafr.baselines.registry import feature_config
from mafr.data.layout import SPLITS
from mafr.errors import DataError, notice
from mafr.experiments.plan import Run
from mafr.features.sources.checks import DamagedStoreError
from mafr.features.sources.on_demand import OnDemandFeatures
from mafr.features.sources.splits import Split, load_split
from mafr.features.sources.store import FeatureStore
from mafr.paths import Paths, write_atomically
from mafr.scoring import Answer, ResidualMaps

RECORD, RESIDUALS, MAPS, DETECTOR = "metrics.json", "residuals.npz", "maps.npz", "detector"
_PARTS = ("psi_rgb", "psi_xyz", "valid")
_KINDS = {  # of what tables and figures read of every record
    "data_fingerprint": str, "metrics": dict, "scores": dict, "samples": dict, "counts": dict, "timings": dict,
    "history": list,
}  # fmt: skip
_HIGHEST = float(np.finfo(np.float16).max)


class DamagedRunError(DataError):
    """A file of a finished run is not as it was written; the text names it."""


def read_record(run: Run, paths: Paths) -> dict | None:
    """The record of a finished run, or None. Raises DamagedRunError for one that cannot be read or is not whole."""
    path = run.folder(paths) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["run_digest"] != run.digest:
            return None
        _check_record(record)
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except KeyError as error:
        reason = f"{error} is missing"
    except (ValueError, TypeError, RecursionError) as error:
        reason = str(error)
    raise DamagedRunError(f"{path} is damaged ({reason}); {_again(paths)}")


def _check_record(record: dict) -> None:
    """Raises KeyError or TypeError where the record lacks what is read of every one."""
    for name, kind in _KINDS.items():
        if not isinstance(record[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")
    lists = [record["samples"][name] for name in ("ids", "labels", "defects")] + list(record["scores"].values())
    if not all(isinstance(one, list) and len(one) == len(lists[0]) for one in lists):
        raise TypeError("ids, labels, defects and scores are no lists of one length")
    for metrics in record["metrics"].values():
        if not all(isinstance(one, dict) for one in (metrics, *metrics["by_defect"].values())):
            raise TypeError("metrics are no dict")


def _again(paths: Paths) -> str:
    return f"`mafr run {paths.options}`, with the settings of this run, makes it again"


def read_records(runs: Iterable[Run], paths: Paths) -> dict[Run, dict]:
    """The records of the finished ones among `runs`, in their order."""
    found = ((run, read_record(run, paths)) for run in dict.fromkeys(runs))
    return {run: record for run, record in found if record is not None}


def data_fingerprint(stores: Mapping[str, FeatureStore | OnDemandFeatures]) -> str:
    """SHA-256 (hex) of the features of the three splits, and so of the data behind them."""
    return hashlib.sha256("".join(stores[s].fingerprint for s in SPLITS).encode()).hexdigest()


def run_splits(run: Run, paths: Paths, repair: bool = False) -> dict[str, Split]:
    """The inputs of a run by split. Raises DataError, naming the command, where features are missing.

    repair: check all stored features, and make damaged ones again, see `load_split`.
    """
    settings = feature_config(run.method, run.config)
    return {s: load_split(paths, run.dataset, run.category, s, settings, repair) for s in SPLITS}


def finished_record(
    run: Run, paths: Paths, known: dict[tuple, str] | None = None, say: bool = False
) -> dict | None:
    """The record of a run that is finished on the present data, or None, also where its files are damaged.

    known: fingerprints that were looked up before, by what decides them; extended here. say: name damaged files on
    stderr.
    """
    known = {} if known is None else known
    try:
        record = read_record(run, paths)
        if record is None:
            return None
        key = (run.dataset, run.category, feature_config(run.method, run.config).feature_digest())
        if key not in known:
            known[key] = data_fingerprint({name: part.store for name, part in run_splits(run, paths).items()})
        if record["data_fingerprint"] != known[key]:
            return None
        _check_arrays(run, paths, len(record["samples"]["ids"]))
        return record
    except DamagedStoreError:  # named when it is made again
        return None
    except DamagedRunError as error:
        if say:
            what = str(error).rpartition(";")[0]
            notice(f"{what}; the run is made again")
        return None


def save_answer(answer: Answer, folder: Path) -> None:
    """Store a method's answer for the test set: residual maps as they are, final maps as float16."""
    if isinstance(answer, ResidualMaps):
        _save_arrays(folder / RESIDUALS, {name: getattr(answer, name).numpy() for name in _PARTS}, np.savez)
        return
    maps = answer.final(answer.main)[0][:, 0].numpy()
    _save_arrays(folder / MAPS, {"maps": np.clip(maps, None, _HIGHEST).astype(np.float16)}, np.savez_compressed)


def load_residuals(run: Run, paths: Paths, count: int | None = None) -> tuple[torch.Tensor, ...]:
    """The residual maps of a finished run of MAFR: (psi_rgb, psi_xyz, valid), each (N, 1, g, g).

    count: the N that is expected. Raises DamagedRunError, DataError where the file is missing.
    """
    return tuple(torch.from_numpy(array) for array in _load_arrays(run, paths, RESIDUALS, count))


def load_maps(run: Run, paths: Paths, count: int | None = None) -> np.ndarray:
    """The final maps of a compared method's finished run on all samples: (N, S, S) float16; as `load_residuals`."""
    return _load_arrays(run, paths, MAPS, count)[0]


def _load_arrays(run: Run, paths: Paths, name: str, count: int | None) -> list[np.ndarray]:
    path = run.folder(paths) / name
    if not path.exists():
        raise DataError(f"{path} is missing; delete its folder and make it with `mafr run {paths.options}`")
    wanted = _shapes(run, name)
    with _named_if_damaged(path, paths), np.load(path) as arrays:
        found = [arrays[name] for name in wanted]
        for array, (part, (shape, kind)) in zip(found, wanted.items(), strict=True):
            _check_shape(part, array.shape, array.dtype, (count or len(found[0]), *shape), kind)
    return found


def _check_arrays(run: Run, paths: Paths, count: int) -> None:
    """Check shapes and types of a run's arrays by their headers. Raises DamagedRunError; absent files are none."""
    for name in (RESIDUALS, MAPS):
        path = run.folder(paths) / name
        if not path.exists():
            continue
        with _named_if_damaged(path, paths), zipfile.ZipFile(path) as archive:
            for part, (shape, kind) in _shapes(run, name).items():
                with archive.open(f"{part}.npy") as file:
                    np.lib.format.read_magic(file)
                    found, _, dtype = np.lib.format.read_array_header_1_0(file)
                _check_shape(part, found, dtype, (count, *shape), kind)


def _shapes(run: Run, name: str) -> dict[str, tuple[tuple[int, ...], type]]:
    """{array: (shape of one sample's part, type)} of a file of arrays."""
    if name == MAPS:
        return {"maps": ((run.config.image_size,) * 2, np.float16)}
    one = (1, run.config.grid, run.config.grid)
    return {"psi_rgb": (one, np.float32), "psi_xyz": (one, np.float32), "valid": (one, np.bool_)}


def _check_shape(name: str, found: tuple, dtype: np.dtype, wanted: tuple, kind: type) -> None:
    if tuple(found) != wanted or dtype != kind:
        raise ValueError(f"{name} is {found} of {dtype}; {wanted} of {np.dtype(kind)} expected")


@contextmanager
def _named_if_damaged(path: Path, paths: Paths) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what numpy and zipfile raise at damaged bytes is a long list
        raise DamagedRunError(f"{path} is damaged ({error}); {_again(paths)}") from error


def _save_arrays(path: Path, arrays: dict[str, np.ndarray], write: Callable) -> None:
    content = io.BytesIO()
    write(content, **arrays)
    write_atomically(path, content.getvalue())

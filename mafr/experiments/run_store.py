"""The run store: the record and the arrays of each run, found by its digest.

The record, `metrics.json`, holds everything a table needs; it is written last, so a run is finished when it exists.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from mafr.baselines.registry import feature_config
from mafr.data.layout import SPLITS
from mafr.errors import DataError
from mafr.experiments.plan import Run
from mafr.features.sources.on_demand import OnDemandFeatures
from mafr.features.sources.splits import Split, load_split
from mafr.features.sources.store import FeatureStore
from mafr.paths import Paths, write_atomically
from mafr.scoring import Answer, ResidualMaps

RESIDUALS, MAPS = "residuals.npz", "maps.npz"
_PARTS = ("psi_rgb", "psi_xyz", "valid")
_HIGHEST = float(np.finfo(np.float16).max)


def read_record(run: Run, paths: Paths) -> dict | None:
    """The record of a finished run, or None. Raises DataError for one that cannot be read."""
    path = run.folder(paths) / "metrics.json"
    try:
        record = json.loads(path.read_text())
        return record if record["run_digest"] == run.digest else None
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error!r}); delete its folder and run again") from error


def read_records(runs: Iterable[Run], paths: Paths) -> dict[Run, dict]:
    """The records of the finished ones among `runs`, in their order."""
    found = ((run, read_record(run, paths)) for run in dict.fromkeys(runs))
    return {run: record for run, record in found if record is not None}


def data_fingerprint(stores: Mapping[str, FeatureStore | OnDemandFeatures]) -> str:
    """SHA-256 (hex) of the features of the three splits, and so of the data behind them."""
    return hashlib.sha256("".join(stores[s].fingerprint for s in SPLITS).encode()).hexdigest()


def run_splits(run: Run, paths: Paths) -> dict[str, Split]:
    """The inputs of a run by split. Raises DataError, naming the command, where features are missing."""
    settings = feature_config(run.method, run.config)
    return {s: load_split(paths, run.dataset, run.category, s, settings) for s in SPLITS}


def finished_record(run: Run, paths: Paths, known: dict[tuple, str] | None = None) -> dict | None:
    """The record of a run that is finished on the present data, or None.

    known: fingerprints that were looked up before, by what decides them; extended here.
    """
    record, known = read_record(run, paths), {} if known is None else known
    if record is None:
        return None
    key = (run.dataset, run.category, feature_config(run.method, run.config).feature_digest())
    if key not in known:
        known[key] = data_fingerprint({name: part.store for name, part in run_splits(run, paths).items()})
    return record if record["data_fingerprint"] == known[key] else None


def save_answer(answer: Answer, folder: Path) -> None:
    """Store a method's answer for the test set: residual maps as they are, final maps as float16."""
    if isinstance(answer, ResidualMaps):
        _save_arrays(folder / RESIDUALS, {name: getattr(answer, name).numpy() for name in _PARTS}, np.savez)
        return
    maps = answer.final(answer.main)[0][:, 0].numpy()
    _save_arrays(folder / MAPS, {"maps": np.clip(maps, None, _HIGHEST).astype(np.float16)}, np.savez_compressed)


def load_residuals(run: Run, paths: Paths) -> tuple[torch.Tensor, ...]:
    """The residual maps of a finished run of MAFR: (psi_rgb, psi_xyz, valid), each (N, 1, g, g)."""
    return tuple(torch.from_numpy(array) for array in _load_arrays(run, paths, RESIDUALS, _PARTS))


def load_maps(run: Run, paths: Paths) -> np.ndarray:
    """The final maps of a compared method's finished run on all samples: (N, S, S) float16."""
    return _load_arrays(run, paths, MAPS, ("maps",))[0]


def _load_arrays(run: Run, paths: Paths, name: str, names: Sequence[str]) -> list[np.ndarray]:
    path = run.folder(paths) / name
    if not path.exists():
        raise DataError(f"{path} is missing; delete its folder and make it with `mafr run {paths.options}`")
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in names]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is damaged ({error}); delete its folder and run again") from error


def _save_arrays(path: Path, arrays: dict[str, np.ndarray], write: Callable) -> None:
    content = io.BytesIO()
    write(content, **arrays)
    write_atomically(path, content.getvalue())

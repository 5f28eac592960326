"""What `mafr weights` shows: every weight file of a configuration, where it is and whether it is the right one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mafr.config import UNTRAINED, Config
from mafr.data.acquire.fetch import file_sha256
from mafr.features.encoders import SMALL_WEIGHTS
from mafr.features.rgb import LITE0_SHA256, lite0_file
from mafr.features.weights.files import (
    WeightFile,
    expected_sha256,
    find_file,
    missing_text,
    needed_files,
    weights_folder,
)


@dataclass(frozen=True)
class Status:
    """One weight file as it was found.

    looked: where it was looked for. path: None where it is missing. sha256: the file's own; expected: the known one,
    or "" where none is.
    """

    title: str
    use: str
    looked: tuple[str, ...]
    path: Path | None
    sha256: str
    expected: str

    @property
    def is_right(self) -> bool:
        """Whether the file is there and is, as far as is known, the right one."""
        return self.path is not None and self.expected in ("", self.sha256)

    def text(self) -> str:
        """Some lines for people."""
        lines = [f"{self.title}: {self.use}"]
        if self.path is None:
            return "\n".join([*lines, "  MISSING; looked for " + ", ".join(self.looked)])
        lines.append(f"  found {self.path}, {self.path.stat().st_size / 1e6:.1f} MB")
        known = "as published" if self.expected else "none published to compare with"
        if not self.is_right:
            known = f"WRONG: {self.expected} is published; delete the file and fetch it again"
        return "\n".join([*lines, f"  SHA-256 {self.sha256}, {known}"])


def weight_status(config: Config, folder: Path | None, others: Sequence[WeightFile]) -> list[Status]:
    """The weight files of a configuration, image features first; those that come with the package too; last `others`,
    which compared methods need."""
    if config.random_weights:
        return []
    folder = weights_folder(config, folder)
    needed = {file.use: file for file in needed_files(config)}
    image = needed.get("image features")
    points = needed.get("point features")
    return [
        _downloaded(image, folder) if image else _lite0(),
        _downloaded(points, folder) if points else _small_pointmae(),
        *(_downloaded(file, folder) for file in others),
    ]


def weights_report(config: Config, folder: Path | None, others: Sequence[WeightFile]) -> str:
    """`weight_status` in words, with what to do about files that are missing."""
    if config.random_weights:
        return f"no weight files: {UNTRAINED}"
    folder = weights_folder(config, folder)
    parts = [status.text() for status in weight_status(config, folder, others)]
    wanted = (*needed_files(config), *others)
    missing = [file for file in wanted if find_file(file, folder) is None]
    if missing:
        parts.append(
            f"`mafr weights --profile {config.profile} --fetch` downloads what is missing, and so does feature "
            f"extraction. Without network: {missing_text(missing, folder)}"
        )
    return "\n".join(parts)


def _downloaded(file: WeightFile, folder: Path) -> Status:
    looked = [str(folder / name) for name in file.names]
    if file.hub:
        looked.append(f"the hub's cache of {file.hub}")
    path = find_file(file, folder)
    found, expected = ("", file.sha256) if path is None else (file_sha256(path), expected_sha256(file, path))
    return Status(file.title, file.use, tuple(looked), path, found, expected)


def _lite0() -> Status:
    path = lite0_file()
    found = path if path.is_file() else None
    digest = file_sha256(path) if found else ""
    return Status("EfficientNet-Lite0", "image features, from its package", (str(path),), found, digest, LITE0_SHA256)


def _small_pointmae() -> Status:
    path, record = SMALL_WEIGHTS, SMALL_WEIGHTS.with_suffix(".json")
    found = path if path.is_file() else None
    digest = file_sha256(path) if found else ""
    expected = json.loads(record.read_text(encoding="utf-8"))["sha256"] if record.is_file() else ""
    return Status("small Point-MAE", "point features, shipped with mafr", (str(path),), found, digest, expected)

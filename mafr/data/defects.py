"""A test set before anything is trained: whether it can be measured, and which defects vanish at the sample size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from mafr.data.folder import FolderDataset
from mafr.data.formats.images import decode_mask, read_bytes
from mafr.data.formats.tiffs import tiff_shape
from mafr.data.layout import Entry, some_of
from mafr.data.transforms import InputRules, common_side, mask_tensor
from mafr.errors import DataError, notice


@dataclass(frozen=True)
class Defects:
    """The defects of one sample: 8-connected regions of its mask, all and those that leave no pixel in a sample."""

    entry: Entry
    count: int
    lost: int
    shrinking: float  # pixels of the mask for one of a sample, along an axis


def check_test_set(test: FolderDataset) -> None:
    """Raise DataError for a test set that allows no metrics; say on stderr which defects are lost at its sample size.

    Metrics need good and anomalous samples, and of each defect's folder a pixel that is marked at the size of samples.
    """
    folder = test.entries[0].rgb.parents[2]
    size = test.rules.size
    for label, kind, example in ((0, "good", "good"), (1, "anomalous", "<a defect's name>")):
        if not (test.labels == label).any():
            raise DataError(
                f"{folder}: no {kind} samples, and metrics compare good and anomalous ones: add test/{example} to the "
                "raw data (`mafr fit` and `mafr predict` need no test samples)"
            )
    found = [defects_of(entry, test.rules) for entry in test.entries if entry.label]
    for name in sorted({one.entry.defect for one in found}):
        own = [one for one in found if one.entry.defect == name]
        count, lost = sum(one.count for one in own), sum(one.lost for one in own)
        if not count:
            raise DataError(
                f"{folder / name}: all masks are empty; mark the defects, or move samples without one to good"
            )
        if count == lost:
            raise DataError(
                f"{folder / name}: none of its {count} defects leaves a pixel at {size} x {size}: one pixel there is "
                f"{own[0].shrinking:.1f} of the scan's; take a larger image_size by --set, or leave this folder out"
            )
    if lost := sum(one.lost for one in found):
        names = some_of([one.entry.id for one in found if one.lost])
        total = sum(one.count for one in found)
        notice(
            f"{test.category}: {lost} of {total} defects leave no pixel at {size} x {size}, and "
            f"pixel metrics do not see them: one pixel there is {found[0].shrinking:.1f} of the scan's (in {names})"
        )


def defects_of(entry: Entry, rules: InputRules) -> Defects:
    """The defects of a processed sample. Raises DataError for damaged files."""
    mask = decode_mask(read_bytes(entry.gt), entry.gt)
    regions, count = ndimage.label(mask, structure=np.ones((3, 3)))
    shape = tiff_shape(entry.xyz)[:2]
    if not shape:
        raise DataError(f"{entry.xyz}: not a complete tiff; delete it and preprocess again")
    side = common_side(mask.shape, shape) or max(mask.shape)
    left = np.unique(mask_tensor(regions, side, rules.size, edge=rules.mask_padding == "edge"))
    return Defects(entry, count, count - int(np.count_nonzero(left)), side / rules.size)

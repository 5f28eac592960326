"""Data sets: generated, MVTec 3D-AD, Eyecandies, and the user's own parts."""

from mafr.data.acquire.counts import check_counts
from mafr.data.folder import FolderDataset, load_pair, open_dataset
from mafr.data.preprocessing import preprocess
from mafr.data.samples import Sample, few_shot

__all__ = ["FolderDataset", "Sample", "check_counts", "few_shot", "load_pair", "open_dataset", "preprocess"]

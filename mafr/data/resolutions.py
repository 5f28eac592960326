"""Images of several sizes in one category: a detector sees each scaled to one size, so details differ in scale."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from PIL import Image

from mafr.data.layout import processed_files, some_of
from mafr.errors import notice


def warn_of_sizes(folder: Path, records: Iterable[Mapping]) -> None:
    """Print a line where the training images of a processed category differ in size. records: of its samples."""
    sizes = Counter()
    for record in records:
        if record["id"].startswith("train/"):
            # Reads no more than the header; a damaged file is said when its sample is read.
            with suppress(OSError), Image.open(processed_files(folder, record["id"])[0]) as image:
                sizes[image.size] += 1
    if len(sizes) > 1:
        found = some_of([f"{width}x{height} ({count})" for (width, height), count in sizes.most_common()])
        notice(
            f"warning: {folder.name}: the training images have {len(sizes)} sizes, {found} pixels: each is scaled to "
            "the detector's own size, so the same part looks different; record all scans at one size"
        )

"""The table of raw scans' statistics: real ones, and generated ones of the same category beside them."""

from collections.abc import Sequence

from mafr.config import CATEGORIES, DATASET_TITLES, Config
from mafr.data.acquire.counts import PUBLISHED
from mafr.data.survey import DEFECT_STATISTICS, STATISTICS
from mafr.data.synthetic.mvtec.write import VERSIONS
from mafr.experiments.survey import DATASET, DEMO, REAL, Surveyed
from mafr.tables.layout import Column, Row, Table
from mafr.tables.real import LICENCES

_GENERATED = (
    Column("generated_second", "second generator", "GENERATED"),
    Column(DEMO, "second generator, the demo's size", "GENERATED"),
    Column("generated_first", "first generator", "GENERATED"),
)


def scans_table(surveyed: Sequence[Surveyed]) -> Table:
    """The statistics of categories that are all published or all the user's own; see `mafr.experiments.survey`."""
    published = all(one.category in CATEGORIES[DATASET] for one in surveyed)
    columns = [Column(REAL, "Real scans" if published else "Own scans"), *(_GENERATED if published else ())]
    demo = Config.preset("demo")
    data = "measured on real and generated raw scans" if published else "measured on own raw scans"
    stamp = {"data": data, "profile": "demo", "variant": "n/a", "seeds": "n/a", "config": "n/a"}
    if published:
        stamp["seeds"] = str(demo.data_seed)
    rows = [
        Row((one.category, what.title, what.unit), "measured", _of(one, name), stamp, decimals=what.decimals)
        for one in surveyed
        for name, what in (STATISTICS | DEFECT_STATISTICS).items()
    ]
    heading = f"Raw scans, {'real and generated' if published else 'own'}: medians over the scans"
    notes = [_said(one) for one in surveyed]
    if published:
        notes.append(f"Source and licence of the real scans: {LICENCES[DATASET]}.")
        versions = ", ".join(f"{name} version {number}" for name, number in VERSIONS.items())
        notes.append(
            "GENERATED scans: as many, of the same category's recipe; their longer side is that of the real scans, in "
            f"the demo's size {demo.raw_side} pixels. Generators: {versions}."
        )
    return Table("scans", heading, ("Category", "Statistic", "Unit"), columns, rows, notes=[*notes, *_READING])


_READING = (
    "All but the sizes of defects is measured on training scans. Test scans and their masks are measured for the sizes "
    "of defects alone.",
    "Areas are as the camera sees them. Within the outline: the part after the removal of the table, its gaps closed.",
    "Median hole, weighted by area: half of the pixels without a point lie in holes of this size or smaller ones.",
    "Raggedness: the area between the silhouette and its median-filtered course, over the rim's length. A missing "
    "pixel is as wide as it is, so a lower resolution is more ragged.",
    "Noise of the part: what a quadric over 5 × 5 pixels leaves; at a lower resolution that holds some of the shape, "
    "too. Noise of the table: from second differences of three neighbours.",
    "Points off the surface: those of the outline's outer 0.5 mm that are more than 2 mm from each point of the pixels "
    "around.",
    "Cells: those of the demo's feature maps that the mask touches.",
)


def _of(one: Surveyed, name: str) -> dict[str, float]:
    return {column: values[name] for column, values in one.columns.items()}


def _said(one: Surveyed) -> str:
    """The numbers of a category's scans, and whether they are all of the published ones."""
    real = one.category in CATEGORIES[DATASET]
    whole = PUBLISHED[DATASET][one.category] if real else None
    part = ""
    if whole and (one.train, one.defective) != (whole.train, whole.anomalous):
        part = f" (a part: {whole.train} and {whole.anomalous} are published)"
    title = f"Real scans: {DATASET_TITLES[DATASET]}, " if real else "Own scans: "
    return (
        f"{title}{one.category}, {one.size[0]} × {one.size[1]} pixels, {one.train} training scans and {one.defective} "
        f"anomalous test scans{part}."
    )

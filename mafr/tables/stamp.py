"""Where the numbers of a table come from, in words: notes, banners and the columns of the csv."""

from collections.abc import Mapping

from mafr.config import DATASET_TITLES, UNTRAINED, Config
from mafr.data.acquire.counts import PUBLISHED
from mafr.processor import REACHES
from mafr.tables.records import TableRecords


def source_notes(selected: TableRecords, spread: bool = True) -> list[str]:
    """Profile, variants, data, seeds, sample counts and settings digests of a table's measured values.

    spread: whether the table shows deviations over seeds.
    """
    config, runs = selected.config, selected.runs
    variants = list(dict.fromkeys(run.variant for run in runs if run.variant))
    datasets = list(dict.fromkeys(run.dataset for run in runs))
    data = " and ".join(data_title(config, dataset) for dataset in datasets)
    digests = ", ".join(f"{v} {config.with_variant(v).digest()[:12]}" for v in variants)
    notes = [
        f"Measured: profile {config.profile}; variant {' and '.join(variants)}; data: {data}; "
        f"seed {', '.join(map(str, selected.seeds))}; backbones {config.rgb_backbone} and {config.point_backbone}; "
        f"settings digest {digests}."
    ]
    if others := _other_counts(selected):
        notes.insert(0, f"NOT the published data set: {', '.join(others)} with other numbers of samples.")
    if config.random_weights:
        notes.insert(0, f"{UNTRAINED}.")
    notes += [_counts(selected, dataset) for dataset in datasets]
    if not all(run.variant for run in runs):
        notes.append("Run here: the compared methods in our own code on the same data, features and metrics.")
    if spread and len(selected.seeds) > 1:
        notes.append(f"Measured values: mean ± standard deviation over {len(selected.seeds)} seeds.")
    if selected.left_out:
        left = ", ".join(map(str, selected.left_out))
        notes.append(f"Left out, as some runs are missing: seed {left}.")
    return notes


def _other_counts(selected: TableRecords) -> list[str]:
    """Real categories of published names that hold other numbers of samples: a part of the data set, or other data."""
    others: dict[str, None] = {}
    for run in selected.runs:
        published = PUBLISHED[run.dataset].get(run.category)
        if selected.config.generated or published is None:
            continue
        for seed in selected.seeds:
            counts = selected.record(run, seed)["counts"]
            test = counts["test_good"], counts["test_defective"]
            whole = run.shots is not None or counts["train"] == published.train
            if test != (published.good, published.anomalous) or not whole:
                others[run.category] = None
    return list(others)


def data_title(config: Config, dataset: str) -> str:
    """The data set in words: the real one, or the generated stand-in."""
    title = DATASET_TITLES[dataset]
    return f"generated stand-in for {title}" if config.generated else title


def _counts(selected: TableRecords, dataset: str) -> str:
    """Samples per category; few-shot runs, whose training samples are "the shots", only where there are no others."""
    counts: dict[str, str] = {}
    for run in (run for run in selected.runs if run.dataset == dataset):
        if run.shots is None or run.category not in counts:
            c = selected.record(run)["counts"]
            train = c["train"] if run.shots is None else "the shots"
            counts[run.category] = f"{train} / {c['test_good']} / {c['test_defective']}"
    what = f"{selected.config.dataset_title(dataset)}, samples per category (train / test good / test defective)"
    if len(set(counts.values())) == 1:
        category, listed = next(iter(counts.items()))
        return f"{what}: {listed} in {f'each of {len(counts)} categories' if len(counts) > 1 else category}."
    return f"{what}: " + "; ".join(f"{category} {text}" for category, text in counts.items()) + "."


def banner(config: Config, published: bool = True) -> str:
    """A warning where measured values cannot be compared with the paper's, else ""."""
    if config.random_weights:
        data = " on generated data" if config.generated else ""
        return f"{UNTRAINED}. Measured{data} with {_backbones(config)}; made to test or time the code."
    if config.generated and published:
        return (
            f"Our rows are measured on generated data with {_backbones(config)}. They are NOT comparable with the "
            "published rows, which are shown for orientation only."
        )
    if config.generated:
        return f"Measured on generated data with {_backbones(config)}: NOT comparable with published numbers."
    if _has_small_backbones(config):
        return f"Our rows are measured with {_backbones(config)}, not with the paper's backbones."
    return ""


def row_stamp(selected: TableRecords, variant: str) -> dict[str, str]:
    """The cells of `mafr.tables.layout.STAMP_COLUMNS` for a measured row; variant "": of a compared method."""
    config, data = selected.config, "measured on real data"
    if _other_counts(selected):
        data = "measured on data that is NOT the published data set (other numbers of samples)"
    if config.generated:
        data = f"measured on generated data with {_backbones(config)}; NOT comparable with published rows"
    if config.random_weights:
        data = f"{UNTRAINED}; {data}"
    return {
        "data": data,
        "profile": config.profile,
        "variant": variant or "n/a",
        "seeds": " ".join(map(str, selected.seeds)),
        "config": config.with_variant(variant or "paper").digest()[:12],
    }


def machines(selected: TableRecords) -> list[str]:
    """The processors, and GPUs where there were any, that computed a table's runs, each once, in words."""
    records = (record for seed in selected.by_seed.values() for record in seed.values())
    return list(dict.fromkeys(_machine(record.get("place", {})) for record in records))


def _machine(place: Mapping) -> str:
    """In words what `place` of a run's record tells; records older than the processor's name tell less."""
    name = place.get("processor", "a processor that older records do not name")
    if sets := place.get("instruction_sets"):
        name += f" ({', '.join(sets)})"
    name += f", same bytes on {REACHES[reach]}" if (reach := place.get("same_bytes")) in REACHES else ""
    gpu = place.get("device", "cpu")
    return name if gpu == "cpu" else f"{gpu}, with {name}"


def is_comparable(config: Config) -> bool:
    """Whether measured values may stand beside published ones: real data, trained backbones."""
    return not config.generated and not config.random_weights


def _has_small_backbones(config: Config) -> bool:
    return config.rgb_backbone != "dino_vitb8" or config.point_backbone != "pointmae"


def _backbones(config: Config) -> str:
    small = _has_small_backbones(config)
    size = "small backbones" if small else "the paper's backbones"
    if config.random_weights:
        size = f"untrained {'small backbones' if small else 'networks of the paper'}"
    return f"{size} ({config.rgb_backbone}, {config.point_backbone})"

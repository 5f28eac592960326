"""Where the numbers of a table come from, in words: notes, banners and the columns of the csv."""

from __future__ import annotations

from mafr.config import DATASET_TITLES, UNTRAINED, Config
from mafr.data.acquire.counts import PUBLISHED
from mafr.tables.found import Found


def stamp(found: Found, config: Config) -> list[str]:
    """Notes that say where a table's measured values come from: profile, variants, data, seeds, counts, digest."""
    variants = list(dict.fromkeys(run.variant for run in found.runs if run.variant))
    datasets = list(dict.fromkeys(run.dataset for run in found.runs))
    data = " and ".join(data_title(config, dataset) for dataset in datasets)
    digests = ", ".join(f"{v} {config.with_variant(v).digest()[:12]}" for v in variants)
    notes = [
        f"Measured: profile {config.profile}; variant {' and '.join(variants)}; data: {data}; "
        f"seed {', '.join(map(str, found.seeds))}; backbones {config.rgb_backbone} and {config.point_backbone}; "
        f"settings digest {digests}."
    ]
    if others := other_counts(config, found):
        notes.insert(0, f"NOT the published data set: {', '.join(others)} with other numbers of samples.")
    if config.random_weights:
        notes.insert(0, f"{UNTRAINED}.")
    for dataset in datasets:
        notes.append(_counts(config, found, dataset))
    if not all(run.variant for run in found.runs):
        notes.append("Run here: the compared methods in our own code on the same data, features and metrics.")
    if len(found.seeds) > 1:
        notes.append(f"Measured values: mean ± standard deviation over {len(found.seeds)} seeds.")
    if found.left_out:
        left = ", ".join(map(str, found.left_out))
        notes.append(f"Left out, as some runs are missing: seed {left}.")
    return notes


def other_counts(config: Config, found: Found) -> list[str]:
    """Real categories of published names that hold other numbers of samples: a part of the data set, or other data."""
    others: dict[str, None] = {}
    for run in found.runs:
        published = PUBLISHED[run.dataset].get(run.category)
        if config.generated or published is None:
            continue
        for seed in found.seeds:
            counts = found.record(run, seed)["counts"]
            test = counts["test_good"], counts["test_defective"]
            whole = run.shots is not None or counts["train"] == published.train
            if test != (published.good, published.anomalous) or not whole:
                others[run.category] = None
    return list(others)


def data_title(config: Config, dataset: str) -> str:
    """The data set in words: the real one, or the generated stand-in."""
    title = DATASET_TITLES[dataset]
    return f"generated stand-in for {title}" if config.generated else title


def _counts(config: Config, found: Found, dataset: str) -> str:
    """Samples a category; few-shot runs aside, whose training samples are the shots."""
    counts: dict[str, str] = {}
    for run in (run for run in found.runs if run.dataset == dataset):
        if run.shots is None or run.category not in counts:
            c = found.record(run)["counts"]
            train = c["train"] if run.shots is None else "the shots"
            counts[run.category] = f"{train} / {c['test_good']} / {c['test_defective']}"
    what = f"{config.dataset_title(dataset)}, samples a category (train / test good / test defective)"
    if len(set(counts.values())) == 1:
        listed = next(iter(counts.values()))
        number = f"each of {len(counts)} categories" if len(counts) > 1 else next(iter(counts))
        return f"{what}: {listed} in {number}."
    return f"{what}: " + "; ".join(f"{category} {text}" for category, text in counts.items()) + "."


def banner(config: Config, published: bool = True) -> str:
    """A warning in plain words where measured values cannot be compared with the paper's, else ""."""
    if config.random_weights:
        data = " on generated data" if config.generated else ""
        return f"{UNTRAINED}. Measured{data} with {backbones(config)}; made to test or time the code."
    if config.generated and published:
        return (
            f"Our rows are measured on generated data with {backbones(config)}. They are NOT comparable with the "
            "published rows, which are shown for orientation only."
        )
    if config.generated:
        return f"Measured on generated data with {backbones(config)}: NOT comparable with published numbers."
    if has_small_backbones(config):
        return f"Our rows are measured with {backbones(config)}, not with the paper's backbones."
    return ""


def row_stamp(config: Config, variant: str, found: Found) -> dict[str, str]:
    """The cells of `mafr.tables.layout.STAMP_COLUMNS` for a measured row; variant "": of a compared method."""
    data = "measured on real data"
    if other_counts(config, found):
        data = "measured on data that is NOT the published data set (other numbers of samples)"
    if config.generated:
        data = f"measured on generated data with {backbones(config)}; NOT comparable with published rows"
    if config.random_weights:
        data = f"{UNTRAINED}; {data}"
    return {
        "data": data,
        "profile": config.profile,
        "variant": variant or "n/a",
        "seeds": " ".join(map(str, found.seeds)),
        "config": config.with_variant(variant or "paper").digest()[:12],
    }


def is_comparable(config: Config) -> bool:
    """Whether measured values may stand beside published ones: real data, trained backbones."""
    return not config.generated and not config.random_weights


def has_small_backbones(config: Config) -> bool:
    """Whether a feature extractor is not the paper's."""
    return config.rgb_backbone != "dino_vitb8" or config.point_backbone != "pointmae"


def backbones(config: Config) -> str:
    """The feature extractors in words."""
    size = "small backbones" if has_small_backbones(config) else "the paper's backbones"
    if config.random_weights:
        size = f"untrained {'small backbones' if has_small_backbones(config) else 'networks of the paper'}"
    return f"{size} ({config.rgb_backbone}, {config.point_backbone})"

"""What each difference between the paper's text and the released code is worth, one at a time and from both ends.

From the text: `paper` with one setting of the released code. From the code: `released` with one setting of the text.
Differences add up only if they do not depend on each other; both ends together show where they do. Each end also loses
its attention, which the paper ablates nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mafr.config import BY_VARIANT, BY_VARIANT_AT_FULL_SIZE, VARIANTS, Config
from mafr.experiments.plan import Run, loss_runs
from mafr.parallel.progress import Workers
from mafr.paths import Paths

DATASET = "mvtec3d"
WIDTH = "fused_dim"  # of the fused embedding, which is a rule and not a number in the settings
ABLATED = {"cbam_scope": "none"}  # of neither variant


@dataclass(frozen=True)
class Change:
    """One setting taken from the other variant; name "" for the variant as it is."""

    base: str
    config: Config
    name: str = ""

    @property
    def value(self) -> object:
        """What the setting is changed to."""
        return getattr(self.config, self.name) if self.name else ""

    def runs(self) -> list[Run]:
        """Its runs, one per category."""
        return [Run(DATASET, category, self.config) for category in self.config.categories(DATASET)]


def changes(config: Config) -> list[Change]:
    """Both variants, each followed by itself with one setting of the other, and by itself with each of `ABLATED`.

    Those of the input, which differ at full size only, are taken at every size.
    """
    variants = {variant: config.with_variant(variant) for variant in VARIANTS}
    made = []
    for base, other in zip(VARIANTS, VARIANTS[::-1], strict=True):
        made.append(Change(base, variants[base]))
        for name, pair in (BY_VARIANT | BY_VARIANT_AT_FULL_SIZE).items():
            value = pair[VARIANTS.index(other)]
            if getattr(variants[base], name) == value:  # of the input: the small profiles keep one, the text's
                value = pair[VARIANTS.index(base)]
            made.append(Change(base, replace(variants[base], **{name: value}), name))
        made.append(Change(base, replace(variants[base], **{WIDTH: variants[other].width}), WIDTH))
        made += [Change(base, replace(variants[base], **{name: value}), name) for name, value in ABLATED.items()]
    return made


def loss_ablations(config: Config) -> dict[str, dict[tuple[str, ...], list[Run]]]:
    """{variant: {loss terms: runs}}: Table IV by both variants."""
    return {variant: loss_runs(config, variant) for variant in VARIANTS}


def measure(config: Config, paths: Paths, workers: Workers = 1) -> dict[Run, dict]:
    """The records of all runs of `changes` and `loss_ablations`; those that are missing are made."""
    from mafr.experiments.execute import run_sharing
    from mafr.experiments.prepare import extract_for

    runs = [run for change in changes(config) for run in change.runs()]
    runs += [run for rows in loss_ablations(config).values() for row in rows.values() for run in row]
    runs = list(dict.fromkeys(runs))
    extract_for(runs, paths, workers)
    return run_sharing(runs, paths, workers)

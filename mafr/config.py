"""Settings: one frozen dataclass; profiles set the size, variants the paper's or the released code's method."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mafr.errors import ConfigError
from mafr.settings import compared, sections
from mafr.settings.field import ALL, check, check_choice
from mafr.settings.sections import CALIBRATED as CALIBRATED
from mafr.settings.sections import CATEGORIES, LOSS_TERMS, PROFILES, VARIANTS
from mafr.settings.sections import DEVELOPMENT as DEVELOPMENT
from mafr.settings.sections import FUSIONS as FUSIONS

DATASETS = ("mvtec3d", "eyecandies")  # the paper's, those of its tables
ALL_DATASETS = (*DATASETS, "adam3d")  # and those that every command for single categories takes as well
DATASET_TITLES = {"mvtec3d": "MVTec 3D-AD", "eyecandies": "Eyecandies", "adam3d": "3D-ADAM"}
UNTRAINED = "UNTRAINED random backbones: these numbers mean nothing"  # on every output made with `random_weights`
NEED_STORED = (
    "the compared methods need features that can be stored: choose extractor_mode 'eval' or 'batch-statistics', or "
    "leave the methods out with --methods mafr"
)

# The settings in which the paper's text and the released code differ (notebook 10 shows what each one changes).
BY_VARIANT = {  # name: (paper, released)
    "decoder_layers": (3, 4),
    "decoder_order": ("gelu-norm", "norm-gelu"),
    "shared_norm": (False, True),
    "cbam_scope": ("map", "pixel"),
    "znssd_over": ("pixels", "channels"),
    "smooth_channels": ("all", "first_two"),
    "valid_only": (True, False),
    "blur": ("gaussian", "box"),
    "image_score": ("max", "max-over-root-mean"),
    "map_scaling": ("none", "per-metric"),
}
# Those of the input differ at full size only: the small profiles keep one set of features.
BY_VARIANT_AT_FULL_SIZE = {
    "cloud_sampling": ("centre", "floor"),
    "point_rule": ("any", "all"),
    "mask_padding": ("zeros", "edge"),
    "skip_origin": (False, True),
}


@dataclass(frozen=True)
class Config(  # fields go from the last base to the first
    compared.VoxelSettings,
    compared.DepthSettings,
    compared.RGBDSettings,
    compared.ASTSettings,
    compared.M3DMSettings,
    compared.SingleFeatureSettings,
    compared.BTFSettings,
    compared.BankSettings,
    compared.CFMSettings,
    sections.ReportingSettings,
    sections.ComputingSettings,
    sections.ScoringSettings,
    sections.TrainingSettings,
    sections.LossSettings,
    sections.HeadSettings,
    sections.FeatureSettings,
    sections.DataSettings,
    sections.RunSettings,
):
    """All settings of a run. Build one with `Config.preset`, change it with `dataclasses.replace`.

    Each setting names the methods it concerns, what it decides and its possible values, see `mafr.settings.field`.
    """

    def __post_init__(self) -> None:
        _validate(self)

    @classmethod
    def preset(
        cls, profile: str = "demo", variant: str = "paper", overrides: Mapping[str, object] | None = None
    ) -> Config:
        """The settings of a profile and a variant, with `overrides` (field name -> value) on top.

        Raises ConfigError for an unknown profile, variant or field, or for values that do not fit.
        """
        check_choice("profile", profile, PROFILES)
        check_choice("variant", variant, VARIANTS)
        settings = {name: field.metadata[profile] for name, field in SETTINGS.items() if profile in field.metadata}
        settings |= {"profile": profile, "variant": variant} | _variant_settings(profile, variant)
        for name, value in (overrides or {}).items():
            if name not in SETTINGS:
                raise ConfigError(f"unknown setting {name!r}; the settings are {', '.join(sorted(SETTINGS))}")
            settings[name] = tuple(value) if isinstance(value, list) else value
        return cls(**settings)

    def with_variant(self, variant: str) -> Config:
        """These settings with another variant's method; given its own variant, unchanged."""
        check_choice("variant", variant, VARIANTS)
        if variant == self.variant:
            return self
        return dataclasses.replace(self, variant=variant, **_variant_settings(self.profile, variant))

    @property
    def width(self) -> int:
        """Width of the fused embedding: the paper's 968 of 1,920, the released code's half, to scale."""
        if self.fused_dim:
            return self.fused_dim
        total = self.rgb_dim + self.xyz_dim
        return round(total * 968 / 1920) if self.variant == "paper" else total // 2

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each term of eq. 6."""
        return {"sim": self.weight_sim, "smooth": self.weight_smooth, "census": self.weight_census}

    def categories(self, dataset: str) -> tuple[str, ...]:
        """The categories of a data set in this profile, in the paper's order; of one in no table those named."""
        check_choice("data set", dataset, ALL_DATASETS)
        return getattr(self, f"{dataset}_categories")

    def dataset_title(self, dataset: str) -> str:
        """The data set's name, distinct for a generated stand-in and for own data."""
        title = DATASET_TITLES[dataset]
        if self.generated and set(self.categories(dataset)) & set(DEVELOPMENT):
            return f"development categories in {title} layout"
        if self.generated:
            return f"{title} stand-in"
        own = set(self.categories(dataset)) - set(CATEGORIES[dataset])
        return f"own data in {title} layout" if own and CATEGORIES[dataset] else title

    def as_dict(self) -> dict[str, object]:
        """Every field, tuples as lists: what is written beside a result."""
        values = {name: getattr(self, name) for name in SETTINGS}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Config:
        """The inverse of `as_dict`. Raises ConfigError for fields that are missing or unknown."""
        values = ADDED | dict(values)
        if set(values) != set(SETTINGS):
            odd = ", ".join(sorted(set(values) ^ set(SETTINGS)))
            raise ConfigError(f"these settings are missing or unknown: {odd}; written by another version?")
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    def digest(self, names: tuple[str, ...] | None = None) -> str:
        """SHA-256 (hex) of the named settings, or of all that decide results."""
        values = self.as_dict()
        kept = names or set(SETTINGS) - set(deciding("place"))
        kept = {name: values[name] for name in kept if not _left_out(name, values[name])}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()

    def data_digest(self, dataset: str) -> str:
        """Hash of what decides a generated data set."""
        check_choice("data set", dataset, DATASETS)
        others = {f"{other}_train" for other in DATASETS if other != dataset}
        return self.digest(tuple(name for name in deciding("data") if name not in others))

    def feature_digest(self) -> str:
        """Hash of what decides the stored features, beside the data."""
        return self.digest(FEATURE_SETTINGS)


SETTINGS = {field.name: field for field in dataclasses.fields(Config)}


def generated_categories(dataset: str) -> tuple[str, ...]:
    """The categories that can be generated: the data set's own, and those for development in MVTec 3D-AD's layout."""
    return CATEGORIES[dataset] + (DEVELOPMENT if dataset == "mvtec3d" else ())


def deciding(*what: str) -> tuple[str, ...]:
    """The names of the settings that decide one of `what`, for whose words see `mafr.settings.field`."""
    return tuple(name for name, field in SETTINGS.items() if field.metadata["decides"] in what)


FEATURE_SETTINGS = deciding("features")
SCORING_SETTINGS = tuple(field.name for field in dataclasses.fields(sections.ScoringSettings))
REPORTING_SETTINGS = tuple(field.name for field in dataclasses.fields(sections.ReportingSettings))
# The meaning of a setting's absence in records that are older than it.
ADDED = {name: field.metadata["absent_is"] for name, field in SETTINGS.items() if "absent_is" in field.metadata}


def concerns(method: str, name: str) -> bool:
    """Whether a setting may change a method's results; unknown settings of other records may."""
    owners = SETTINGS[name].metadata["of"] if name in SETTINGS else ALL
    return owners == ALL or method in owners


def usual(profile: str, names: Iterable[str]) -> dict[str, object]:
    """The values of some settings in a profile, by name, as a record has them."""
    fields = {name: SETTINGS[name] for name in names}
    values = {name: field.metadata.get(profile, field.default) for name, field in fields.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def deciding_settings(config: Config, method: str, dataset: str) -> dict[str, object]:
    """The settings that decide the result of a method's run on a data set, by name.

    Those of tables have the profile's own values, whatever they are: no run depends on them, but stored runs name them.
    """
    free = {*deciding("runs", "place"), *(f"{other}_train" for other in DATASETS if other != dataset)}
    if not config.generated:
        free |= set(deciding("data"))
    return {
        name: value
        for name, value in (config.as_dict() | usual(config.profile, deciding("tables"))).items()
        if name not in free and concerns(method, name) and not (name in ADDED and value == ADDED[name])
    }


def differences(saved: Config, wanted: Config, method: str) -> list[str]:
    """In words, each difference between two configurations in what decides a method's features and its model."""
    free = deciding("report", "tables", "runs", "place")  # which change no weight
    if not (saved.generated or wanted.generated):
        free += deciding("data")
    a, b = saved.as_dict(), wanted.as_dict()
    return [
        f"{name} is {a[name]} there and {b[name]} here"
        for name in a
        if name not in free and a[name] != b[name] and concerns(method, name)
    ]


def _variant_settings(profile: str, variant: str) -> dict[str, object]:
    pairs = BY_VARIANT | (BY_VARIANT_AT_FULL_SIZE if profile == "full" else {})
    return {name: values[VARIANTS.index(variant)] for name, values in pairs.items()}


def _left_out(name: str, value: object) -> bool:
    said = SETTINGS[name].metadata
    value = tuple(value) if isinstance(value, list) else value
    return any(word in said and value == said[word] for word in ("absent_is", "unnamed_at"))


def _validate(config: Config) -> None:
    for name, field in SETTINGS.items():
        check(field, getattr(config, name))
    for dataset in DATASETS:
        if not config.categories(dataset):
            raise ConfigError(f"{dataset}_categories must name at least one category")
        for category in config.categories(dataset):
            if config.generated:  # real data may have other categories
                check_choice(f"{dataset} category", category, generated_categories(dataset))
    if not config.loss_terms or len(set(config.loss_terms)) != len(config.loss_terms):
        raise ConfigError(f"loss_terms must name each term once, not {config.loss_terms}")
    for term in config.loss_terms:
        check_choice("loss term", term, LOSS_TERMS)
    if config.generated and config.raw_side < 60:
        raise ConfigError(f"raw_side must be at least 60 pixels for generated data, not {config.raw_side}")
    if config.image_size % config.grid:
        raise ConfigError(f"image_size {config.image_size} must be a multiple of grid {config.grid}")

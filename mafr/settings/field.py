"""Settings that say whom they concern, what they decide and which values they may have.

A section is a frozen dataclass of settings; `section` says what holds for all of them, `setting` what holds for one:

of          the methods that a setting concerns: ALL, MAFR, or names of compared methods
decides     what depends on it, one of
              data      the content of a generated data set
              features  the stored features, the data aside
              head      which parts the head has and in which order; its widths show in a checkpoint itself
              result    anything else that may change a number
              report    what is reported of a run's maps, or how many threads make them
              tables    what tables make of finished runs; no run depends on it
              runs      which runs are made; no single run depends on it
              place     where and by what results are computed; records say where it was
rules       conditions on a number, or on every element of a tuple: POSITIVE, ODD, ...
choices     the allowed values
smoke, full, parts
            values in these profiles; the default is the demo's
absent_is   the value meant by records older than the setting; at this value all digests leave it out
unnamed_at  the value at which the digests of features and settings leave it out, because stored features are older;
            runs and records name it
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, dataclass_transform

from mafr.errors import ConfigError

ALL = ("all",)
MAFR = ("mafr",)
DECIDES = ("data", "features", "head", "result", "report", "tables", "runs", "place")


class Rule(NamedTuple):
    """A condition on a number, and its wording in errors."""

    must: str
    holds: Callable[[float], bool]


POSITIVE = Rule("be positive", lambda value: value > 0)
NONNEGATIVE = Rule("not be negative", lambda value: value >= 0)
AT_LEAST_3 = Rule("be at least 3", lambda value: value >= 3)
ODD = Rule("be odd", lambda value: value % 2 != 0)
SHARE = Rule("be in [0, 1)", lambda value: 0 <= value < 1)
QUANTILE = Rule("be in (0, 1]", lambda value: 0 < value <= 1)


def setting(
    default: object,
    *rules: Rule,
    of: tuple[str, ...] | None = None,
    decides: str | None = None,
    choices: tuple[str, ...] | None = None,
    smoke: object = None,
    full: object = None,
    parts: object = None,
    absent_is: object = None,
    unnamed_at: object = None,
) -> Any:
    """A field of a section with words of its own, which the module explains."""
    said = {
        "rules": rules, "of": of, "decides": decides, "choices": choices, "smoke": smoke, "full": full, "parts": parts,
        "absent_is": absent_is, "unnamed_at": unnamed_at,
    }  # fmt: skip
    metadata = {k: v for k, v in said.items() if v is not None and (k, v) not in (("rules", ()), ("of", ()))}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(setting,))
def section(*rules: Rule, of: tuple[str, ...] = ALL, decides: str = "result") -> Callable[[type], type]:
    """Make a class a frozen dataclass of settings. Its own `rules` hold for numbers only."""

    def settle(cls: type) -> type:
        for name in cls.__annotations__:
            given = cls.__dict__[name]
            field = given if isinstance(given, dataclasses.Field) else setting(given)
            number = isinstance(field.default, int | float) and not isinstance(field.default, bool)
            said = {"rules": rules if number else (), "of": of, "decides": decides} | dict(field.metadata)
            setattr(cls, name, dataclasses.field(default=field.default, metadata=said))
        return dataclasses.dataclass(frozen=True)(cls)

    return settle


def check_choice(what: str, value: object, allowed: Sequence[str]) -> None:
    """Raises ConfigError for a value that is not allowed."""
    if value not in allowed:
        raise ConfigError(f"unknown {what} {value!r}; choose one of {', '.join(allowed)}")


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises ConfigError for a value that a setting's choices or rules exclude, and for a float that is not finite."""
    if "choices" in field.metadata:
        check_choice(field.name, value, field.metadata["choices"])
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(number, float) and not math.isfinite(number) for number in numbers):
        raise ConfigError(f"{field.name} must be finite, not {value}")
    for rule in field.metadata["rules"]:
        if not all(rule.holds(number) for number in numbers):
            raise ConfigError(f"{field.name} must {rule.must}, not {value}")

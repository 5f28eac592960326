"""What a setting says of itself: whom it concerns, what it decides and which values it may have.

A section is a frozen dataclass of settings. What `section` names holds for all its settings, what `setting` names for
one of them:

of          the methods that a setting concerns: ALL, MAFR, or names of compared methods
decides     what depends on it, one of
              data      what a generated data set holds
              features  what the stored features are, the data aside
              head      which parts the head has and in which order; its widths show in a checkpoint itself
              result    all else that may change a number
              report    what is told of a run's maps, or in how many threads they are made
              runs      which runs are made; one of them does not depend on it
              place     where and by what they are computed; their records say where it was
rules       what a number must be: POSITIVE, ODD, ...; a tuple's every element
choices     the values that it may have
smoke, full its values in these profiles; the default is the demo's
absent_is   it is younger than records that may lie about: what it means that they lack it. At this value all digests
            leave it out
unnamed_at  it is younger than stored features: at this value their digests and the settings' leave it out, but runs
            and records name it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, dataclass_transform

from mafr.errors import ConfigError

ALL = ("all",)
MAFR = ("mafr",)
DECIDES = ("data", "features", "head", "result", "report", "runs", "place")


class Rule(NamedTuple):
    """A condition on a number, and how an error says it."""

    must: str
    holds: Callable[[float], bool]


ANY = Rule("be a number", lambda value: True)
POSITIVE = Rule("be positive", lambda value: value > 0)
NOT_NEGATIVE = Rule("not be negative", lambda value: value >= 0)
AT_LEAST_3 = Rule("be at least 3", lambda value: value >= 3)
ODD = Rule("be odd", lambda value: value % 2 != 0)
SHARE = Rule("be in [0, 1)", lambda value: 0 <= value < 1)
QUANTILE = Rule("be in (0, 1]", lambda value: 0 < value <= 1)
_UNSAID: Any = object()


def setting(
    default: object,
    *rules: Rule,
    of: tuple[str, ...] = _UNSAID,
    decides: str = _UNSAID,
    choices: tuple[str, ...] = _UNSAID,
    smoke: object = _UNSAID,
    full: object = _UNSAID,
    absent_is: object = _UNSAID,
    unnamed_at: object = _UNSAID,
) -> Any:
    """A field of a section that says more than its section does; see the module for the words."""
    said = {
        "rules": rules or _UNSAID, "of": of, "decides": decides, "choices": choices, "smoke": smoke, "full": full,
        "absent_is": absent_is, "unnamed_at": unnamed_at,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata={k: v for k, v in said.items() if v is not _UNSAID})


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
    """Raises ConfigError for a value that a setting's choices or rules exclude."""
    if "choices" in field.metadata:
        check_choice(field.name, value, field.metadata["choices"])
    for rule in field.metadata["rules"]:
        if not all(rule.holds(number) for number in (value if isinstance(value, tuple) else (value,))):
            raise ConfigError(f"{field.name} must {rule.must}, not {value}")

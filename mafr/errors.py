"""Errors that a user can fix. The command line prints their text and exits with status 1, without a traceback."""

import sys
from contextlib import suppress


def printable(text: str) -> str:
    """A text on one line for a terminal: control characters, as names of files may hold them, appear as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def notice(text: str) -> None:
    """Say something on stderr that is no error but should be known, as one printable line."""
    with suppress(BrokenPipeError):  # nobody reads on
        print(f"mafr: {printable(text)}", file=sys.stderr, flush=True)


class MafrError(Exception):
    """Base of all errors that name what is wrong, what was expected and what to do, on one printable line."""

    def __str__(self) -> str:
        return printable(super().__str__())


class ConfigError(MafrError, ValueError):
    """A setting is unknown or does not fit the others."""


class DataError(MafrError, ValueError):
    """A data file or folder is missing, damaged or not as expected."""


class WeightsError(MafrError, ValueError):
    """Pretrained weights or a saved detector are missing, damaged or do not fit."""


class MetricError(MafrError, ValueError):
    """A metric cannot be computed from these labels, masks or scores."""


class ResultError(MafrError, ValueError):
    """A table asks for runs that are not stored, or stored records do not fit together."""


class StorageError(MafrError, OSError):
    """A file or folder cannot be written: no room, no permission, a file where a folder is needed."""


class FullDiskError(StorageError):
    """The disk has no room: what was written is whole as far as it goes, and a later call continues."""
